"""Gateways and brokers killed at random instants; `make kills` does it a thousand and two hundred times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.kills import follow, kill_brokers, kill_gateways

pytestmark = pytest.mark.live


def test_gateways_killed_at_random_lose_nothing_and_double_nothing(tmp_path: Path, needs_mosquitto: None):
    result = kill_gateways(tmp_path, kills=10, seed=20261125)
    assert result.wrong == []
    assert result.kills == 10
    assert result.under_way > 0, "no kill fell between the card and a receipt: nothing was proved"


def test_a_broker_killed_at_random_loses_nothing_and_doubles_nothing(tmp_path: Path, needs_mosquitto: None):
    result = kill_brokers(tmp_path, kills=5, seed=20261125)
    assert result.wrong == []
    assert result.under_way > 0, "no kill fell between the card and a receipt: nothing was proved"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_gateways_and_twenty_of_mosquitto(tmp_path: Path, needs_mosquitto: None):
    assert kill_gateways(tmp_path / "gateways", kills=100, seed=1).wrong == []
    assert kill_brokers(tmp_path / "brokers", kills=20, seed=1).wrong == []


def telling(alert_id: str, rev: int, state: str) -> dict[str, Any]:
    return {"alert_id": alert_id, "rev": rev, "state": state, "kind": "occlusion", "code": None}


@pytest.mark.parametrize(
    ("tellings", "words"),
    [
        ([telling("a", 1, "active"), telling("a", 1, "latched")], "a: rev 1 after 1"),
        ([telling("a", 2, "active"), telling("a", 1, "latched")], "a: rev 1 after 2"),
        ([telling("a", 1, "active"), telling("b", 1, "active")], "is told as two alerts, a and b"),
        ([telling("a", 1, "closed"), telling("a", 2, "active")], "a goes on after it was closed"),
    ],
)
def test_what_is_doubled_is_seen(tellings: list[dict[str, Any]], words: str):
    [wrong] = follow(tellings).wrong
    assert words in wrong


def test_a_condition_that_comes_back_after_its_end_is_another_alert():
    lives = follow([telling("a", 1, "active"), telling("a", 1000, "closed"), telling("b", 1, "active")])
    assert (lives.wrong, lives.said_again) == ([], 0)


def test_what_a_board_has_asked_for_anew_is_the_same_but_for_its_number():
    lives = follow([telling("a", 1, "active") | {"seq": 1}, telling("a", 1, "active") | {"seq": 2}])
    assert (lives.wrong, lives.said_again) == ([], 1)
