"""Some seeds of the fake world (soak.py); `make soak SEEDS=n` runs as many as are wanted."""

from __future__ import annotations

import pytest

from tests.world.soak import live


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_in_which_all_goes_wrong_that_can_keeps_all_promises(seed):
    lived = live(seed)
    assert not lived.failed, f"{lived.failed}\n{lived.last}"
    assert lived.readings > 1_000


def test_the_same_seed_gives_the_same_log_and_another_another():
    first, again, other = live(1, days=0.1), live(1, days=0.1), live(2, days=0.1)
    assert first.log == again.log != other.log
