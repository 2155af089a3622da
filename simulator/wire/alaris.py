"""The Alaris (Asena) syringe pump's side of its ASCII protocol, from the protocol facts alone.

A frame::

    !  body  |  CRC  CR         body: a command and its fields, joined by ^
                                CRC:  of the body, four upper-case hexadecimal digits, CRC-16/CCITT-FALSE

Whoever asks is answered; nobody is told anything unasked. On a bad CRC, on an unknown command, and on a
command that the facts know no answer to, this pump is silent, for no source knows its error replies.

What it does *not* do: commands that would change a real pump (``INF_START``, ``INF_STOP``, ``INF_VI_CLEAR``,
``INF_RATE^value``, ...) are acknowledged by echo, as on the wire, and have no effect on the delivery, nor on
the counter: the delivery is the scenario's. Remote control may be switched on and off with the right code;
that too changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simulator.pump import Truth
from simulator.wire.wire import Address, Answer, LineSettings, OnlyWhenAsked, Pumps, WireFamily

PROTOCOL = b"Asena Rev 2.1.5"
RESPONSE_MAX = b"4000^ms"
SYRINGE = b"BD PLASTIPAK^ 50^CONF"
RATE_MAX = b"1200.00^ml/h"
LONGEST_FRAME = 256
"""Far above the longest known body; more without an end is not a frame."""
FIRST_LOG_ENTRY = 127_904
"""Where this pump's log stood when the scenario began (as in a recorded frame)."""
DAY_S = 86_400

ALARM_CODES = {
    "occlusion_downstream": b"AL_OCCLU",
    "empty": b"AL_EOIST",
    "battery_empty": b"AL_EMBAT",
    "malfunction": b"AL_FAULT",
    "air_in_line": b"AL_FAULT",  # a syringe pump has no eye for air: whatever stops it is a fault to it
    "door_open": b"AL_SYRCO",
    "cassette": b"AL_SYRCO",
    "occlusion_upstream": b"AL_DRDIS",  # nothing lies before a syringe: a drive that moves nothing
    "near_empty": b"AL_NEOIN",
    "low_battery": b"AL_LWBAT",
}
"""The pump's code for each alarm; of several the first in this order is told."""

ECHOED = (
    b"INF_START",
    b"INF_STOP",
    b"INF_RATE",
    b"INF_VTBI",
    b"INF_BOLUS",
    b"INF_VI_CLEAR",
    b"INF_CAP_RATE",
    b"INF_BOLUS_CAP_RATE",
    b"INF_PURGE_RATE",
)
"""Commands that would change a real pump; here they are echoed and change nothing."""


def _table_row(high_byte: int) -> int:
    value = high_byte << 8
    for _ in range(8):
        value = (value << 1) ^ 0x1021 if value & 0x8000 else value << 1
    return value & 0xFFFF


_CRC_TABLE = tuple(_table_row(high_byte) for high_byte in range(256))


def crc_digits(body: bytes) -> bytes:
    """CRC-16/CCITT-FALSE of the body as the wire writes it: four upper-case digits, zero padded."""
    crc = 0xFFFF
    for byte in body:
        crc = ((crc << 8) & 0xFFFF) ^ _CRC_TABLE[(crc >> 8) ^ byte]
    return b"%04X" % crc


def frame(body: bytes) -> bytes:
    """The body as it goes over the wire."""
    return b"!" + body + b"|" + crc_digits(body) + b"\r"


