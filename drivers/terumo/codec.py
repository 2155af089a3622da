"""Terumo TERUFUSION type SS3: the frames of "external communication", read side.

::

    STX  <?xml version="1.0"?><REQ><DEVID>000100...0001</DEVID><CMD>AQEAAA==</CMD></REQ>  A9A4  ETX
    02   └──────────────────────── text: one line of XML ──────────────────────────────┘  │     03
                                                                     CRC of the text, 4 digits 0-9 A-F

    CMD, Base64 of:   host   sequence 1 | command 1 | sub command 2 | data
                      pump   sequence 1 | command 1 | sub command 2 | result 1 | data        big endian

CRC-16 with polynomial 1021, start 0000, no reflection, no final XOR ("123456789" gives 31C3), over the text
only. The manual calls it "CRC-16-CCITT"; the parameters were found from four printed frames.

==============================================  ==============================================================
query (host)                                    reply (pump)
==============================================  ==============================================================
``<REQ>`` with an empty DEVID and no CMD        ``<REP>`` with its own DEVID: answered by whoever is there
``<REQ>`` with DEVID, command 01 0000           basic operating status, 51 or 87 bytes (see ``_status``)
==============================================  ==============================================================

A pump throws away what is damaged, and is silent to a DEVID that is not its own. Sequence numbers 00 to 7E
belong to a network system, 80 to FE to the maker's rack; 7F and FF are reserved. A reply repeats the number
(in the printed example it says 00 instead).

result 00 done, 11 command not known, 12 not now, 13 too short, 14 too long, 15 out of range. Only command 01
is described on the pages that were read, so this file can encode the two queries above and nothing else.

No XML parser is used: the whole grammar of a packet is one regular expression here. There is no declaration
but the one above, no DOCTYPE, no entity, no attribute, and not a blank between elements.

Source: instruction manuals, "About External Communication Functions": TE-SS830P pages 121 to 124 and 127,
TE-SS730 pages 94 and 96, TE-LF630N pages 78 to 80. Not known: how the line is set, the time in which a pump
answers, how often it may be asked, the bytes from offset 34 on, and the whole layout of the TE-LF630N from
offset 10 on. That numbers are mL and mL/h, and the byte order of the alarm bits, is inferred.
"""

from __future__ import annotations

import binascii
import re
from enum import IntEnum

from msgspec import Struct

from drivers.framing import MarkedStream
from drivers.reading import FaultKind

# The longest reply known, 87 bytes of data, makes a frame of 227 bytes. The manual says that there may be
# more data one day: this leaves room for some 690 bytes of it.
FRAME_LIMIT_BYTES = 1_024

FIRST_SEQUENCE = 0x01
"""00 would be ours too, but an answer that bears it may be one to any query."""
LAST_SEQUENCE = 0x7E
UNNUMBERED = 0x00
"""The number in the printed reply, whose request bore 01."""

STATUS_COMMAND = 0x01
STATUS_SUB_COMMAND = 0x0000

_DEVICE_ID = rb"[0-9A-Za-z]{1,40}"
_BASE64 = rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_HEAD = rb'<\?xml version="1\.0"\?>'
_REPLY = re.compile(
    _HEAD + rb"<REP><DEVID>(" + _DEVICE_ID + rb")</DEVID>(?:<CMD>([^<>]*)</CMD>)?</REP>", re.ASCII
)
_STATUS_QUERY = re.compile(
    rb"\x02" + _HEAD + rb"<REQ><DEVID>(" + _DEVICE_ID + rb")</DEVID><CMD>([A-Za-z0-9+/]{6}==)</CMD></REQ>"
    rb"[0-9A-F]{4}\x03"
)
_DATA = re.compile(_BASE64)

_DONE = 0x00
_RESULTS = {
    0x11: "command not known",
    0x12: "cannot be executed now",
    0x13: "message too short",
    0x14: "message too long",
    0x15: "parameter out of range",
}
_VTBI_INFINITE = 0xFFFFFF
_VTBI_NOT_USED = 0xEEEEEE
_WEIGHT_NOT_USED = 0xFFFF
_DILUTION_NOT_USED = 0x000000

SYRINGE_ML = {0: None, 2: 5.0, 3: 10.0, 4: 20.0, 5: 30.0, 6: 50.0}
"""Size of the fitted syringe, mL, by its code: 0 is none, 6 is 50 or 60 mL."""
DOSE_UNITS = {0x00: "mL/h", 0x04: "ug/kg/min", 0x08: "mg/kg/h"}


class Operation(IntEnum):
    """What the pump does: the upper half of byte 7."""

    STOP = 0
    START = 1
    STANDBY = 2
    PURGE = 3
    HANDS_ON_BOLUS = 4
    HANDS_FREE_BOLUS = 5


