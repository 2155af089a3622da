"""The side of Fresenius pumps of their protocol, held against the frames that were checked by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.pump import Truth
from simulator.wire.fresenius import (
    BASE_OPENS_IN_MS,
    CHANGING,
    LINE_CHECK_EVERY_MS,
    LINE_CHECK_PATIENCE_MS,
    LONGEST_FRAME,
    FreseniusWire,
    check_digits,
    frame,
)
from simulator.wire.wire import Address
from tests.simulator.scenarios import PumpsAre

FRAMES = {
    one["id"]: one
    for one in tomllib.loads((Path(__file__).parents[1] / "frames" / "fresenius.toml").read_text())["frame"]
}
ACK, NAK, ENQ, DC4 = b"\x06", b"\x15", b"\x05", b"\x14"
RUNNING = Truth(
    commanded_ml=0.969,
    mechanism_ml=0.969,
    patient_ml=0.969,
    counter_ml=0.969,
    pressure_mmhg=17.91,
    bag_ml=None,
    state="running",
    faults=(),
    rate_ml_h=50.0,
    vtbi_ml=11.0,
    remaining_s=3600,
    alarms=(),
    battery_percent=100.0,
    log_entries=0,
)
READY_MS = 2_000


def bytes_of(identity: str) -> bytes:
    return bytes.fromhex(FRAMES[identity]["hex"])


class Line:
    """Pumps with a client, at a time that the test sets."""

    def __init__(self, *addresses: int, truth: Truth = RUNNING) -> None:
        places: tuple[Address, ...] = addresses or (None,)
        self.pumps = PumpsAre(dict.fromkeys(places, truth))
        self.wire = FreseniusWire(dict.fromkeys(places, "123"))

    def says(self, data: bytes) -> list[bytes]:
        """Everything that comes back."""
        return [answer.reply for answer in self.wire.receive(data, self.pumps)]

    def of_its_own_accord(self, now_ms: int) -> list[bytes]:
        self.pumps.now_ms = now_ms
        return [answer.reply for answer in self.wire.unasked(self.pumps)]


def ready(*addresses: int, truth: Truth = RUNNING) -> Line:
    """Everything opened."""
    line = Line(*addresses, truth=truth)
    if not addresses:
        assert line.says(frame(b"DC")) == [ACK + frame(b"C")]
    else:
        assert line.says(frame(b"0DC")) == [ACK + frame(b"0C")]
        line.pumps.now_ms = READY_MS
        for address in addresses:
            assert line.says(frame(b"%dDC" % address)) == [ACK + frame(b"%dC" % address)]
    return line


def test_a_base_with_two_modules_says_the_hand_checked_frames_to_the_hand_checked_commands() -> None:
    line = Line(1, 3)
    assert line.says(bytes_of("F4")) == [bytes_of("F2") + bytes_of("F20")]
    assert line.says(bytes_of("F1")) == [bytes_of("F2") + bytes_of("F3")]
    line.pumps.now_ms = BASE_OPENS_IN_MS
    assert line.says(bytes_of("F4")) == [bytes_of("F2") + bytes_of("F5")]
    assert line.says(bytes_of("F8")) == [bytes_of("F2") + bytes_of("F19")]
    assert line.says(bytes_of("F6")) == [bytes_of("F2") + bytes_of("F7")]
    assert line.says(bytes_of("F8")) == [bytes_of("F2") + bytes_of("F9")]
    assert line.says(bytes_of("F10")) == [bytes_of("F2") + bytes_of("F11")]
    assert line.says(bytes_of("F12")) == [bytes_of("F2") + bytes_of("F13")]
    assert line.says(bytes_of("F15")) == [bytes_of("F2") + bytes_of("F7")]
    line.pumps.truths[1] = structs.replace(RUNNING, counter_ml=0.970)
    assert line.of_its_own_accord(3_000) == [bytes_of("F16")]
    assert line.says(ACK + bytes_of("F17")) == [bytes_of("F2")]
    assert line.says(bytes_of("F18")) == [bytes_of("F2") + bytes_of("F7")]
    assert line.says(bytes_of("F21")) == [bytes_of("F2") + bytes_of("F7")]
    assert line.says(bytes_of("F22")) == [bytes_of("F2") + bytes_of("F3")]


def test_a_pump_that_stands_alone_says_the_hand_checked_frames_without_an_address() -> None:
    line = Line(truth=structs.replace(RUNNING, rate_ml_h=10.0))
    assert line.says(bytes_of("F25")) == [ACK + frame(b"I;1E")]
    assert line.says(bytes_of("F23")) == [bytes_of("F2") + bytes_of("F24")]
    assert line.says(bytes_of("F25")) == [bytes_of("F2") + bytes_of("F26")]


def test_the_vendors_example_of_a_checksum() -> None:
    assert check_digits(b"PR;1F40") == b"47"
    assert frame(b"PR;1F40") == bytes_of("F27")


@given(st.binary(max_size=80))
def test_message_and_checksum_together_make_ff(message: bytes) -> None:
    assert (sum(message) + int(check_digits(message), 16)) % 256 == 255
    assert check_digits(message) == check_digits(message).upper()


@pytest.mark.parametrize("identity", [one for one in FRAMES if one[0] == "Y"])
def test_what_a_cable_makes_of_a_frame_is_refused_or_is_no_command(identity: str) -> None:
    for reply in ready(1).says(bytes_of(identity)):
        assert reply[:1] == NAK or reply[1:] in (frame(b"1I;01"), frame(b"3I;0E"), b"")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x021LE;d9F\x03", b"2"),
        (b"\x021LE;d9e\x03", b"2"),
        (b"\x02LE;d9E\x03", b"2"),  # the address was left out of what was sent
        (b"\x021LE;dCF\x03", b"2"),  # the checksum was made without the address
        (frame(b"7LE;d"), b"4"),
        (frame(b"LE;d"), b"4"),
        (b"\x021LE\x01;d", b"8"),
        (b"\x02" + b"x" * (LONGEST_FRAME + 1), b"7"),
    ],
)
def test_a_frame_that_did_not_come_intact_is_refused_with_the_reason(sent: bytes, reason: bytes) -> None:
    assert ready(1).says(sent) == [NAK + reason]


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (b"1XX", b"1I;01"),
        (b"1LP", b"1I;01"),
        (b"1LN", b"1I;01"),
        (b"1LE", b"1I;04"),
        (b"1LE;", b"1I;0B"),
        (b"1LE;D", b"1I;0B"),
        (b"1LE;a", b"1I;0A"),
        (b"1LE;da", b"1I;0A"),
        (b"1LF;b", b"1I;0A"),
        (b"0LE;d", b"0I;0A"),
        (b"2DC", b"2I;0E"),
        (b"2LE;d", b"2I;0E"),
        (b"3LE;d", b"3C;d01F4"),
        (b"1LE;rd", b"1C;r0003C9;d01F4"),
        (b"0PO", b"0I;01"),
        (b"1DC", b"1C"),
        (b"0DC", b"0C"),
        (b"1LE;" + b"d" * 80, b"1I;0C"),
    ],
)
def test_each_command_has_its_answer_or_its_error(message: bytes, reply: bytes) -> None:
    assert ready(1, 3).says(frame(message)) == [ACK + frame(reply)]


def test_a_base_that_is_opening_is_not_ready_for_a_second() -> None:
    line = Line(1)
    line.says(bytes_of("F1"))
    line.pumps.now_ms = BASE_OPENS_IN_MS - 1
    assert line.says(bytes_of("F6")) == [NAK + b"6"]
    line.pumps.now_ms = BASE_OPENS_IN_MS
    assert line.says(bytes_of("F6")) == [ACK + bytes_of("F7")]


def test_a_module_cannot_be_opened_before_the_base() -> None:
    assert Line(1).says(bytes_of("F6")) == [ACK + frame(b"1I;0D")]


def test_when_the_base_is_closed_so_are_its_modules() -> None:
    line = ready(1)
    line.says(bytes_of("F22"))
    assert line.says(bytes_of("F8")) == [ACK + bytes_of("F19")]


@pytest.mark.parametrize("command", CHANGING)
def test_what_would_change_a_real_pump_is_answered_and_changes_nothing(command: bytes) -> None:
    line = ready(1)
    assert line.says(frame(b"1" + command + b";0001")) == [ACK + bytes_of("F7")]
    assert line.says(bytes_of("F12")) == [ACK + bytes_of("F13")]


@pytest.mark.parametrize(
    ("rate_ml_h", "counter_ml", "said"),
    [(0.0, 0.0, b"d0000;r000000"), (800.0, 16.777, b"d1F40;r004189"), (0.05, 0.0004, b"d0000;r000000")],
)
def test_values_are_hexadecimal_tenths_and_thousandths(
    rate_ml_h: float, counter_ml: float, said: bytes
) -> None:
    line = ready(1, truth=structs.replace(RUNNING, rate_ml_h=rate_ml_h, counter_ml=counter_ml))
    assert line.says(bytes_of("F12")) == [ACK + frame(b"1C;" + said)]


# Of its own accord


def test_whether_anybody_is_there_is_asked_every_so_often_and_only_in_a_session() -> None:
    assert Line(1).wire.next_unasked_ms() is None
    line = ready()
    assert line.wire.next_unasked_ms() == LINE_CHECK_EVERY_MS
    assert line.of_its_own_accord(LINE_CHECK_EVERY_MS - 1) == []
    assert line.of_its_own_accord(LINE_CHECK_EVERY_MS) == [ENQ]
    line.says(DC4)
    assert line.wire.next_unasked_ms() == 2 * LINE_CHECK_EVERY_MS
    assert line.of_its_own_accord(2 * LINE_CHECK_EVERY_MS) == [ENQ]


def test_who_does_not_say_so_in_time_has_no_session_any_more() -> None:
    line = ready(1)
    line.of_its_own_accord(LINE_CHECK_EVERY_MS)
    over_ms = LINE_CHECK_EVERY_MS + LINE_CHECK_PATIENCE_MS
    assert line.wire.next_unasked_ms() == over_ms
    line.pumps.now_ms = over_ms - 1
    assert line.says(bytes_of("F8")) == [ACK + bytes_of("F9")], "a command is no answer to it"
    line.pumps.now_ms = over_ms
    assert line.says(bytes_of("F8")) == [ACK + bytes_of("F19")]
    assert line.says(bytes_of("F4")) == [ACK + bytes_of("F20")]
    assert line.wire.next_unasked_ms() is None


def test_the_answer_to_a_line_check_counts_even_within_a_frame() -> None:
    line = ready(1)
    line.of_its_own_accord(LINE_CHECK_EVERY_MS)
    assert line.says(bytes_of("F8")[:3] + DC4 + bytes_of("F8")[3:]) == [ACK + bytes_of("F9")]
    line.pumps.now_ms = LINE_CHECK_EVERY_MS + LINE_CHECK_PATIENCE_MS
    assert line.says(bytes_of("F8")) == [ACK + bytes_of("F9")]


def test_a_subscribed_value_is_told_when_it_has_changed_and_not_before_or_after() -> None:
    line = ready(1, 3)
    assert line.says(frame(b"1DE;dr")) == [ACK + frame(b"1C")]
    assert line.of_its_own_accord(4_000) == []
    line.pumps.truths[3] = structs.replace(RUNNING, counter_ml=5.0)
    assert line.of_its_own_accord(6_000) == [], "nobody subscribed to module 3"
    line.pumps.truths[1] = structs.replace(RUNNING, rate_ml_h=10.0, counter_ml=0.970)
    assert line.of_its_own_accord(8_000) == [frame(b"1E;d0064;r0003CA")]
    assert line.of_its_own_accord(9_500) == []
    line.says(bytes_of("F18"))
    line.pumps.truths[1] = RUNNING
    assert line.of_its_own_accord(9_900) == []


@given(
    st.lists(
        st.binary(max_size=200) | st.sampled_from([frame(b"0DC"), frame(b"1DC"), frame(b"1LE;dr"), b"\x02"])
    )
)
def test_whatever_comes_nothing_is_raised_and_little_is_kept(portions: list[bytes]) -> None:
    whole, cut = Line(1), Line(1)
    together = whole.says(b"".join(portions))
    assert together == [reply for portion in portions for reply in cut.says(portion)]
    assert len(cut.wire._message or b"") <= LONGEST_FRAME
