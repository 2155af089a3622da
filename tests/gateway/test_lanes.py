"""The lane: order, numbers, one window, receipts, and nothing forgotten before its receipt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alerts.sink import Lane as LaneName
from gateway.lanes import (
    STALLED_AFTER_MS,
    UNDER_WAY_MAX,
    Draft,
    Lane,
    LaneChanges,
    LaneKept,
    LanePolicy,
    Waiting,
)


def draft(key: str, payload: str = "x", t_ms: int = 0) -> Draft:
    return Draft(key=key, topic=f"t/{key}", payload=payload.encode(), made_t_ms=t_ms)


def lane(kept: LaneKept | None = None, **options: int) -> Lane:
    return Lane(
        LaneName.ALERTS,
        kept or LaneKept(),
        lambda waiting, seq: waiting.payload + f"#{seq}".encode(),
        LanePolicy(**options),
    )


def numbered(of: Lane) -> list[int]:
    return [message.seq for message in of.take_changes().numbered]


def commit(of: Lane) -> LaneChanges:
    changes = of.take_changes()
    of.committed(changes.next_seq - 1, of.writes)
    return changes


def sent(of: Lane, t_ms: int = 0) -> list[int]:
    return [message.seq for message in of.to_send(t_ms)]


def test_a_draft_is_numbered_at_once_when_nothing_waits_and_sent_only_after_its_commit():
    one = lane()
    one.put(draft("a"))
    one.number(0)
    one.connected(0)
    assert sent(one) == []
    commit(one)
    assert sent(one) == [1]
    assert sent(one) == []


def test_at_most_twenty_are_numbered_and_the_rest_wait_without_a_number():
    one = lane()
    for index in range(25):
        one.put(draft(f"k{index}"))
    one.number(0)
    changes = commit(one)
    assert [message.seq for message in changes.numbered] == list(range(1, UNDER_WAY_MAX + 1))
    assert [entry.draft.key for entry in changes.waiting] == [f"k{index}" for index in range(20, 25)]
    one.connected(0)
    assert len(sent(one)) == UNDER_WAY_MAX
    assert one.receipt(3, 0)
    one.number(0)
    changes = commit(one)
    assert [message.seq for message in changes.numbered] == [21, 22, 23]
    assert len(changes.no_longer_waiting) == 3
    assert changes.released_up_to == 3


def test_a_newer_draft_of_the_same_key_takes_the_place_of_the_one_that_waits_but_never_of_a_number():
    one = lane()
    for index in range(UNDER_WAY_MAX):
        one.put(draft(f"k{index}"))
    one.number(0)
    one.put(draft("alert", "old"))
    one.put(draft("later"))
    one.put(draft("alert", "new"))
    one.number(0)
    commit(one)
    one.connected(0)
    sent(one)
    one.receipt(2, 0)
    new = one.number(0)
    assert [(message.topic, message.payload) for message in new] == [
        ("t/alert", b"new#21"),
        ("t/later", b"x#22"),
    ]
    one.put(draft("alert", "newest"))
    assert one.held(21).payload == b"new#21"


def test_a_new_connection_begins_again_with_the_first_message_without_a_receipt():
    one = lane()
    for index in range(4):
        one.put(draft(f"k{index}"))
    one.number(0)
    commit(one)
    one.connected(0)
    assert sent(one) == [1, 2, 3, 4]
    one.receipt(2, 0)
    one.connected(10)
    assert sent(one, 10) == [3, 4]


def test_thirty_seconds_without_progress_send_everything_again():
    one = lane()
    one.put(draft("a"))
    one.number(0)
    commit(one)
    one.connected(0)
    assert sent(one, 0) == [1]
    assert sent(one, STALLED_AFTER_MS - 1) == []
    assert sent(one, STALLED_AFTER_MS) == [1]
    assert sent(one, STALLED_AFTER_MS + 1) == []


def test_a_receipt_above_what_was_sent_is_ignored():
    one = lane()
    one.put(draft("a"))
    one.number(0)
    commit(one)
    assert not one.receipt(1, 0)
    one.connected(0)
    sent(one)
    assert not one.receipt(2, 0)
    assert one.receipt(1, 0)
    assert one.idle


def test_a_restart_goes_on_with_the_same_numbers_and_the_same_bytes():
    one = lane()
    for index in range(22):
        one.put(draft(f"k{index}"))
    one.number(0)
    changes = commit(one)
    again = lane(LaneKept(next_seq=changes.next_seq, numbered=changes.numbered, waiting=changes.waiting))
    again.connected(0)
    assert again.to_send(0) == list(changes.numbered)
    again.receipt(20, 0)
    again.number(0)
    assert [message.payload for message in again.take_changes().numbered] == [b"x#21", b"x#22"]


def test_without_a_collector_the_brokers_confirmations_release_in_order():
    one = lane()
    for index in range(3):
        one.put(draft(f"k{index}"))
    one.number(0)
    commit(one)
    one.connected(0)
    sent(one)
    one.confirmed(2, 0)
    assert one.oldest == 1
    one.confirmed(1, 0)
    assert one.oldest == 3


def test_a_full_lane_drops_its_oldest_waiting_draft_and_counts_it():
    one = lane(waiting_max=2)
    for index in range(UNDER_WAY_MAX):
        one.put(draft(f"k{index}"))
    one.number(0)
    for index in range(3):
        one.put(draft(f"w{index}"))
    one.number(0)
    changes = one.take_changes()
    assert [entry.draft.key for entry in changes.waiting] == ["w1", "w2"]
    assert one.dropped == 1


def test_a_lane_drops_its_oldest_waiting_drafts_when_they_take_too_many_bytes():
    one = lane(under_way_max=0, waiting_bytes_max=10)
    for key, size in (("a", 4), ("b", 4), ("c", 2), ("d", 5)):
        one.put(draft(key, "x" * size))
        one.number(0)
    assert [entry.draft.key for entry in commit(one).waiting] == ["c", "d"]
    assert one.dropped == 2


class Spool:
    """A lane with a small window, and a card that holds what waits."""

    def __init__(self, count: int, **options: int) -> None:
        self.lane = lane(**{"under_way_max": 2, "window": 4, **options})
        self.card: dict[int, Waiting] = {}
        self.order: list[str] = []
        for index in range(count):
            self.put(f"w{index}")
        self.lane.connected(0)

    def put(self, key: str, payload: str = "x", *, grows: bool = False) -> None:
        self.lane.put(draft(key, payload), grows=grows)
        self.settle()

    def settle(self) -> None:
        self.lane.number(0)
        changes = commit(self.lane)
        for place in changes.no_longer_waiting:
            self.card.pop(place, None)
        self.card.update({entry.place: entry for entry in changes.waiting})
        fetch = self.lane.wanted()
        if fetch is not None:
            assert self.lane.wanted() is None
            places = range(fetch.first_place, fetch.last_place + 1)
            self.lane.fetched(fetch, [self.card[place] for place in places if place in self.card])
            self.settle()

    def step(self) -> None:
        """What is under way arrives and is receipted."""
        self.order += [message.topic.removeprefix("t/") for message in self.lane.to_send(0)]
        self.lane.receipt(self.lane.next_seq - 1, 0)
        self.settle()

    def drain(self) -> list[str]:
        while not self.lane.idle:
            self.step()
        return self.order


def test_what_waits_on_the_card_takes_no_memory_and_is_fetched_when_its_turn_comes_near():
    spool = Spool(1_000)
    assert spool.lane.in_memory == 2 + 4
    while not spool.lane.idle:
        spool.step()
        assert spool.lane.in_memory <= 2 + 4
    assert spool.order == [f"w{index}" for index in range(1_000)]
    assert spool.lane.dropped == 0
    assert spool.card == {}


def test_what_grows_stays_in_memory_and_can_be_replaced_however_much_waits():
    spool = Spool(100)
    spool.put("slow", "a", grows=True)
    for index in range(100):
        spool.put(f"fast{index}")
    assert spool.lane.waits("slow")
    assert not spool.lane.waits("fast50")
    spool.put("slow", "b")
    assert [entry.draft.payload for entry in spool.card.values() if entry.draft.key == "slow"] == [b"b"]
    assert not spool.lane.waits("slow")
    order = [f"w{index}" for index in range(100)] + ["slow"] + [f"fast{index}" for index in range(100)]
    assert spool.drain() == order


def test_what_the_card_does_not_take_is_bounded_in_memory_and_its_oldest_is_dropped():
    one = lane(under_way_max=0, window=4, unwritten_max=10)
    merged = LaneChanges(lane=LaneName.ALERTS)
    for index in range(50):
        one.put(draft(f"w{index}"))
        one.number(0)
        merged = merged.followed_by(one.take_changes())
    assert [entry.draft.key for entry in merged.waiting] == [f"w{index}" for index in range(40, 50)]
    assert (one.in_memory, one.dropped) == (10, 40)


def test_a_draft_that_the_card_does_not_have_any_more_is_dropped_and_counted():
    spool = Spool(100)
    lost = [place for place in spool.card if 20 <= place < 30]
    for place in lost:
        del spool.card[place]
    assert spool.drain() == [f"w{index}" for index in range(100) if index + 1 not in lost]
    assert spool.lane.dropped == 10


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 3)),
            st.tuples(st.just("grow"), st.integers(0, 3)),
            st.tuples(st.just("arrive"), st.just(0)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=150,
    ),
    st.integers(3, 12),
)
def test_through_any_history_a_spool_hands_out_all_it_took_in_order_or_counts_it(steps, waiting_max):
    spool = Spool(0, waiting_max=waiting_max)
    put: list[str] = []
    dropped = 0
    growing: dict[int, str] = {}
    for number, (what, pump) in enumerate(steps):
        if what == "arrive":
            spool.step()
        elif what == "restart":
            dropped += spool.lane.dropped
            kept = list(spool.card.values())
            window, further = kept[:4], kept[4:]
            again = LaneKept(
                next_seq=spool.lane.next_seq,
                numbered=tuple(spool.lane.held(seq) for seq in range(spool.lane.oldest, spool.lane.next_seq)),
                waiting=tuple(window),
                further_places=[entry.place for entry in further],
                further_bytes=[len(entry.draft.payload) for entry in further],
            )
            spool.lane = lane(again, under_way_max=2, window=4, waiting_max=waiting_max)
            spool.lane.connected(0)
            growing.clear()
        else:
            if pump not in growing or not spool.lane.waits(growing[pump]):
                growing[pump] = f"{pump}-{number}"
                put.append(growing[pump])
            spool.put(growing[pump], f"{number}", grows=what == "grow")
            if what == "put":
                del growing[pump]
        assert spool.lane.in_memory <= 2 + 4 + len(growing)
        assert sorted(spool.card) == list(spool.card)
    arrived = list(dict.fromkeys(spool.drain()))
    assert arrived == [key for key in put if key in set(arrived)]
    assert len(put) - len(arrived) == dropped + spool.lane.dropped


def test_what_the_broker_refuses_for_its_content_is_replaced_under_its_number_and_sent_again():
    one = lane()
    one.put(draft("a"))
    one.put(draft("b"))
    one.number(0)
    commit(one)
    one.connected(0)
    sent(one)
    one.replace(1, b"void")
    commit(one)
    assert [(message.seq, message.payload) for message in one.to_send(0)] == [(1, b"void"), (2, b"x#2")]


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 40)),
        st.tuples(st.just("receipt"), st.integers(0, 60)),
        st.tuples(st.just("connect"), st.just(0)),
        st.tuples(st.just("send"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=120,
)


@given(happenings)
def test_numbers_have_no_gap_bytes_never_change_and_the_newest_of_each_key_arrives(steps):
    one = lane()
    kept = LaneKept()
    card: dict[int, bytes] = {}
    waiting: dict[int, object] = {}
    arrived: dict[int, bytes] = {}
    newest: dict[str, bytes] = {}
    said = 0

    def settle() -> None:
        one.number(0)
        changes = one.take_changes()
        for message in changes.numbered:
            assert message.seq not in card
            card[message.seq] = message
        for place in changes.no_longer_waiting:
            del waiting[place]
        waiting.update({entry.place: entry for entry in changes.waiting})
        one.committed(changes.next_seq - 1)

    def deliver() -> None:
        for message in one.to_send(0):
            assert arrived.setdefault(message.seq, message.payload) == message.payload

    for what, number in steps:
        if what == "put":
            said += 1
            newest[f"k{number}"] = f"k{number}v{said}".encode()
            one.put(draft(f"k{number}", f"k{number}v{said}"))
        elif what == "receipt":
            highest = max(arrived, default=0)
            one.receipt(min(number, highest), 0)
        elif what == "connect":
            one.connected(0)
        elif what == "send":
            deliver()
        else:
            settle()
            held = tuple(card[seq] for seq in sorted(card) if seq >= one.oldest)
            kept = LaneKept(next_seq=one.next_seq, numbered=held, waiting=tuple(waiting.values()))
            one = lane(kept)
        settle()
    while not one.idle:
        one.connected(0)
        deliver()
        one.receipt(max(arrived), 0)
        settle()
    assert sorted(arrived) == list(range(1, len(arrived) + 1))
    last_told: dict[str, bytes] = {}
    for seq in sorted(arrived):
        payload = arrived[seq].rpartition(b"#")[0]
        last_told[payload.partition(b"v")[0].decode()] = payload
    assert last_told == newest
