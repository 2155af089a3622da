"""The New Era NE-1000's side of its protocol, from the protocol facts alone: up to 100 pumps in a chain.

Two ways to say the same::

    Basic   to the pump   [address] [command] CR         no address: 0; no command: how are you?
            from it       STX address prompt data ETX    STX 02, ETX 03; the address as two digits
    Safe    both ways     STX length data CRC CRC ETX    length: of data, and 4; CRC: of data, high byte
                                                         first, polynomial 1021 from 0000 on

A pump understands both; it replies in Safe mode from ``SAF n`` until ``SAF0``, else in Basic mode. (What a
pump in Safe mode makes of a Basic command no source says; this one answers it, in a packet.) A packet whose
bytes are more than half a second apart is forgotten, and a damaged one is answered ``?COM``.

An alarm stands before everything: whoever says anything to the pump is told ``A?`` and its type, the command
is not executed, and with that reply the alarm is acknowledged. After power-up that is ``R``, once for each
pump. In Safe mode an alarm is also sent unasked, which does not acknowledge it, and a client that is silent
for longer than the time-out brings about the alarm ``T``.

This pump has a motor and no other sense, so whatever keeps it from delivering is a stall (``S``) to it; only
where its power fails it has been reset (``R``). The rate of a pump that stands still is that which it ran at
last.

What it does *not* do: commands that would change a real pump (``RUN``, ``STP``, ``RAT45``, ``CLD``, ...) are
answered as on the wire and change nothing: delivery and counter are the scenario's. A pump that should have
been stopped by the time-out says so and goes on. Only ``SAF`` changes something: how the pump talks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import zip_longest

from simulator.pump import Truth
from simulator.wire.wire import Address, Answer, LineSettings, Pumps, WireFamily

STX, ETX, CR = 0x02, 0x03, 0x0D
VERSION = "NE1000V3.928"
DIAMETER_MM = "26.59"
LEAST_DIAMETER_MM, MOST_DIAMETER_MM = 0.1, 50.0
LAST_PHASE = 41
LONGEST_LINE = 200
"""Far above the longest known command, and below it a whole burst for ten pumps."""
GAP_MS = 500
LOOKS_EVERY_MS = 500
"""How often a pump in Safe mode looks whether it has an alarm to send."""
MOST_SHOWN = 9999.0

DELIVERING = ("running", "bolus", "kvo")
PROMPTS = {**dict.fromkeys(DELIVERING, "I"), "priming": "X", "paused": "P"}
"""The prompt for each state; for every other the pump stands still: ``S``."""
POWER_FAILS = ("battery_empty",)
NO_ALARM_HERE = ("near_empty", "low_battery", "demand", "demand_denied")
"""What this pump has no sense for, and what does not stop it."""

ACTIONS = ("RUN", "STP", "PUR", "CLD", "BUZ", "OUT", "RESET", "*RESET", "FUN", "TRG")
"""Commands that are answered with the prompt whatever is said to them, and change nothing."""
NUMBER = r"(?=[0-9.]*[0-9])[0-9]{0,4}(?:\.[0-9]{0,3})?"
WRITES: dict[str, tuple[str, Callable[[str], bool]]] = {
    # what may be written, and whether it lies within the limits
    "RAT": (rf"[IC]?(?:{NUMBER})(?:UM|MM|UH|MH)?", lambda _: True),
    "VOL": (rf"{NUMBER}|UL|ML", lambda _: True),
    "DIA": (NUMBER, lambda text: LEAST_DIAMETER_MM <= float(text) <= MOST_DIAMETER_MM),
    "DIR": ("INF|WDR|REV|STK", lambda _: True),
    "PHN": ("[0-9]{1,3}", lambda text: 1 <= int(text) <= LAST_PHASE),
    "SAF": ("[0-9]{1,3}", lambda text: int(text) <= 255),
}


def crc_bytes(data: bytes) -> bytes:
    """The CRC of a packet's data, high byte first; bit by bit, as the manual explains it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return bytes((crc >> 8, crc & 0xFF))


def basic(data: str) -> bytes:
    """A Basic reply."""
    return bytes((STX, *data.encode("ascii"), ETX))


def packet(data: bytes | str) -> bytes:
    """A Safe packet, to the pump or from it."""
    if isinstance(data, str):
        data = data.encode("ascii")
    return bytes((STX, len(data) + 4, *data, *crc_bytes(data), ETX))


def number_shown(value: float) -> str:
    """A number as the pump prints it: four digits at most, three after the point, and always the point."""
    for decimals in (3, 2, 1):
        text = f"{value:.{decimals}f}"
        if len(text) <= 5:
            return text
    return f"{min(value, MOST_SHOWN):.0f}."


