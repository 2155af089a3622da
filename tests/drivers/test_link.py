"""The port: real terminals and sockets, recordings in virtual time, and what is said when none is there."""

from __future__ import annotations

import os
import pty
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import serial
import serial.rfc2217

from drivers.alaris.session import AlarisFamily
from drivers.capture import Capture, Entry, EntryKind, write_capture
from drivers.dummy import DummyFamily
from drivers.family import LineSettings, PumpOnLine
from drivers.link import LinkDown, open_link
from drivers.reading import PumpState, Reading
from tests.drivers.alaris_pump import IDENTITY, AlarisDialogue, ScriptedPump, infusion, text_of

LINE = AlarisFamily().line
LONG_S = 10.0
"""For what surely comes: a test waits for it only as long as it takes."""
SHORT_S = 0.01
"""For what surely does not come."""


class Terminal:
    """A pseudo-terminal: ``device`` is the port, and this is the pump's end of it."""

    def __init__(self) -> None:
        self.end, other = pty.openpty()
        self.device = os.ttyname(other)
        os.close(other)

    def unplug(self) -> None:
        os.close(self.end)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    try:
        made.unplug()
    except OSError:
        return  # a test has pulled it


class StoppedClock:
    """Time that goes on only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1_000

    def now_ms(self) -> int:
        return self.now

    def wait_ms(self, duration_ms: int) -> None:
        self.now += duration_ms


def received(link, size: int) -> bytes:
    """At least ``size`` bytes; a port may hand them over in any pieces."""
    data = b""
    while len(data) < size:
        piece = link.read(LONG_S)
        assert piece, "nothing came"
        data += piece
    return data


# A pseudo-terminal


@pytest.mark.live
def test_bytes_pass_a_terminal_unchanged_in_both_directions(terminal):
    every_byte = bytes(range(256))
    with closing(open_link(terminal.device, LINE)) as link:
        os.write(terminal.end, every_byte)
        assert received(link, 256) == every_byte
        link.write(every_byte)
        heard = b""
        while len(heard) < 256:
            heard += os.read(terminal.end, 256)
        assert heard == every_byte


@pytest.mark.live
def test_a_silent_terminal_gives_nothing_and_is_no_failure(terminal):
    with closing(open_link(terminal.device, LINE)) as link:
        assert link.read(SHORT_S) == b""


@pytest.mark.live
def test_what_was_received_before_the_port_was_opened_is_thrown_away(terminal):
    keep = os.open(terminal.device, os.O_RDWR | os.O_NOCTTY)
    os.write(terminal.end, b"old\n")
    select.select([keep], [], [], LONG_S)
    with closing(open_link(terminal.device, LINE)) as link:
        os.write(terminal.end, b"new")
        assert received(link, 3) == b"new"
    os.close(keep)


@pytest.mark.live
def test_an_unplugged_cable_is_link_down_for_reading_and_for_writing(terminal):
    reading = open_link(terminal.device, LINE)
    terminal.unplug()
    with pytest.raises(LinkDown, match="is lost: is the cable still plugged in"):
        reading.read(LONG_S)
    with pytest.raises(LinkDown, match="is lost"):
        reading.write(b"!INF|4961\r")
    reading.close()
    reading.close()
    with pytest.raises(LinkDown, match="is not there: plug in the cable"):
        open_link(terminal.device, LINE)


@pytest.mark.live
def test_a_cable_that_is_pulled_while_the_port_waits_is_link_down(terminal):
    link = open_link(terminal.device, LINE)
    pull = threading.Timer(0.02, terminal.unplug)
    pull.start()
    with pytest.raises(LinkDown, match="is lost"):
        link.read(LONG_S)
    pull.join()
    link.close()


@pytest.mark.live
def test_a_port_that_another_thread_closes_is_link_down_for_the_one_who_reads(terminal):
    link = open_link(terminal.device, LINE)
    close = threading.Timer(0.02, link.close)
    close.start()

    def read_on() -> None:
        while True:
            link.read(0.05)

    with pytest.raises(LinkDown, match="is lost"):
        read_on()
    close.join()


@pytest.mark.live
def test_a_port_that_another_program_holds_is_refused_and_free_again_when_it_is_closed(terminal):
    with closing(open_link(terminal.device, LINE)), pytest.raises(LinkDown, match="held by another program"):
        open_link(terminal.device, LINE)
    open_link(terminal.device, LINE).close()


@pytest.mark.live
def test_an_alaris_pump_is_read_through_a_terminal(terminal):
    pump = ScriptedPump({**IDENTITY, "INF": infusion()})

    def answer() -> None:
        try:
            while data := os.read(terminal.end, 4_096):
                for reply in pump.receive(data, 0):
                    os.write(terminal.end, reply)
        except OSError:
            return  # unplugged: the test is over

    session = AlarisFamily().open_session([PumpOnLine(pump="p1")])
    session.opened(0)
    facts: list[object] = []
    with closing(open_link(terminal.device, LINE)) as link:
        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        while not facts:
            if data := session.due(0):
                link.write(data)
            facts += session.receive(link.read(LONG_S), 0)
    [reading] = facts
    assert isinstance(reading, Reading)
    assert (reading.state, reading.volume_ml) == (PumpState.RUNNING, 0.969)


# A serial server on the network


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def port_of(server: socket.socket) -> int:
    return server.getsockname()[1]


@pytest.mark.live
def test_bytes_pass_a_socket_unchanged_in_both_directions(server):
    with closing(open_link(f"socket://127.0.0.1:{port_of(server)}", LINE)) as link:
        far_end, _ = server.accept()
        with far_end:
            far_end.sendall(bytes(range(256)))
            assert received(link, 256) == bytes(range(256))
            assert link.read(SHORT_S) == b""
            assert link.read(0) == b""
            link.write(b"!INF|4961\r")
            assert far_end.recv(100) == b"!INF|4961\r"


@pytest.mark.live
def test_a_serial_server_that_hangs_up_is_link_down(server):
    with closing(open_link(f"socket://127.0.0.1:{port_of(server)}", LINE)) as link:
        server.accept()[0].close()
        with pytest.raises(LinkDown, match="has ended the connection"):
            link.read(LONG_S)


@pytest.mark.live
@pytest.mark.parametrize("kind", ["socket", "rfc2217"])
def test_a_serial_server_that_is_not_there_is_link_down(kind):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        number = port_of(gone)
    with pytest.raises(LinkDown, match="is the serial server on, and are host and port right"):
        open_link(f"{kind}://127.0.0.1:{number}", LINE)


@pytest.mark.live
@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial's own
def test_a_remote_port_is_set_and_passes_bytes_in_both_directions(server):
    far_port = serial.serial_for_url("loop://")  # a terminal has no modem lines, and the server asks for them

    class Network:
        """What the far end writes to the network."""

        def __init__(self, connection: socket.socket) -> None:
            self.write = connection.sendall

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            manager = serial.rfc2217.PortManager(far_port, Network(connection))
            while data := connection.recv(1_024):
                for byte in manager.filter(data):
                    connection.sendall(b"".join(manager.escape(byte)))

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    line = LineSettings(baud=19_200, parity="E", stop_bits=2)
    with closing(open_link(f"rfc2217://127.0.0.1:{port_of(server)}", line)) as link:
        link.write(b"\xff!INF\r")
        assert received(link, 6) == b"\xff!INF\r"
        assert (far_port.baudrate, far_port.parity, far_port.stopbits) == (19_200, "E", 2)
    serving.join()
    far_port.close()


# Recordings


@pytest.fixture
def capture(tmp_path) -> Path:
    path = tmp_path / "a.cap"
    entries = [
        f"{at_ms} rx {text_of(name).hex()}" for at_ms, name in ((40, "A2"), (100, "A4"), (2_000, "A6"))
    ]
    path.write_text("family: alaris\n\n0 up\n10 tx 00\n" + "\n".join(entries) + "\n3000 down\n")
    return path


@pytest.mark.parametrize(
    ("speed", "times"), [(1.0, [1_040, 1_100, 2_000, 3_000]), (10.0, [1_004, 1_010, 1_200, 2_200])]
)
def test_a_capture_says_again_what_the_pump_said_at_its_time(capture, speed, times):
    clock = StoppedClock()
    link = open_link(f"capture:{capture}", LINE, clock=clock, speed=speed)
    link.write(b"nobody hears this")
    heard = []
    while len(heard) < 4:
        heard.append((link.read(1.0), clock.now))
    said = [text_of("A2"), text_of("A4"), text_of("A6")]
    if speed == 1.0:
        assert heard == [(said[0], 1_040), (said[1], 1_100), (b"", 2_100), (said[2], 3_000)]
    else:
        assert heard == [(said[0], 1_004), (said[1], 1_010), (said[2], 1_200), (b"", 2_200)]


def test_a_recorded_dialogue_that_is_played_again_says_the_same(tmp_path):
    # A session that is replayed asks when it asked before, and so the answers come when they are expected.
    pump = ScriptedPump({**IDENTITY, "INF": text_of("A8"), "ALARM": text_of("A12")})
    live = AlarisDialogue(AlarisFamily().open_session([PumpOnLine(pump="p1")]), pump)
    live.run(119_000)
    assert len(live.facts) == 24
    path = tmp_path / "dialogue.cap"
    path.write_text(write_capture(Capture(head=(("family", "alaris"),), entries=tuple(live.heard))))

    clock = StoppedClock()
    link = open_link(f"capture:{path}", LINE, clock=clock)
    began_ms = clock.now_ms()
    session = AlarisFamily().open_session([PumpOnLine(pump="p1")])
    session.opened(0)
    facts: list[object] = []
    while (now_ms := clock.now_ms() - began_ms) < 119_000:
        session.due(now_ms)
        data = link.read((session.next_due_ms() - now_ms) / 1_000)
        facts += session.receive(data, clock.now_ms() - began_ms)
    assert facts == live.facts


def test_after_its_last_entry_a_capture_is_silent(capture):
    clock = StoppedClock()
    link = open_link(f"capture:{capture}", LINE, clock=clock)
    for _ in range(4):
        link.read(1.0)
    assert [link.read(60.0) for _ in range(3)] == [b"", b"", b""]
    assert clock.now == 3_000 + 3 * 60_000
    link.close()


def test_a_script_is_a_port_for_the_dummy_family(tmp_path):
    script = tmp_path / "fine.script"
    script.write_text("0 state=idle alarms=\n5 state=running rate_ml_h=10 volume_ml=0\n")
    family = DummyFamily()
    clock = StoppedClock()
    link = open_link(f"script:{script}", family.line, clock=clock)
    session = family.open_session([PumpOnLine(pump="p1")])
    session.opened(clock.now_ms())
    facts: list[object] = []
    while clock.now < 8_000:
        data = link.read(1.0)
        facts += session.receive(data, clock.now_ms())
    assert facts == [
        Reading(pump="p1", at_ms=1_000, state=PumpState.IDLE, alarms=()),
        Reading(pump="p1", at_ms=6_000, state=PumpState.RUNNING, rate_ml_h=10.0, volume_ml=0.0),
    ]


def test_who_listens_in_hears_all_that_passes_with_its_time(tmp_path):
    script = tmp_path / "one.script"
    script.write_text("2 state=idle\n")
    clock = StoppedClock()
    heard: list[Entry] = []
    link = open_link(f"script:{script}", LINE, clock=clock, tap=heard.append)
    link.write(b"?")
    assert link.read(1.0) == b""
    assert link.read(5.0) == b"state=idle\n"
    assert heard == [
        Entry(at_ms=1_000, kind=EntryKind.UP),
        Entry(at_ms=1_000, kind=EntryKind.TX, data=b"?"),
        Entry(at_ms=3_000, kind=EntryKind.RX, data=b"state=idle\n"),
    ]


@pytest.mark.live
def test_who_listens_in_hears_that_the_link_went_down(terminal):
    heard: list[Entry] = []
    with closing(open_link(terminal.device, LINE, tap=heard.append)) as link:
        terminal.unplug()
        with pytest.raises(LinkDown):
            link.read(LONG_S)
    assert [entry.kind for entry in heard] == [EntryKind.UP, EntryKind.DOWN]


# What is not a port


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("/dev/serial/by-id/usb-nothing", "is not there: plug in the cable"),
        ("{tmp}", "cannot be opened as a serial port"),
        ("{tmp}/text", "cannot be opened as a serial port"),
        ("socket://127.0.0.1", "is no address: write socket://HOST:PORT"),
        ("socket://127.0.0.1:99999", "is no address"),
        ("socket://:4001", "is no address"),
        ("socket://127.0.0.1:4001/x", "is no address"),
        ("loop://", "is no kind of port: write a device, socket://HOST:PORT"),
        ("capture:{tmp}/none.cap", "cannot be read (No such file or directory)"),
        ("capture:{tmp}", "cannot be read (Is a directory)"),
        ("capture:{tmp}/text", "text, an empty line after the head is missing"),
        ("script:{tmp}/text", "text, line 1: 'hello:' is no time"),
        ("script:{tmp}/bytes", "is not text in UTF-8"),
        ("capture:{tmp}/bytes", "is not text in UTF-8"),
    ],
)
def test_what_is_no_port_is_link_down_with_a_sentence(tmp_path, port, words):
    (tmp_path / "text").write_text("hello: you\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LinkDown) as problem:
        open_link(port.format(tmp=tmp_path), LINE)
    assert words in str(problem.value)


def test_a_port_that_this_user_may_not_open_names_the_group(monkeypatch):
    # No user but root is sure to exist here, and root may open everything: so the refusal is the only part
    # made up.
    def refuse(self) -> None:
        raise serial.SerialException(13, "could not open port: Permission denied")

    monkeypatch.setattr(serial.Serial, "open", refuse)
    with pytest.raises(LinkDown, match="add the user to the group dialout"):
        open_link("/dev/ttyUSB0", LINE)


def test_a_recording_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "large.cap"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(LinkDown, match="larger than 64 MiB"):
        open_link(f"capture:{path}", LINE)
