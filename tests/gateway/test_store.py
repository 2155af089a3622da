"""The card: what was committed is found again, and what cannot be read is set aside and never deleted."""

from __future__ import annotations

import sqlite3
import stat
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.alert import Alert, AlertState, Reason
from alerts.condition import Kind, Priority, Urgency
from alerts.sink import Lane, Message
from gateway.effects import Commit
from gateway.lanes import POLICIES, Draft, Fetch, LaneChanges, LaneKept, Waiting
from gateway.lanes import Lane as LaneUnderTest
from gateway.store import PAGE_BYTES, SCHEMA_VERSION, Store, StoreFailed


def alert(number: int, rev: int = 1, state: AlertState = AlertState.ACTIVE) -> Alert:
    return Alert(
        alert_id=f"a-s-{number}",
        rev=rev,
        pump="p1",
        kind=Kind.OCCLUSION,
        code=None,
        state=state,
        reason=Reason.FIRST,
        priority=Priority.HIGH,
        level=0,
        urgency=Urgency.TIMED,
        time_utc_ms=1,
        since_utc_ms=None,
        raised_utc_ms=1,
        respond_within_s=60,
        expected_ml=None,
        delivered_ml=None,
        message="",
    )


def message(seq: int, payload: bytes = b"{}") -> Message:
    return Message(topic="t", payload=payload, lane=Lane.ALERTS, seq=seq)


def waiting(place: int) -> Waiting:
    return Waiting(place=place, draft=Draft(key=f"k{place}", topic="t", payload=b"{}", made_t_ms=0))


@pytest.fixture
def card(tmp_path):
    return tmp_path / "state" / "dripwatch.sqlite"


def reopened(store: Store, card) -> Store:
    store.close()
    return Store(card)


def test_what_was_committed_is_found_again(card):
    store = Store(card)
    changes = LaneChanges(
        lane=Lane.ALERTS, numbered=(message(1), message(2)), waiting=(waiting(1),), next_seq=3
    )
    store.commit(Commit(number=1, alerts=(alert(1),), lanes=(changes,), kept=(("told", b"x"),)))
    before = store.restore()
    found = reopened(store, card).restore()
    assert found == before
    assert found.alerts == (alert(1),)
    assert found.lanes[Lane.ALERTS].next_seq == 3
    assert found.lanes[Lane.ALERTS].numbered == (message(1), message(2))
    assert found.lanes[Lane.ALERTS].waiting == (waiting(1),)
    assert found.lanes[Lane.TELEMETRY].next_seq == 1
    assert found.kept == {"told": b"x"}


def test_a_closed_alert_a_receipted_message_and_a_numbered_draft_are_forgotten_and_their_numbers_are_not(
    card,
):
    store = Store(card)
    first = LaneChanges(
        lane=Lane.ALERTS, numbered=(message(1), message(2)), waiting=(waiting(1), waiting(2)), next_seq=3
    )
    then = LaneChanges(lane=Lane.ALERTS, no_longer_waiting=(1,), released_up_to=2, next_seq=3)
    closed = alert(1, rev=2, state=AlertState.CLOSED)
    store.commit(Commit(number=1, alerts=(alert(1), alert(2)), lanes=(first,)))
    store.commit(Commit(number=2, alerts=(closed,), lanes=(then,)))
    found = reopened(store, card).restore()
    assert found.alerts == (alert(2),)
    kept = found.lanes[Lane.ALERTS]
    assert (kept.numbered, kept.waiting, kept.next_seq) == ((), (waiting(2),), 3)


def test_of_a_long_spool_only_the_oldest_are_read_and_the_others_when_they_are_asked_for(card):
    store = Store(card)
    places = range(1, 101)
    changes = LaneChanges(lane=Lane.TELEMETRY, waiting=tuple(map(waiting, places)))
    store.commit(Commit(number=1, lanes=(changes,)))
    store = reopened(store, card)
    found = store.restore().lanes[Lane.TELEMETRY]
    window = POLICIES[Lane.TELEMETRY].window
    assert found.waiting == tuple(map(waiting, places[:window]))
    assert list(found.further_places) == list(places[window:])
    assert all(size > 0 for size in found.further_bytes)
    gone = LaneChanges(lane=Lane.TELEMETRY, no_longer_waiting=(51,))
    store.commit(Commit(number=2, lanes=(gone,)))
    fetch = Fetch(lane=Lane.TELEMETRY, first_place=50, last_place=52)
    assert store.fetch(fetch) == (waiting(50), waiting(52))