class AlarisWire(OnlyWhenAsked):
    """One client's conversation with an Alaris pump."""

    thinking_ms = 15

    def __init__(self, serial_numbers: Mapping[Address, str]) -> None:
        [serial_number] = serial_numbers.values()
        self._serial = serial_number.encode("ascii", "replace")
        self._body: bytearray | None = None

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """See ``Wire.receive``."""
        truth = pumps.truth(None)
        answers = []
        for byte in data:
            if byte == ord("!"):
                self._body = bytearray()
            elif byte == ord("\r") and self._body is not None:
                answers.append(self._answer(bytes(self._body), truth))
                self._body = None
            elif self._body is not None:
                self._body.append(byte)
                if len(self._body) > LONGEST_FRAME:
                    self._body = None
        return answers

    def _answer(self, frame_body: bytes, truth: Truth) -> Answer:
        body, bar, crc = frame_body.rpartition(b"|")
        if not bar or crc != crc_digits(body):
            return Answer(frame_body, b"")
        reply = self._reply(body, truth)
        return Answer(body, frame(reply) if reply else b"")

    def _reply(self, body: bytes, truth: Truth) -> bytes:
        """The body of the reply; empty where the pump is silent."""
        name, *fields = body.split(b"^")
        if not fields and name in _QUERIES:
            return name + b"^" + _QUERIES[name](truth, self._serial)
        if name in (b"REMOTE_CTRL", b"REMOTE_CFG"):
            return self._remote(name, fields)
        if body == b"REMQUERY^DEACT":
            return body + b"^^^^"
        if name in ECHOED and (fields or name in (b"INF_START", b"INF_STOP", b"INF_VI_CLEAR")):
            return body
        return b""

    def _remote(self, name: bytes, fields: list[bytes]) -> bytes:
        """Remote control on (with the code: the CRC of the serial number) or off; the code is hidden."""
        if fields == [b"ENABLED", crc_digits(self._serial)] or fields[:1] == [b"DISABLED"]:
            return name + b"^" + fields[0] + b"^****^PERMIT^0^ms"
        return b""


def _summary(truth: Truth, serial: bytes) -> bytes:
    """The fields of INF. SET: delivering, or ready at rate 0; HLD: on hold."""
    on_hold = truth.state in ("paused", "alarm")
    return b"^".join(
        (
            serial,
            b"A" if _alarm_code(truth) else b"-",
            b"HLD" if on_hold else b"SET",
            b"%.2f" % truth.rate_ml_h,
            b"ml/h",
            b"",
            b"%.3f" % truth.counter_ml,
            b"ml",
            b"%.2f" % truth.pressure_mmhg,
            b"mmHg",
            _time_left(truth.remaining_s),
            b"EVENT",
            b"%d" % (FIRST_LOG_ENTRY + truth.log_entries),
        )
    )


def _time_left(remaining_s: int) -> bytes:
    if remaining_s >= DAY_S:
        return b"24+"
    return b"%02d:%02d:%02d" % (remaining_s // 3600, remaining_s // 60 % 60, remaining_s % 60)


def _alarm_code(truth: Truth) -> bytes:
    """The code of the gravest alarm that is on; empty if there is none."""
    return next((code for alarm, code in ALARM_CODES.items() if alarm in truth.alarms), b"")


def _vtbi(truth: Truth, _serial: bytes) -> bytes:
    if truth.vtbi_ml <= 0:
        return b"DEACT^^ml^STOP"
    return b"ACTIV^%.3f^ml^STOP" % truth.vtbi_ml


_QUERIES: dict[bytes, Callable[[Truth, bytes], bytes]] = {
    b"INST_SERIALNO": lambda _truth, serial: serial,
    b"COMMS_PROTOCOL": lambda _truth, _serial: PROTOCOL,
    b"COMMS_RESPONSE_MAX": lambda _truth, _serial: RESPONSE_MAX,
    b"INF": _summary,
    b"INF_RATE": lambda truth, _serial: b"%.2f^ml/h" % truth.rate_ml_h,
    b"INF_VI": lambda truth, _serial: b"%.3f^ml" % truth.counter_ml,
    b"INF_VTBI": _vtbi,
    b"ALARM": lambda truth, _serial: (_alarm_code(truth) or b"AL_NOALM") + b"^ ^ ",
    b"SYRINGE_STATUS": lambda _truth, _serial: SYRINGE,
    b"INF_RATE_MAX_SYRINGE": lambda _truth, _serial: RATE_MAX,
}
"""What a client may ask without changing anything, and the fields of the answer."""

FAMILY = WireFamily(line=LineSettings(baud=38_400), open_wire=AlarisWire)
"""RS-232, 8 data bits, no parity, one stop bit; one pump at a port."""
