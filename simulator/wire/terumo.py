"""The Terumo TERUFUSION SS3 syringe pump's side of its external communication, from the protocol facts alone.

A packet::

    STX  text  CRC  ETX         text: XML in one line; CMD in it is Base64 of a block of bytes
                                CRC:  of the text, four upper-case hexadecimal digits, CRC-16/XMODEM

Whoever asks is answered, and nobody is told anything unasked. This pump is silent on a bad CRC, without the
REQ tag, on another pump's DEVID, and on whatever the facts do not say an answer to. A command that it does
not know is answered by an error, as on the wire; no command that changes a pump is known, and nothing that is
received changes anything.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from simulator.pump import Truth
from simulator.wire.wire import Address, Answer, LineSettings, OnlyWhenAsked, Pumps, WireFamily

LONGEST_FRAME = 512
"""Far above the longest request known; more without an end is not a packet."""
STX, ETX = 0x02, 0x03
DECLARATION = b'<?xml version="1.0"?>'
REQUEST = re.compile(
    rb'<\?xml version="1\.0"\?><REQ><DEVID>([^<>]*)</DEVID>(?:<CMD>([A-Za-z0-9+/=]*)</CMD>)?</REQ>'
)

STATUS = bytes((0x01, 0x00, 0x00))
"""Command and sub command of the basic operating status: the only one that the facts describe."""
RESERVED_NUMBERS = (0x7F, 0xFF)
DONE, UNKNOWN_COMMAND, TOO_SHORT, TOO_LONG = 0x00, 0x11, 0x13, 0x14

TE_SS830P = (
    bytes.fromhex("0403"),
    bytes.fromhex("1000"),
    bytes.fromhex(
        "139999000086000000000000000000000b000201020028ffffff01"
        "90120078fa0042f7000000000000000000000000450029000013"
    ),
)
"""Software version, the reserved bytes 8 and 9, and all from offset 34 on, of a printed reply of 87 bytes."""
TE_SS730 = (bytes.fromhex("0301"), bytes(2), bytes.fromhex("0099990000020000000000000000000000"))
"""The same of a reply of 51 bytes."""

STOP, START, STANDBY, PURGE, HANDS_FREE_BOLUS = 0, 1, 2, 3, 5
STATES = {
    "running": START,
    "kvo": START,
    "standby": STANDBY,
    "priming": PURGE,
    "bolus": HANDS_FREE_BOLUS,
}
"""Whatever else a pump is doing, it stands."""
COMPLETION_BIT = 2
ALARM_BITS = {
    "occlusion_downstream": 3,
    "occlusion_upstream": 6,  # nothing lies before a syringe: a slider that moves nothing
    "empty": COMPLETION_BIT,
    "near_empty": 8,
    "low_battery": 19,
    "battery_empty": 0,
    "malfunction": 13,
    "air_in_line": 13,  # a syringe pump has no eye for air: whatever stops it is a failure to it
    "door_open": 4,
    "cassette": 4,
}
"""The pump's bit for each alarm."""
SYRINGE_50_ML = 6
FULL_BARS = 5
OCCLUSION_STEP_MMHG = 125.0
"""A quarter of the pressure at which the simulated pump alarms."""
MOST_IN_3_BYTES = 0xFFFFFF
VTBI_NOT_USED = 0xEEEEEE
WEIGHT_NOT_USED = bytes((0xFF, 0xFF))
DEVICE_ID_LENGTH = 24


def crc_digits(text: bytes) -> bytes:
    """CRC-16/XMODEM of the text as the wire writes it: four upper-case digits, zero padded."""
    crc = 0
    for byte in text:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return b"%04X" % crc


def frame(text: bytes) -> bytes:
    """The text as it goes over the wire."""
    return b"\x02" + text + crc_digits(text) + b"\x03"


def device_id(serial_number: str) -> bytes:
    """An ID of 24 digits, as the printed one, that ends in those of the serial number."""
    digits = re.sub(r"[^0-9]", "", serial_number.encode("ascii", "ignore").decode("ascii"))
    return digits.zfill(DEVICE_ID_LENGTH)[-DEVICE_ID_LENGTH:].encode("ascii")