class AlarmBit(IntEnum):
    """Bits of the alarm field of syringe pumps, counted from the lowest; 9 to 12 and 14 are reserved."""

    SHUTDOWN_NOTICE = 0
    LINK_INTERRUPTION = 1
    COMPLETION = 2
    OCCLUSION = 3
    SYRINGE_DISPLACED = 4
    PLUNGER_DISPLACED = 5
    SLIDER_DISPLACED = 6
    SYRINGE_BARREL = 7
    NEARLY_EMPTY = 8
    POWER_FAILURE = 13
    MAINS_DETECTOR = 15
    NO_FLOW_RATE = 16
    FLOW_RATE_VTBI_CHECK = 17
    NO_VTBI = 18
    BATTERY = 19
    START_REMINDER = 20
    PRESSURE = 21
    MAINTENANCE_TIMER = 22
    BATTERY_REPLACEMENT = 23


class DeviceId(Struct, frozen=True, kw_only=True):
    """A reply without a command: who the pump is."""

    device_id: str


class Refused(Struct, frozen=True, kw_only=True):
    """A reply with a result other than "done"."""

    device_id: str
    sequence: int
    command: int
    sub_command: int
    result: int

    @property
    def words(self) -> str:
        """What the result means."""
        return _RESULTS.get(self.result, "a result that we do not know")


class Status(Struct, frozen=True, kw_only=True):
    """Basic operating status.

    ``None`` is a field that the reply is too short for, that the pump says it does not use, or whose value we
    do not know; ``not_understood`` tells the first and the last.
    """

    device_id: str
    sequence: int
    byte_count: int
    """Of the whole decoded reply."""
    software: int | None = None
    operation: Operation | None = None
    alarms: frozenset[AlarmBit] | None = None
    """Those that are on; reserved bits are left out."""
    battery_bars: int | None = None
    """1 to 5."""
    on_mains: bool | None = None
    sub_battery_normal: bool | None = None
    occlusion_percent: int | None = None
    """Of the set occlusion limit: 0, 25, 50 or 75."""
    alarm_sounds: bool | None = None
    keypad_locked: bool | None = None
    plunger_not_set: bool | None = None
    syringe_ml: float | None = None
    set_rate_ml_h: float | None = None
    volume_ml: float | None = None
    vtbi_ml: float | None = None
    vtbi_infinite: bool = False
    dose: float | None = None
    """In ``dose_unit``."""
    dose_unit: str | None = None
    weight_kg: float | None = None
    dilution: float | None = None
    not_understood: tuple[str, ...] = ()


Reply = DeviceId | Refused | Status


class Unreadable(Struct, frozen=True, kw_only=True):
    """A frame that is no reply: damaged on the way (garbled), or intact and unknown to us (unsupported)."""

    kind: FaultKind
    detail: str


def stream() -> MarkedStream:
    """A fresh cutter for this protocol. Nothing is known to stand between two frames."""
    return MarkedStream(start=b"\x02", end=b"\x03", abort=b"", filler=b"", limit_bytes=FRAME_LIMIT_BYTES)


def crc(text: bytes) -> int:
    """The check of one packet text: ``binascii.crc_hqx`` is this CRC with a free start value."""
    return binascii.crc_hqx(text, 0x0000)


def _framed(text: bytes) -> bytes:
    return b"\x02%s%04X\x03" % (text, crc(text))


DEVICE_ID_QUERY = _framed(b'<?xml version="1.0"?><REQ><DEVID></DEVID></REQ>')
"""Who are you? Asked of whoever is there."""


def encode_status_query(device_id: str, sequence: int) -> bytes:
    """The frame that asks this pump for its status.

    Raises ValueError for a number that is not ours to use, and for what cannot be a device ID.
    """
    if not FIRST_SEQUENCE <= sequence <= LAST_SEQUENCE:
        raise ValueError(f"sequence {sequence} is not between {FIRST_SEQUENCE} and {LAST_SEQUENCE}")
    name = device_id.encode("utf-8", "replace")
    if re.fullmatch(_DEVICE_ID, name) is None:
        raise ValueError(f"{device_id[:40]!r} is no device ID")
    block = bytes((sequence, STATUS_COMMAND)) + STATUS_SUB_COMMAND.to_bytes(2, "big")
    command = binascii.b2a_base64(block, newline=False)
    return _framed(
        b'<?xml version="1.0"?><REQ><DEVID>%s</DEVID><CMD>%s</CMD></REQ>' % (name, command),
    )


def is_query(data: bytes) -> bool:
    """Whether ``data`` is exactly one of the two queries, whole and alone."""
    if data == DEVICE_ID_QUERY:
        return True
    asked = _STATUS_QUERY.fullmatch(data)
    if asked is None:
        return False
    sequence = binascii.a2b_base64(asked[2])[0]
    # Written anew and compared: so neither command, sub command, number nor CRC can be another.
    return (
        FIRST_SEQUENCE <= sequence <= LAST_SEQUENCE
        and encode_status_query(asked[1].decode("ascii"), sequence) == data
    )


def decode(frame: bytes) -> Reply | Unreadable:
    """What the pump says in one frame, from STX to ETX. Never raises, whatever the bytes."""
    text, check = frame[1:-5], frame[-5:-1]
    # Compared as text: a lower-case CRC was never seen and is taken for damage.
    if check != b"%04X" % crc(text):
        return Unreadable(kind=FaultKind.GARBLED, detail="the CRC does not fit")
    packet = _REPLY.fullmatch(text)
    if packet is None:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail="not a reply in the form that we know")
    device_id = packet[1].decode("ascii")
    if packet[2] is None:
        return DeviceId(device_id=device_id)
    if _DATA.fullmatch(packet[2]) is None:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail="the command block is not Base64")
    return _command_block(device_id, binascii.a2b_base64(packet[2]))