class _Speaker:
    """What one pump of the chain remembers between two commands."""

    def __init__(self) -> None:
        self.pending: list[str] = ["R"]
        self.unsent: list[str] = []
        """Alarms that have not yet been sent of the pump's own accord."""
        self.seen: frozenset[str] = frozenset()
        self.safe_s = 0
        self.last_packet_ms: int | None = None

    def looks_at_itself(self, truth: Truth, now_ms: int) -> None:
        """Whether something has come to be wrong since it last looked."""
        wrong = frozenset(truth.alarms).difference(NO_ALARM_HERE)
        for alarm in sorted(wrong - self.seen):
            self._raise("R" if alarm in POWER_FAILS else "S")
        self.seen = wrong
        if self.safe_s and self.last_packet_ms is not None and now_ms > self.times_out_ms:
            self._raise("T")
            self.last_packet_ms = None

    @property
    def times_out_ms(self) -> int:
        """When the client has been silent for too long."""
        assert self.last_packet_ms is not None, "the time-out begins with a packet"
        return self.last_packet_ms + self.safe_s * 1000

    def _raise(self, alarm: str) -> None:
        if alarm not in self.pending:
            self.pending.append(alarm)
            self.unsent.append(alarm)

    def framed(self, data: str) -> bytes:
        """A reply in the mode in which the pump is now."""
        return packet(data) if self.safe_s else basic(data)


class NewEraWire:
    """One client's conversation with a chain of New Era pumps."""

    thinking_ms = 10

    def __init__(self, serial_numbers: Mapping[Address, str]) -> None:
        self._speakers = {_place(address): _Speaker() for address in serial_numbers}
        self._line = bytearray()
        self._packet: bytearray | None = None
        self._heard_ms = 0
        self._looked_ms = 0

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """See ``Wire.receive``."""
        now_ms = pumps.now_ms
        if self._packet is not None and now_ms - self._heard_ms > GAP_MS:
            self._packet = None
        self._heard_ms = now_ms
        answers: list[Answer] = []
        for byte in data:
            if self._packet is not None:
                self._packet.append(byte)
                answers += self._hear_packet(self._packet, pumps)
            elif byte == STX:
                self._packet = bytearray((STX,))
            elif byte == CR:
                line, self._line = bytes(self._line), bytearray()
                answers += self._obey_line(line, pumps)
            elif len(self._line) < LONGEST_LINE:
                self._line.append(byte)
        return answers

    def unasked(self, pumps: Pumps) -> list[Answer]:
        """See ``Wire.unasked``: alarms of pumps in Safe mode. They stay unacknowledged."""
        answers = []
        for place, speaker in self._speakers.items():
            if speaker.safe_s:
                speaker.looks_at_itself(pumps.truth(place), pumps.now_ms)
                for alarm in speaker.unsent:
                    answers.append(Answer(b"", packet(f"{place:02d}A?{alarm}"), place))
                speaker.unsent.clear()
        self._looked_ms = pumps.now_ms
        return answers

    def next_unasked_ms(self) -> int | None:
        """See ``Wire.next_unasked_ms``."""
        if not any(speaker.safe_s for speaker in self._speakers.values()):
            return None
        return self._looked_ms + LOOKS_EVERY_MS

    def connected(self, now_ms: int) -> None:
        """See ``Wire.connected``. The mode is the pump's, and stays."""
        self._line.clear()
        self._packet = None

    def _hear_packet(self, heard: bytearray, pumps: Pumps) -> list[Answer]:
        """What is answered when this packet is complete, and nothing before."""
        if len(heard) < 2:
            return []
        if heard[1] < 4:
            self._packet = bytearray((STX,)) if heard[1] == STX else None
            return []
        if len(heard) < heard[1] + 1:
            return []
        self._packet = None
        data = bytes(heard[2:-3])
        place, command = _address_and_command(_cleaned(data))
        if place not in self._speakers:
            return []
        speaker = self._speakers[place]
        if heard[-1] != ETX or bytes(heard[-3:-1]) != crc_bytes(data):
            return [self._said(place, bytes(heard), _prompt(pumps.truth(place)) + "?COM")]
        speaker.last_packet_ms = pumps.now_ms
        return [self._said(place, data, self._obey(place, command, pumps))]

    def _obey_line(self, line: bytes, pumps: Pumps) -> list[Answer]:
        text = _cleaned(line)
        if text.startswith("*ADR"):
            return [self._said(place, line, self._obey(place, text, pumps)) for place in self._speakers]
        if "*" in text and not text.lstrip("0123456789").startswith("*RESET"):
            return self._burst(line, text, pumps)
        place, command = _address_and_command(text)
        if place not in self._speakers:
            return []
        return [self._said(place, line, self._obey(place, command, pumps))]

    def _burst(self, line: bytes, text: str, pumps: Pumps) -> list[Answer]:
        """A command for each of several pumps: all answer at once, and what arrives is noise."""
        replies: list[bytes] = []
        for part in text.split("*"):
            place, command = _address_and_command(part)
            if part and place in self._speakers:
                replies.append(self._said(place, line, self._obey(place, command, pumps)).reply)
        noise = bytes(_clash(bytes_at_once) for bytes_at_once in zip_longest(*replies, fillvalue=0))
        return [Answer(line, noise)] if noise else []

    def _said(self, place: int, request: bytes, data: str) -> Answer:
        return Answer(request, self._speakers[place].framed(f"{place:02d}{data}"), place)

    def _obey(self, place: int, command: str, pumps: Pumps) -> str:
        """Prompt and data of the reply, or an alarm, which is acknowledged with that."""
        speaker, truth = self._speakers[place], pumps.truth(place)
        speaker.looks_at_itself(truth, pumps.now_ms)
        if speaker.pending:
            alarm = speaker.pending.pop(0)
            if alarm in speaker.unsent:
                speaker.unsent.remove(alarm)
            return f"A?{alarm}"
        return _prompt(truth) + self._data(place, command, pumps)

    def _data(self, place: int, command: str, pumps: Pumps) -> str:
        speaker, truth = self._speakers[place], pumps.truth(place)
        if command == "SAF":
            return str(speaker.safe_s)
        if command == "RAT":
            return _rate_shown(truth, place, pumps)
        if command == "*ADR":
            return f"{place:02d}"
        if command in _SAID:
            return _SAID[command](truth)
        if re.fullmatch("IN[0-9]{1,2}", command):
            return "1"
        if command.startswith(ACTIONS) or re.fullmatch(r"\*ADR[0-9]{1,2}", command):
            return ""
        return self._written(speaker, command, pumps.now_ms)

    def _written(self, speaker: _Speaker, command: str, now_ms: int) -> str:
        """What is answered to a command with an argument: nothing, or why not."""
        mnemonic, argument = command[:3], command[3:]
        if mnemonic not in WRITES or not argument:
            return "?"
        form, is_within = WRITES[mnemonic]
        if not re.fullmatch(form, argument) or not is_within(argument):
            return "?OOR"
        if mnemonic == "SAF":
            speaker.safe_s = int(argument)
            self._looked_ms = now_ms
        return ""


