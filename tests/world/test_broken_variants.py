"""A test of the test: code that was broken on purpose is caught by the fake world, by the promise it breaks.

Each variant breaks one thing, as a careless change might. It must be caught within a hundred seeds; most are
within the first few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from alerts import lifecycle, wire
from alerts.alert import AlertState
from alerts.condition import Kind, Verdict
from alerts.dashboard import views
from alerts.inhibition import Inhibition
from alerts.sink import Lane as LaneName
from drivers.alaris.session import AlarisSession
from gateway.engine import Engine
from gateway.lanes import Lane
from gateway.outbox import Outbox
from gateway.pump import WatchedPump
from gateway.store import Store
from tests.world.soak import live

SEEDS = 100
HOURS = 6
Break = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Variant:
    """One way to break the code, and words of the promise that is then not kept."""

    breaks: Break
    caught_by: tuple[str, ...]


VARIANTS: dict[str, Variant] = {}


def variant(*caught_by: str) -> Callable[[Break], Break]:
    def take(breaks: Break) -> Break:
        VARIANTS[breaks.__name__] = Variant(breaks, caught_by)
        return breaks

    return take


@variant("before it is on the card")
def messages_leave_before_their_commit(patch: pytest.MonkeyPatch) -> None:
    number = Lane.number

    def number_and_believe(self: Lane, *args: Any, **more: Any) -> Any:
        numbered = number(self, *args, **more)
        self.committed(self.next_seq - 1)
        return numbered

    patch.setattr(Lane, "number", number_and_believe)


LOST = (
    "missing",
    "are stored",
    "not on the board",
    "never come",
    "notices",
    "the board has",
    "out of memory",
)
"""What is said of messages that were released and had not arrived."""


@variant(*LOST)
def the_brokers_confirmation_releases_though_there_is_a_collector(patch: pytest.MonkeyPatch) -> None:
    confirmed = Outbox.confirmed

    def believe(self: Outbox, event: Any, t_ms: int, utc_ms: int) -> str | None:
        sent = self._tokens.get(event.token)
        note = confirmed(self, event, t_ms, utc_ms)
        if sent is not None and sent.lane is not None and sent.seq is not None:
            self.lanes[sent.lane].confirmed(sent.seq, t_ms)
        return note

    patch.setattr(Outbox, "confirmed", believe)


def receipts_are_read_as_ours(patch: pytest.MonkeyPatch, name: str) -> None:
    heard = Outbox.receipt

    def believe(self: Outbox, receipt: wire.Receipt, t_ms: int) -> int:
        ours = {"store": self._speaker.store, "collector": self._collector}
        return heard(self, msgspec.structs.replace(receipt, **{name: ours[name]}), t_ms)

    patch.setattr(Outbox, "receipt", believe)


@variant(*LOST)
def the_receipt_of_an_old_store_is_believed(patch: pytest.MonkeyPatch) -> None:
    receipts_are_read_as_ours(patch, "store")


@variant(*LOST)
def the_receipt_of_another_collector_is_believed(patch: pytest.MonkeyPatch) -> None:
    receipts_are_read_as_ours(patch, "collector")


@variant(*LOST)
def a_retained_receipt_is_believed(patch: pytest.MonkeyPatch) -> None:
    heard = Engine._from_the_nurses
    patch.setattr(
        Engine,
        "_from_the_nurses",
        lambda self, turn, event: heard(self, turn, msgspec.structs.replace(event, retain=False)),
    )


@variant("forgotten", "forgets")
def an_acknowledgement_is_not_written_to_the_card(patch: pytest.MonkeyPatch) -> None:
    commit = Store.commit

    def without_answers(self: Store, one: Any) -> None:
        alerts = tuple(
            msgspec.structs.replace(alert, state=AlertState.ACTIVE, acknowledged=None)
            if alert.state is AlertState.ACKNOWLEDGED
            else alert
            for alert in one.alerts
        )
        commit(self, msgspec.structs.replace(one, alerts=alerts))

    patch.setattr(Store, "commit", without_answers)


@variant("is escalated")
def an_alert_escalates_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    timers = Engine._timers

    def look_at_the_clock(self: Engine, turn: Any) -> None:
        for alert in list(self.book.open.values()):
            waited_ms = turn.when.utc_ms - alert.time_utc_ms
            if alert.escalates_at_ms is not None and waited_ms >= alert.respond_within_s * 1000:
                self.book._open[alert.alert_id] = msgspec.structs.replace(alert, escalates_at_ms=turn.t_ms)
        timers(self, turn)

    patch.setattr(Engine, "_timers", look_at_the_clock)


@variant("different content", "notices", "missing", "the code broke", "on the card")
def numbers_are_given_twice_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    restore = Store._restore_lane

    def some_back(self: Store, lane: Any) -> Any:
        kept = restore(self, lane)
        return msgspec.structs.replace(kept, next_seq=max(1, kept.next_seq - 1), numbered=kept.numbered[:-1])

    patch.setattr(Store, "_restore_lane", some_back)


@variant("different content", "other bytes")
def a_message_is_dated_anew_each_time_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    to_send = Lane.to_send

    def changed(self: Lane, t_ms: int) -> Any:
        return [
            msgspec.structs.replace(message, payload=message.payload[:-1] + b" }")
            if self._ever_sent_seq >= (message.seq or 0) and t_ms % 7 == 0
            else message
            for message in to_send(self, t_ms)
        ]

    patch.setattr(Lane, "to_send", changed)


@variant("is not reported", "never reported")
def an_interruption_is_not_reported(patch: pytest.MonkeyPatch) -> None:
    init = Engine.__init__

    def as_if_clean(self: Engine, *args: Any, **kept: Any) -> None:
        init(self, *args, **kept)
        self._interrupted = None

    patch.setattr(Engine, "__init__", as_if_clean)


@variant("is acknowledged by")
def a_stale_answer_is_accepted(patch: pytest.MonkeyPatch) -> None:
    acknowledge = lifecycle.AlertBook.acknowledge

    def whatever_was_seen(self: Any, alert_id: str, rev: int, *args: Any, **more: Any) -> Any:
        return acknowledge(self, alert_id, 2**40, *args, **more)

    patch.setattr(lifecycle.AlertBook, "acknowledge", whatever_was_seen)


@variant("it is unknown, not gone")
def what_is_unknown_is_resolved(patch: pytest.MonkeyPatch) -> None:
    watch = Engine._watch_the_link

    def resolve(self: Engine, turn: Any, pump: WatchedPump) -> None:
        watch(self, turn, pump)
        if pump.link(turn.uptime_ms) != "up":
            pump.garbled = False
            for known in tuple(pump.inhibition.state.open):
                self._about_pump(turn, pump, known.kind, Verdict.ABSENT, "")

    patch.setattr(Engine, "_watch_the_link", resolve)


@variant("never come")
def a_batch_of_telemetry_is_dropped_without_a_word(patch: pytest.MonkeyPatch) -> None:
    put = Lane.put

    def most(self: Lane, draft: Any, **how: Any) -> None:
        if self.name is not LaneName.TELEMETRY or draft.made_t_ms % 10:
            put(self, draft, **how)

    patch.setattr(Lane, "put", most)


@variant("is no query", "nothing but its queries")
def a_pump_is_told_to_start(patch: pytest.MonkeyPatch) -> None:
    due = AlarisSession.due
    patch.setattr(
        AlarisSession,
        "due",
        lambda self, now_ms: b"!INF_START|0000\r" if now_ms % 977 == 0 else due(self, now_ms),
    )


@variant("truth does not support", "was never told")
def restarts_are_taken_for_silence_and_the_pump_for_stopped(patch: pytest.MonkeyPatch) -> None:
    step = Engine._port_opened

    def opened(self: Engine, turn: Any, port: str) -> None:
        step(self, turn, port)
        for pump in self._ports[port]:
            self._about_pump(turn, pump, Kind.NO_DATA, Verdict.PRESENT, "nothing was heard")

    patch.setattr(Engine, "_port_opened", opened)


@variant("was never told", "not on the board", "the board has")
def alerts_of_high_priority_are_held_back(patch: pytest.MonkeyPatch) -> None:
    apply = Inhibition.apply
    patch.setattr(
        Inhibition,
        "apply",
        lambda self, findings: [one for one in apply(self, findings) if one.priority.value != "high"],
    )


@variant("the board shows the home as known")
def a_board_believes_a_beat_for_an_hour(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(views, "BEAT_SILENT_AFTER_MS", 3_600_000)


@variant("not on the board", "stored", "the lanes are not empty", "never come", "the board has", "missing")
def what_has_no_receipt_is_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    def nothing(self: Lane, t_ms: int) -> Any:
        self._progress_t_ms = t_ms
        return real(self, t_ms)

    real = Lane.to_send
    patch.setattr(Lane, "to_send", nothing)
    patch.setattr(Lane, "connected", lambda self, t_ms: self._confirmed.clear())


@variant("is told (again)", "the board has", "is acknowledged", "was acknowledged and is active again")
def the_end_of_an_acknowledgement_is_told_as_a_new_beginning(patch: pytest.MonkeyPatch) -> None:
    table = dict(lifecycle.TRANSITIONS)
    ran_out = (AlertState.ACKNOWLEDGED, lifecycle.Happening.ANSWER_RAN_OUT)
    table[ran_out] = (AlertState.ACTIVE, lifecycle.Reason.AGAIN)
    patch.setattr(lifecycle, "TRANSITIONS", table)


def seeds_until_caught(name: str, patch: pytest.MonkeyPatch, most: int = SEEDS) -> tuple[int, str]:
    """Within how many seeds a variant is caught, and by what; 0: it is not."""
    VARIANTS[name].breaks(patch)
    for number in range(1, most + 1):
        failed = live(number, hours=HOURS).failed
        if failed:
            return number, failed
    return 0, ""


QUICK = ("messages_leave_before_their_commit", "a_pump_is_told_to_start")


def is_caught(name: str, patch: pytest.MonkeyPatch) -> None:
    number, failed = seeds_until_caught(name, patch)
    print(f"{name}: caught within {number} seeds: {failed[:160]}")
    assert number, f"{name} is not caught within {SEEDS} seeds"
    assert any(words in failed for words in VARIANTS[name].caught_by), failed


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_variant_is_caught(name, monkeypatch):
    is_caught(name, monkeypatch)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in QUICK])
def test_each_broken_variant_is_caught_within_a_hundred_seeds(name, monkeypatch):
    is_caught(name, monkeypatch)


def test_there_are_at_least_ten_of_them():
    assert len(VARIANTS) >= 10