def test_each_database_has_a_token_of_its_own_that_stays(card, tmp_path):
    store = Store(card)
    token = store.restore().store
    assert reopened(store, card).restore().store == token
    assert Store(tmp_path / "other.sqlite").restore().store != token


def test_only_the_owner_can_read_the_card(card):
    Store(card).close()
    assert stat.S_IMODE(card.stat().st_mode) == 0o600
    assert stat.S_IMODE(card.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("rubbish", [b"this is no database " * 300, b"SQLite format 3\0" + b"\xff" * 8_000])
def test_a_file_that_cannot_be_read_is_set_aside_and_a_new_store_takes_its_place(card, rubbish):
    store = Store(card)
    token = store.restore().store
    store.close()
    card.write_bytes(rubbish)
    found = Store(card).restore()
    assert found.store != token
    assert found.set_aside is not None
    assert (card.parent / found.set_aside).read_bytes() == rubbish


def holes(content: bytes) -> bytes:
    """Each tenth page is overwritten."""
    pages = [content[at : at + PAGE_BYTES] for at in range(0, len(content), PAGE_BYTES)]
    return b"".join(b"\xff" * len(page) if number % 10 == 7 else page for number, page in enumerate(pages))


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:5_000],
        lambda content: b"",
        lambda content: b"\0" * len(content),
        holes,
    ],
    ids=["cut in half", "cut within a page", "nothing left", "zeros", "holes"],
)
def test_a_database_that_is_harmed_is_set_aside_whole_and_a_new_one_takes_its_place(card, harm):
    store = Store(card)
    token = store.restore().store
    spool = tuple(
        Waiting(place=place, draft=Draft(key=f"k{place}", topic="t", payload=b"x" * 5_000, made_t_ms=0))
        for place in range(1, 40)
    )
    store.commit(Commit(number=1, lanes=(LaneChanges(lane=Lane.TELEMETRY, waiting=spool),)))
    store.close()
    harmed = harm(card.read_bytes())
    card.write_bytes(harmed)
    store = Store(card)
    found = store.restore()
    assert found.store != token
    assert (card.parent / found.set_aside).read_bytes() == harmed
    store.close()
    assert Store(card).restore().set_aside is None


def test_without_a_card_everything_is_in_memory_and_what_is_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("gateway.store.PAGES_IN_MEMORY_MAX", 200)
    store = Store(None)
    store.commit(Commit(number=1, alerts=(alert(1),)))
    found = store.restore()
    assert (found.alerts, found.without_card) == ((alert(1),), True)
    changes = LaneChanges(lane=Lane.ALERTS, numbered=(message(1, b"x" * 300_000),), next_seq=2)
    with pytest.raises(StoreFailed, match="full"):
        store.commit(Commit(number=2, lanes=(changes,)))
    store.commit(Commit(number=3, alerts=(alert(2),)))
    store.close()


@pytest.mark.parametrize(
    "harm",
    [
        "update alert set body = x'ff'",
        "update outbox set body = x'c0'",
        "delete from meta where name = 'store'",
    ],
)
def test_content_that_cannot_be_understood_is_set_aside_like_a_broken_file(card, harm):
    store = Store(card)
    changes = LaneChanges(lane=Lane.ALERTS, numbered=(message(1),), next_seq=2)
    store.commit(Commit(number=1, alerts=(alert(1),), lanes=(changes,)))
    store.close()
    database = sqlite3.connect(card)
    database.executescript(harm)
    database.close()
    found = Store(card).restore()
    assert (found.alerts, found.lanes[Lane.ALERTS].next_seq) == ((), 1)
    assert (card.parent / found.set_aside).exists()
    assert Store(card).restore().set_aside is None


def test_a_database_of_a_newer_version_is_refused_and_left_alone(card):
    store = Store(card)
    store.close()
    database = sqlite3.connect(card)
    database.execute(f"pragma user_version={SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(StoreFailed, match=r"newer Dripwatch .* set state_dir to an empty folder"):
        Store(card)
    assert [path.name for path in card.parent.iterdir() if "broken" in path.name] == []


def test_a_place_where_no_folder_can_be_made_is_told_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="Set state_dir to a folder that can"):
        Store(tmp_path / "file" / "state" / "dripwatch.sqlite")