def _place(address: Address) -> int:
    return 0 if address is None else address


def _cleaned(data: bytes) -> str:
    """What the pump makes of what it hears: no blanks, no control characters, no small letters."""
    return "".join(chr(byte) for byte in data if 0x20 < byte != 0x7F).upper()


def _address_and_command(text: str) -> tuple[int, str]:
    digits = re.match("[0-9]{0,2}", text)
    assert digits is not None, "no digits are digits too"
    return int(digits[0] or 0), text[digits.end() :]


def _clash(bytes_at_once: tuple[int, ...]) -> int:
    noise = 0
    for byte in bytes_at_once:
        noise |= byte
    return noise


def _prompt(truth: Truth) -> str:
    return PROMPTS.get(truth.state, "S")


def _rate_shown(truth: Truth, place: int, pumps: Pumps) -> str:
    """The actual rate, or that at which the pump ran last."""
    rate_ml_h = truth.rate_ml_h
    if truth.state not in DELIVERING:
        ran_at = (entry.rate_ml_h for entry in reversed(pumps.log(place)) if entry.state in DELIVERING)
        rate_ml_h = next(ran_at, 0.0)
    if rate_ml_h <= MOST_SHOWN:
        return number_shown(rate_ml_h) + "MH"
    return number_shown(rate_ml_h / 60) + "MM"


_SAID: dict[str, Callable[[Truth], str]] = {
    "": lambda _truth: "",
    "VER": lambda _truth: VERSION,
    "DIA": lambda _truth: DIAMETER_MM,
    "VOL": lambda truth: number_shown(truth.counter_ml + truth.vtbi_ml) + "ML",
    "DIR": lambda _truth: "INF",
    "DIS": lambda truth: f"I{number_shown(truth.counter_ml)}W{number_shown(0.0)}ML",
    "PHN": lambda _truth: "01",
    "FUN": lambda _truth: "RAT",
    "TRG": lambda _truth: "FT",
}
"""What may be asked without changing anything, and what is said to it."""

FAMILY = WireFamily(
    line=LineSettings(baud=19_200), open_wire=NewEraWire, addresses=tuple(range(100)), alone_at=0
)
"""RS-232 in a daisy chain, 8 data bits, no parity, one stop bit, the speed of the factory."""
