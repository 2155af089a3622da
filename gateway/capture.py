"""``dripwatch capture``: records a serial line with its times (tools page, "Capture").

Usage: ``dripwatch capture PORT FILE``. It listens, and sends nothing; with ``--family`` that family's queries
are sent at every poll, so that there is something to hear. Lines typed on standard input become notes. Every
entry is in the file at once; Ctrl-C, or ``--duration``, ends the recording. When the port goes away the
recording says so and goes on when it is back. Exit status 0; 1 if the port or the file cannot be used, or
the recording has become as large as may be; 2 if the command is not understood.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Literal, TextIO

from msgspec import structs

from alerts.wire import iso_utc
from drivers import families
from drivers.capture import Entry, EntryKind, write_entry, write_head
from drivers.family import Family, LineSettings, PumpOnLine
from drivers.link import Clock, Link, LinkDown, SystemClock, Tap, open_link
from drivers.reading import DriverStatus, Reading
from gateway import clock as wall
from gateway.core.quantity import duration_ms
from gateway.dialogue import Dialogue, pumps_that_can_be

LARGEST_MIB = 64
"""No larger recording can be played or decoded."""
REOPEN_AFTER_MIN_S = 0.25
REOPEN_AFTER_MAX_S = 2.0
LOOKS_UP_EVERY_S = 0.25
"""How long a stop, a note or the end of the time may wait for a silent line."""
LONGEST_NOTE = 1_000
_PARITIES = {"N": "none", "E": "even", "O": "odd"}

OpenPort = Callable[[Tap], Link]


class RecordingFull(Exception):
    """The recording has become as large as may be."""


class Recorder:
    """The file: made with the first entry, and each entry is in it before the next is taken."""

    def __init__(
        self, file: Path, head: Callable[[], Sequence[tuple[str, str]]], *, force: bool, limit_bytes: int
    ) -> None:
        self._path = file
        self._head = head
        self._force = force
        self._limit_bytes = limit_bytes
        self._file: TextIO | None = None
        self._began_ms = 0
        self._written_bytes = 0
        self.last_ms = 0
        """The clock's time at the last entry."""
        self.received_bytes = 0
        self.sent_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether there is a file."""
        return self._written_bytes > 0

    def take(self, entry: Entry) -> None:
        """Write one entry, whose time is that of the clock. Raises OSError, RecordingFull."""
        if self._file is None:
            mode: Literal["w", "x"] = "w" if self._force else "x"
            # Path.open takes no opener; `close` below is the end of the recording.
            self._file = open(  # noqa: SIM115
                self._path, mode, encoding="utf-8", newline="\n", opener=_for_nobody_else
            )
            self._began_ms = self.last_ms = entry.at_ms
            self._write(write_head(self._head()))
        self.last_ms = max(self.last_ms, entry.at_ms)
        self._write(write_entry(structs.replace(entry, at_ms=self.last_ms - self._began_ms)))
        if entry.kind is EntryKind.RX:
            self.received_bytes += len(entry.data)
        elif entry.kind is EntryKind.TX:
            self.sent_bytes += len(entry.data)

    def close(self) -> None:
        """All that was recorded is on the disk. Raises OSError."""
        if self._file is None:
            return
        with self._file as file:
            self._file = None
            file.flush()
            os.fsync(file.fileno())

    def _write(self, text: str) -> None:
        assert self._file is not None
        size = len(text.encode())
        if self._written_bytes + size > self._limit_bytes:
            raise RecordingFull
        self._written_bytes += size
        self._file.write(text)
        self._file.flush()


def _for_nobody_else(path: str, flags: int) -> int:
    """A recording holds the pump's serial number, and of some pumps the access codes that people typed."""
    return os.open(path, flags, 0o600)