class TerumoWire(OnlyWhenAsked):
    """One client's conversation with a Terumo pump."""

    thinking_ms = 20

    def __init__(
        self, serial_numbers: Mapping[Address, str], model: tuple[bytes, bytes, bytes] = TE_SS830P
    ) -> None:
        [serial_number] = serial_numbers.values()
        self._device_id = device_id(serial_number)
        self._model = model
        self._heard: bytearray | None = None

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """See ``Wire.receive``."""
        truth = pumps.truth(None)
        answers = []
        for byte in data:
            if byte == STX:
                self._heard = bytearray()
            elif byte == ETX and self._heard is not None:
                answers.append(self._answer(bytes(self._heard), truth))
                self._heard = None
            elif self._heard is not None:
                self._heard.append(byte)
                if len(self._heard) > LONGEST_FRAME:
                    self._heard = None
        return answers

    def _answer(self, heard: bytes, truth: Truth) -> Answer:
        text, crc = heard[:-4], heard[-4:]
        request = REQUEST.fullmatch(text) if crc == crc_digits(text) else None
        if request is None:
            return Answer(heard, b"")
        asked, command = request[1], request[2]
        if not asked and command is None:
            return Answer(text, self._packet(b""))
        if asked != self._device_id or command is None:
            return Answer(text, b"")
        try:
            block = base64.b64decode(command, validate=True)
        except binascii.Error:
            return Answer(text, b"")
        if block[:1] and block[0] in RESERVED_NUMBERS:
            return Answer(text, b"")
        reply = base64.b64encode(self._reply(block, truth))
        return Answer(text, self._packet(b"<CMD>" + reply + b"</CMD>"))

    def _packet(self, command: bytes) -> bytes:
        return frame(DECLARATION + b"<REP><DEVID>" + self._device_id + b"</DEVID>" + command + b"</REP>")

    def _reply(self, block: bytes, truth: Truth) -> bytes:
        """The block that answers a block: number, command and sub command again, result, data."""
        head = block[:4].ljust(4, b"\x00")
        if len(block) < 4:
            return head + bytes((TOO_SHORT, 0, 0, 0))
        if head[1:] != STATUS:
            return head + bytes((UNKNOWN_COMMAND,)) + head[1:]
        if len(block) > 4:
            return head + bytes((TOO_LONG,)) + head[1:]
        return head + bytes((DONE,)) + _status(truth, self._model)


def _status(truth: Truth, model: tuple[bytes, bytes, bytes]) -> bytes:
    """The data of the basic operating status: offsets 5 and on."""
    software, reserved, tail = model
    vtbi = _whole(truth.vtbi_ml * 10) if truth.vtbi_ml > 0 else VTBI_NOT_USED
    return b"".join(
        (
            software,
            bytes((STATES.get(truth.state, STOP) << 4,)),
            reserved,
            _alarm_bits(truth).to_bytes(3, "big"),
            bytes((_power(truth), _monitor(truth), SYRINGE_50_ML)),
            _whole(truth.rate_ml_h * 100).to_bytes(3, "big"),
            _whole(truth.counter_ml * 100).to_bytes(3, "big"),
            vtbi.to_bytes(3, "big"),
            bytes(3),  # no dosage
            bytes(1),  # its unit, mL/h
            WEIGHT_NOT_USED,
            bytes(3),  # no dilution
            tail,
        )
    )


def _whole(number: float) -> int:
    return min(max(round(number), 0), MOST_IN_3_BYTES)


def _alarm_bits(truth: Truth) -> int:
    bits = {ALARM_BITS[alarm] for alarm in truth.alarms if alarm in ALARM_BITS}
    if truth.state == "complete":
        bits.add(COMPLETION_BIT)
    return sum(1 << bit for bit in bits)


def _power(truth: Truth) -> int:
    """Bars of charge, mains or battery, and a sub-battery that is well."""
    on_battery = "battery" in truth.faults or truth.battery_percent < 100
    bars = min(FULL_BARS, 1 + int(truth.battery_percent * FULL_BARS / 100))
    return bars | (0 if on_battery else 1) << 4 | 1 << 6


def _monitor(truth: Truth) -> int:
    """How near the pressure is to the limit, and whether the alarm sounds."""
    quarters = min(3, max(0, int(truth.pressure_mmhg / OCCLUSION_STEP_MMHG)))
    sounds = truth.state in ("alarm", "complete")
    return quarters | (1 << 3 if sounds else 0)


FAMILY = WireFamily(line=LineSettings(baud=9_600), open_wire=TerumoWire)
"""How the line of the real pump is set is not known; one pump at a port."""