def test_a_folder_in_the_place_of_the_card_is_told_with_what_to_do(card):
    card.mkdir(parents=True)
    with pytest.raises(StoreFailed, match="Is the folder writable"):
        Store(card)


def test_a_commit_that_the_card_refuses_writes_nothing_and_can_be_tried_again(card):
    store = Store(card)
    harm = sqlite3.connect(card)
    harm.execute("create trigger full before insert on outbox begin select raise(fail, 'disk is full'); end")
    harm.commit()
    changes = LaneChanges(lane=Lane.ALERTS, numbered=(message(1),), next_seq=2)
    commit = Commit(number=1, alerts=(alert(1),), lanes=(changes,), kept=(("told", b"x"),))
    for _ in range(3):
        with pytest.raises(StoreFailed, match="disk is full"):
            store.commit(commit)
        found = store.restore()
        assert (found.alerts, found.kept, found.lanes[Lane.ALERTS].next_seq) == ((), {}, 1)
    harm.execute("drop trigger full")
    harm.commit()
    harm.close()
    store.commit(commit)
    assert store.restore().alerts == (alert(1),)


def test_a_second_gateway_on_the_same_card_is_refused_and_not_let_in_between(card):
    store = Store(card)
    other = sqlite3.connect(card, isolation_level=None)
    other.execute("begin immediate")
    store._database.execute("pragma busy_timeout=10")
    with pytest.raises(StoreFailed, match="locked"):
        store.commit(Commit(number=1, alerts=(alert(1),)))
    other.execute("rollback")
    other.close()
    store.commit(Commit(number=1, alerts=(alert(1),)))
    assert store.restore().alerts == (alert(1),)


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("alert"), st.integers(1, 4)),
        st.tuples(st.just("close"), st.integers(1, 4)),
        st.tuples(st.just("draft"), st.integers(0, 40)),
        st.tuples(st.just("receipt"), st.integers(0, 50)),
        st.tuples(st.just("keep"), st.integers(0, 3)),
    ),
    max_size=60,
)


def test_two_gateways_cannot_have_one_folder_and_the_second_may_when_the_first_has_gone(card):
    first = Store(card)
    with pytest.raises(StoreFailed, match="in use by another gateway"):
        Store(card)
    first.close()
    Store(card).close()


@settings(max_examples=30, deadline=None)
@given(steps=happenings)
def test_commits_that_had_to_wait_leave_together_what_they_leave_one_by_one(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("card")
    one_by_one, together = Store(folder / "one" / "card.sqlite"), Store(folder / "other" / "card.sqlite")
    of_lane = LaneUnderTest(Lane.ALERTS, LaneKept(), lambda draft, seq: b"%d" % seq)
    of_lane.connected(0)
    commits = []
    for number, (what, which) in enumerate(steps, start=1):
        alerts: tuple[Alert, ...] = ()
        kept: tuple[tuple[str, bytes], ...] = ()
        match what:
            case "alert":
                alerts = (alert(which, rev=number),)
            case "close":
                alerts = (alert(which, rev=number, state=AlertState.CLOSED),)
            case "keep":
                kept = ((f"name-{which}", b"%d" % number),)
            case "draft":
                of_lane.put(Draft(key=f"k{which}", topic="t", payload=b"%d" % number, made_t_ms=0))
            case "receipt":
                of_lane.receipt(min(which, of_lane.next_seq - 1), 0)
        of_lane.number(0)
        changes = of_lane.take_changes()
        of_lane.committed(changes.next_seq - 1)
        of_lane.to_send(0)
        lanes = () if changes.empty else (changes,)
        commits.append(Commit(number=number, alerts=alerts, lanes=lanes, kept=kept))
    for commit in commits:
        one_by_one.commit(commit)
    if commits:
        together.commit(reduce(Commit.followed_by, commits))
    found, other = one_by_one.restore(), together.restore()
    one_by_one.close()
    together.close()
    assert (found.alerts, found.lanes, found.kept) == (other.alerts, other.lanes, other.kept)


def test_what_is_on_the_card_is_what_was_said_byte_for_byte(card):
    payload = bytes(range(256)) * 40
    store = Store(card)
    changes = LaneChanges(lane=Lane.TELEMETRY, numbered=(message(1, payload),), next_seq=2)
    store.commit(Commit(number=1, lanes=(changes,)))
    (found,) = reopened(store, card).restore().lanes[Lane.TELEMETRY].numbered
    assert found == message(1, payload)