class Listener:
    """Hears the line for as long as it is to be heard, and opens the port again when it has gone."""

    def __init__(
        self,
        open_port: OpenPort,
        recorder: Recorder,
        clock: Clock,
        *,
        family: Family | None = None,
        pumps: Sequence[PumpOnLine] = (),
        notes: Callable[[], Sequence[Entry]] = lambda: (),
        progress: Callable[[str], None] = lambda words: None,
        warn: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._open_port = open_port
        self._recorder = recorder
        self._clock = clock
        self._family = family
        self._session = family.open_session(pumps) if family is not None else None
        self._notes = notes
        self._progress = progress
        self._warn = warn
        self._readings = 0
        self._state = ""

    def listen(self, is_over: Callable[[], bool]) -> None:
        """Record until ``is_over``. Raises LinkDown if the port cannot be opened the first time."""
        reopen_after_s = REOPEN_AFTER_MIN_S
        warned = ""
        while not is_over():
            try:
                link = self._open_port(self._recorder.take)
            except LinkDown as down:
                if not self._recorder.has_begun:
                    raise
                if str(down) != warned:
                    warned = str(down)
                    self._warn(warned)
                self._clock.wait_ms(round(reopen_after_s * 1000))
                reopen_after_s = min(2 * reopen_after_s, REOPEN_AFTER_MAX_S)
                self._take_notes()
                continue
            reopen_after_s, warned = REOPEN_AFTER_MIN_S, ""
            try:
                self._hear(link, is_over)
            except LinkDown as down:
                self._warn(str(down))
            finally:
                link.close()

    def _hear(self, link: Link, is_over: Callable[[], bool]) -> None:
        dialogue: Dialogue | None = None
        if self._family is not None and self._session is not None:
            # By the clock of the entries: so the session that decodes them hears at the same times.
            dialogue = Dialogue(self._family, self._session, link, self._now_ms)
        while not is_over():
            if dialogue is None:
                link.read(LOOKS_UP_EVERY_S)
            else:
                for fact in dialogue.turn(LOOKS_UP_EVERY_S).facts:
                    if isinstance(fact, Reading):
                        self._readings += 1
                        self._state = fact.state
            self._take_notes()
            self._progress(self._in_words())

    def _now_ms(self) -> int:
        return max(self._clock.now_ms(), self._recorder.last_ms)

    def _take_notes(self) -> None:
        for note in self._notes():
            self._recorder.take(note)

    def _in_words(self) -> str:
        words = f"{self._recorder.received_bytes} bytes received"
        if self._session is not None:
            words += f", {self._recorder.sent_bytes} sent, {self._readings} readings"
            if self._state:
                words += f"; pump says {self._state}"
        return words


class TypedNotes:
    """Lines that somebody types while the line is recorded, each with its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._typed: queue.Queue[Entry] = queue.Queue()

    def start(self) -> None:
        """Begin to read standard input; its end ends nothing."""
        # A process in the background that reads its terminal is stopped for it.
        if sys.stdin is not None and (not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()):
            threading.Thread(target=self._read, name="notes", daemon=True).start()

    def __call__(self) -> Sequence[Entry]:
        """What was typed since the last time."""
        typed: list[Entry] = []
        while not self._typed.empty():
            typed.append(self._typed.get_nowait())
        return typed

    def _read(self) -> None:
        # Not through sys.stdin: a thread that holds its lock would be in the way when the program ends.
        rest = b""
        while data := os.read(0, 4_096):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:LONGEST_NOTE]
            for line in lines:
                words = line.decode("utf-8", "replace").strip()[:LONGEST_NOTE]
                if words:
                    self._typed.put(Entry(at_ms=self._clock.now_ms(), kind=EntryKind.NOTE, words=words))


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        family, pumps = _family_of(arguments)
        line = _line_of(arguments, family)
        head = _head_of(arguments, family, line)
    except ValueError as error:
        parser.error(str(error))
    file = Path(arguments.file)
    if file.exists() and not arguments.force:
        sys.stderr.write(f"capture: {file} exists: choose another name, or write over it with --force\n")
        return 1
    clock = SystemClock()
    notes = TypedNotes(clock)
    notes.start()
    recorder = Recorder(
        file, lambda: (*head, *_today()), force=arguments.force, limit_bytes=arguments.limit_mib * 2**20
    )
    listener = Listener(
        lambda tap: open_link(arguments.port, line, clock=clock, tap=tap),
        recorder,
        clock,
        family=family,
        pumps=pumps,
        notes=notes,
        progress=_progress(clock),
        warn=lambda words: _say(f"capture: {words}"),
    )
    until_ms = None if arguments.duration is None else clock.now_ms() + arguments.duration
    try:
        with _stop_asked_for() as stop_asked_for:
            listener.listen(lambda: stop_asked_for() or (until_ms is not None and clock.now_ms() >= until_ms))
        recorder.close()
    except LinkDown as down:
        _say(f"capture: {down}")
        return 1
    except RecordingFull:
        _say(
            f"capture: {file} has {arguments.limit_mib} MiB, which is the limit; what was recorded until now"
            " is good. Begin another file"
        )
        return 1
    except OSError as error:
        _say(f"capture: {file} cannot be written: {error.strerror}; is there room, and is the folder yours?")
        return 1
    finally:
        with suppress(OSError):
            recorder.close()
    _say(f"capture: {file}: {recorder.received_bytes} bytes received, {recorder.sent_bytes} sent")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dripwatch capture",
        description="Records a serial line with its times, for `dripwatch decode` and as a port capture:FILE."
        " Lines typed meanwhile become notes: write down what the display shows. Ctrl-C ends it.",
    )
    parser.add_argument("port", metavar="PORT", help="a device, socket://HOST:PORT or rfc2217://HOST:PORT")
    parser.add_argument("file", metavar="FILE", help="the recording; by custom it ends in .cap")
    known = ", ".join(families.known())
    parser.add_argument(
        "--family", help=f"ask what this family's driver asks ({known}); without it nothing is sent"
    )
    parser.add_argument("--listen", action="store_true", help="with --family: set the line, and send nothing")
    parser.add_argument(
        "--address",
        type=int,
        action="append",
        metavar="N",
        help="a pump's place on the line; may be given more than once",
    )
    parser.add_argument("--poll", default="5s", metavar="TIME", help='how often to ask, as "1s" (default 5s)')
    parser.add_argument("--baud", type=int, help="the line's speed (default: the family's, else 9600)")
    parser.add_argument(
        "--frame", metavar="8N1", help="data bits, parity, stop bits (default: the family's, else 8N1)"
    )
    parser.add_argument("--duration", metavar="TIME", help='end by itself after so long, as "10min"')
    parser.add_argument("--force", action="store_true", help="write over FILE if it exists")
    parser.add_argument(
        "--limit-mib",
        type=int,
        default=LARGEST_MIB,
        choices=range(1, LARGEST_MIB + 1),
        metavar="N",
        help=f"end when the recording is so large (default and most {LARGEST_MIB})",
    )
    parser.add_argument(
        "--bench",
        action="store_true",
        help="no patient is connected: a family may be asked whose queries change the pump",
    )
    for name, what in (
        ("pump", "model and serial number"),
        ("firmware", "as its display or label says"),
        ("by", "who records"),
        ("done", "what is done to the pump meanwhile"),
        ("display", "what its display says"),
    ):
        parser.add_argument(f"--{name}", default="", metavar="WORDS", help=f"for the head: {what}")
    return parser


def _family_of(arguments: argparse.Namespace) -> tuple[Family | None, tuple[PumpOnLine, ...]]:
    """Who is to be asked, if anybody. Raises ValueError."""
    poll_ms = duration_ms(arguments.poll)
    if arguments.duration is not None:
        arguments.duration = duration_ms(arguments.duration)
    if arguments.family is None:
        if arguments.address or arguments.listen:
            raise ValueError("--address and --listen are about a family: give --family too")
        return None, ()
    family = families.find(arguments.family)
    if arguments.listen:
        return None, ()
    if family.traits.status is DriverStatus.BENCH and not arguments.bench:
        raise ValueError(
            f"--family {arguments.family}: its pumps are changed when they are asked; give --bench if no"
            " patient is connected, or --listen to send nothing"
        )
    return family, pumps_that_can_be(family, arguments.address or (None,), poll_ms)


def _line_of(arguments: argparse.Namespace, family: Family | None) -> LineSettings:
    if family is None and arguments.family is not None:
        family = families.find(arguments.family)
    line = family.line if family is not None else LineSettings(baud=9_600)
    if arguments.frame is not None:
        frame = arguments.frame.upper()
        if len(frame) < 3 or frame[0] not in "5678" or frame[1] not in _PARITIES:
            raise ValueError(
                f"--frame {arguments.frame} is not data bits, parity and stop bits, as 8N1 or 7E1"
            )
        if frame[2:] not in ("1", "1.5", "2"):
            raise ValueError(
                f"--frame {arguments.frame}: {frame[2:]} stop bits are not possible; 1, 1.5 or 2"
            )
        line = structs.replace(line, data_bits=int(frame[0]), parity=frame[1], stop_bits=float(frame[2:]))
    if arguments.baud is not None:
        if not 50 <= arguments.baud <= 4_000_000:
            raise ValueError(f"--baud {arguments.baud} is not possible; pumps have 1200 to 115200")
        line = structs.replace(line, baud=arguments.baud)
    return line


def _head_of(
    arguments: argparse.Namespace, family: Family | None, line: LineSettings
) -> tuple[tuple[str, str], ...]:
    said = [("family", arguments.family or "")]
    said += [(name, getattr(arguments, name)) for name in ("pump", "firmware", "by", "done", "display")]
    said.append(("line", f"{line.baud} {line.data_bits}{line.parity}{line.stop_bits:g}"))
    if family is not None:
        said.append(("poll", arguments.poll))
        said.append(("address", ", ".join(str(address) for address in arguments.address or ())))
    return tuple((key, words) for key, words in said if words.strip())


def _today() -> tuple[tuple[str, str], ...]:
    """When the recording begins."""
    moment = wall.SystemClock().moment()
    return (("date", iso_utc(moment.utc_ms)), ("clock", "synced" if moment.synced else "unsynced"))


@contextmanager
def _stop_asked_for() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the recording between two entries and not within one."""
    asked = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _progress(clock: Clock) -> Callable[[str], None]:
    """How far it is, for the person who waits at a terminal."""
    if not sys.stderr.isatty():
        return lambda words: None
    began_ms = clock.now_ms()

    def show(words: str) -> None:
        sys.stderr.write(f"\r\033[Kcapture: {(clock.now_ms() - began_ms) // 1000} s, {words}")
        sys.stderr.flush()

    return show


def _say(words: str) -> None:
    begin = "\r\033[K" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{begin}{words}\n")
    sys.stderr.flush()
