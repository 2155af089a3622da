"""The collector's database: what was stored stays stored, and nothing is overwritten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from alerts.dashboard.collector import Lost
from alerts.dashboard.store import Durable, LaneKey, Notice, Store, StoreUnusable
from alerts.sink import Lane

ALERTS = LaneKey("h-1", "s-1", Lane.ALERTS)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'dashboard.sqlite3'}"


def durable(
    seq: int, payload: bytes = b"{}", *, alert_id: str | None = None, closed: bool = False
) -> Durable:
    return Durable(
        home="h-1",
        store="s-1",
        lane=Lane.ALERTS,
        seq=seq,
        topic="dripwatch/v1/h-1/up/pump/p1/alert/a",
        payload=payload,
        arrived_utc_ms=1_000 * seq,
        pump="p1",
        alert_id=alert_id,
        rev=seq,
        closed=closed,
    )


def test_what_was_kept_is_there_after_the_process_has_gone(url: str) -> None:
    Store(url).keep([durable(1), durable(2), durable(4)], {ALERTS: 2})
    again = Store(url)
    assert again.progress() == {ALERTS: (2, (4,))}


def test_equal_bytes_under_one_number_are_a_duplicate_and_other_bytes_are_kept_beside(url: str) -> None:
    store = Store(url)
    first = store.keep([durable(1, b"one", alert_id="a")])
    second = store.keep([durable(1, b"one", alert_id="a"), durable(1, b"two", alert_id="a")])
    assert (first.new, first.contradicts) == ((True,), (False,))
    assert (second.new, second.contradicts) == ((False, True), (False, True))
    assert [message.payload for message in store.revisions("h-1", "a")] == [b"one", b"two"]


def test_a_contradiction_is_on_record_with_the_message_that_makes_it(url: str) -> None:
    notice = Notice(home="h-1", key="k", kind="duplicate_gateway", message="Twice.", raised_utc_ms=5)
    Store(url).keep([durable(1, b"one")], contradiction=lambda message: notice)
    assert Store(url).open_notices() == ()
    Store(url).keep([durable(1, b"one"), durable(1, b"two")], contradiction=lambda message: notice)
    assert Store(url).open_notices() == (notice,)


def test_a_transaction_is_kept_whole_or_not_at_all(url: str) -> None:
    store = Store(url)
    nameless = Notice(home="h-1", key="k", kind=None, message="", raised_utc_ms=0)  # type: ignore[arg-type]
    with pytest.raises(IntegrityError):
        store.keep([durable(1)], {ALERTS: 1}, notices=[nameless])
    assert store.progress() == {}


def test_the_file_is_written_ahead_and_fully_synchronised(url: str) -> None:
    store = Store(url)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_alerts_that_were_closed_long_ago_are_left_out_at_the_start(url: str) -> None:
    store = Store(url)
    store.keep(
        [
            durable(1, b"1", alert_id="old"),
            durable(2, b"2", alert_id="old", closed=True),
            durable(3, b"3", alert_id="open"),
            durable(4, b"4", alert_id="new"),
            durable(9, b"9", alert_id="new", closed=True),
        ]
    )
    found = store.newest_revisions(closed_since_utc_ms=5_000)
    assert [message.payload for message in found] == [b"3", b"4", b"9"]


def test_what_is_old_is_forgotten_but_nothing_that_is_open_or_not_receipted(url: str) -> None:
    store = Store(url)
    store.keep(
        [
            durable(1, b"1"),
            durable(2, b"2", alert_id="open"),
            durable(3, b"3", alert_id="closed early"),
            durable(4, b"4", alert_id="closed early", closed=True),
            durable(5, b"5", alert_id="closed late"),
            durable(6, b"6"),
            durable(7, b"7"),
            durable(9, b"9", alert_id="closed late", closed=True),
        ],
        {ALERTS: 6},
    )
    assert store.forget(Lane.TELEMETRY, 8_000, most=10) == 0
    assert store.forget(Lane.ALERTS, 8_000, most=3) == 3
    assert store.forget(Lane.ALERTS, 8_000, most=3) == 1
    assert store.forget(Lane.ALERTS, 8_000, most=3) == 0
    assert store.revisions("h-1", "closed early") == ()
    assert [message.payload for message in store.newest_revisions(0)] == [b"2", b"5", b"9"]
    assert store.progress() == {ALERTS: (6, (7, 9))}


def test_a_notice_stays_until_somebody_closes_it_and_comes_back_when_it_is_said_again(url: str) -> None:
    store = Store(url)
    notice = Notice(home="h-1", key="k", kind="numbers_lost", message="Missing: 3", raised_utc_ms=5)
    store.keep([], notices=[notice, notice])
    assert Store(url).open_notices() == (notice,)
    store.close_notice("h-1", "k", "nurse-07", 6)
    assert store.open_notices() == ()
    store.keep([], notices=[notice])
    assert store.open_notices() == (notice,)


def test_lost_numbers_are_on_record(url: str) -> None:
    store = Store(url)
    run = Lost(first=3, last=4, reason="not_come")
    store.keep([], {ALERTS: 4}, [(ALERTS, run)], now_utc_ms=9)
    assert store.lost() == ((ALERTS, run),)


def test_the_cookie_key_outlives_the_process(url: str) -> None:
    assert Store(url).cookie_key == Store(url).cookie_key
    assert len(Store(url).cookie_key) == 32


def test_a_database_that_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="check \\[store\\] url"):
        Store(f"sqlite:///{tmp_path}/no/such/folder/db")


def test_a_database_of_another_version_is_refused(url: str, tmp_path: Path) -> None:
    Store(url).close()
    with sqlite3.connect(tmp_path / "dashboard.sqlite3") as connection:
        connection.execute("UPDATE about SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(StoreUnusable, match="schema version 99"):
        Store(url)
