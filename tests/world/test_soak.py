"""Some seeds of the fake world (soak.py); `make soak SEEDS=n` runs as many as are wanted."""

from __future__ import annotations

import pytest

from tests.world.soak import live

HOURS = 6
"""As much goes wrong in them as in a day of `make soak`."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1, 6))
def test_hours_in_which_all_goes_wrong_that_can_keep_all_promises(seed):
    lived = live(seed, hours=HOURS)
    assert not lived.failed, f"{lived.failed}\n{lived.last}"
    assert lived.readings > 100


def test_the_same_seed_gives_the_same_log_and_another_another():
    first, again, other = live(1, hours=2), live(1, hours=2), live(2, hours=2)
    assert first.log == again.log != other.log