def _command_block(device_id: str, block: bytes) -> Reply | Unreadable:
    if len(block) < 5:
        detail = f"a command block of {len(block)} bytes; a reply has 5 or more"
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=detail)
    sequence, command, sub_command, result = block[0], block[1], int.from_bytes(block[2:4], "big"), block[4]
    if result != _DONE:
        return Refused(
            device_id=device_id, sequence=sequence, command=command, sub_command=sub_command, result=result
        )
    if (command, sub_command) != (STATUS_COMMAND, STATUS_SUB_COMMAND):
        detail = f"a reply to command {command:02X} {sub_command:04X}, which we do not know"
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=detail)
    return _status(device_id, block)


def _status(device_id: str, block: bytes) -> Status:
    """The fields by their offset; 0 is the sequence number.

    ======  ====  ===========================================================================================
    offset  size  content
    ======  ====  ===========================================================================================
    5       2     software version
    7       1     upper half: ``Operation``; lower half reserved
    8       2     reserved
    10      3     ``AlarmBit``
    13      1     bits 0-3 battery bars; 4-5 power: 0 battery, 1 mains; 6-7 sub-battery: 1 normal, 2 abnormal
    14      1     bits 0-1 occlusion monitor in steps of 25 %; 3 alarm sounds; 4 keypad locked;
                  5 plunger not set; 2, 6 and 7 reserved (6 is set in a printed reply)
    15      1     syringe
    16      3     set flow rate x 100, mL/h
    19      3     volume delivered x 100, mL
    22      3     VTBI x 10, mL; FFFFFF infinite, EEEEEE not used
    25      3     dosage x 100
    28      1     unit of the dosage
    29      2     weight x 10, kg; FFFF not used
    31      3     dilution x 100; 000000 not used
    34            not described; reserved data must not be interpreted
    ======  ====  ===========================================================================================
    """
    not_understood: list[str] = []

    def number(offset: int, size: int) -> int | None:
        return int.from_bytes(block[offset : offset + size], "big") if len(block) >= offset + size else None

    def scaled(offset: int, size: int, parts: int, *, not_a_value: tuple[int, ...] = ()) -> float | None:
        value = number(offset, size)
        return None if value is None or value in not_a_value else value / parts

    if len(block) < 34:
        not_understood.append(f"the reply has {len(block)} bytes, and 34 are known")

    state, power, monitor, syringe, unit = (number(offset, 1) for offset in (7, 13, 14, 15, 28))
    operation = sub_battery_normal = on_mains = battery_bars = syringe_ml = dose_unit = None
    if state is not None:
        operation = {int(known): known for known in Operation}.get(state >> 4)
        if operation is None:
            not_understood.append(f"state {state >> 4} is reserved")
    if power is not None:
        on_mains = {0: False, 1: True}.get(power >> 4 & 0b11)
        if on_mains is None:
            not_understood.append(f"power {power >> 4 & 0b11} is not known")
        battery_bars = power & 0b1111 if 1 <= power & 0b1111 <= 5 else None
        sub_battery_normal = {1: True, 2: False}.get(power >> 6)
    if syringe is not None:
        syringe_ml = SYRINGE_ML.get(syringe)
    if unit is not None:
        dose_unit = DOSE_UNITS.get(unit)

    alarm_field = number(10, 3)
    alarms = (
        None if alarm_field is None else frozenset(alarm for alarm in AlarmBit if alarm_field >> alarm & 1)
    )
    return Status(
        device_id=device_id,
        sequence=block[0],
        byte_count=len(block),
        software=number(5, 2),
        operation=operation,
        alarms=alarms,
        battery_bars=battery_bars,
        on_mains=on_mains,
        sub_battery_normal=sub_battery_normal,
        occlusion_percent=None if monitor is None else 25 * (monitor & 0b11),
        alarm_sounds=None if monitor is None else bool(monitor & 1 << 3),
        keypad_locked=None if monitor is None else bool(monitor & 1 << 4),
        plunger_not_set=None if monitor is None else bool(monitor & 1 << 5),
        syringe_ml=syringe_ml,
        set_rate_ml_h=scaled(16, 3, 100),
        volume_ml=scaled(19, 3, 100),
        vtbi_ml=scaled(22, 3, 10, not_a_value=(_VTBI_INFINITE, _VTBI_NOT_USED)),
        vtbi_infinite=number(22, 3) == _VTBI_INFINITE,
        dose=scaled(25, 3, 100),
        dose_unit=dose_unit,
        weight_kg=scaled(29, 2, 10, not_a_value=(_WEIGHT_NOT_USED,)),
        dilution=scaled(31, 3, 100, not_a_value=(_DILUTION_NOT_USED,)),
        not_understood=tuple(not_understood),
    )
