"""gateway.toml: text to a frozen ``Config``; every error names its key (gateway page).

Nothing here opens a port or asks a broker; files that are named are only turned into absolute paths. Places
in a list are counted from 1: ``pump[1]`` is the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from alerts.mqtt import MqttConfig
from alerts.strict import ConfigError, Problem, read_toml
from drivers import families
from drivers.family import PumpOnLine
from drivers.reading import DriverStatus
from gateway.core.quantity import duration_ms

CONFIG_BYTES_MAX = 64 * 1024
_TOKEN = re.compile(r"[a-z0-9-]{1,32}")
_POLL_MIN_MS = 1_000
_POLL_MAX_MS = 60_000
Refuse = Callable[[str, str], None]
"""Notes a problem: (key, what is wrong and what to do)."""

__all__ = ["Config", "ConfigError", "HistoryConfig", "PanelConfig", "PumpConfig", "parse_config"]


Pin = Annotated[int, Meta(ge=0, le=27)]
"""BCM number of a pin of the Raspberry Pi's header."""


class HistoryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the history goes: a server with the InfluxDB 2 API."""

    url: str
    org: str
    bucket: str
    token_file: str

    def __post_init__(self) -> None:
        if not re.fullmatch("https?://[^/?#@ ]+[^?#@ ]*", self.url):
            raise ValueError(
                f"{self.url!r} is no address of a server; write it as https://influx.example.org"
            )


class PanelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """BCM numbers of the pins of the caregiver's panel."""

    green: Pin
    yellow: Pin
    red: Pin
    buzzer: Pin
    button: Pin

    def __post_init__(self) -> None:
        if len({self.green, self.yellow, self.red, self.buzzer, self.button}) < 5:
            raise ValueError("two parts are given the same pin; each needs its own")


class _PumpTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    family: str
    port: str
    baud: int | None = None
    address: int | None = None
    serial_number: str | None = None
    origin: Literal["real", "test", "demo"] = "real"
    prescription: str | None = None
    poll: str = "5s"
    allow_bench: bool = False


class _GatewayFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["dripwatch-gateway/1"]
    home: str
    state_dir: str
    mqtt: MqttConfig | None = None
    pump: tuple[_PumpTable, ...] = ()
    history: HistoryConfig | None = None
    panel: PanelConfig | None = None
    clock_trusted: bool = False


class PumpConfig(Struct, frozen=True, kw_only=True):
    """One pump of this home."""

    pump: str
    family: str
    port: str
    baud: int | None
    address: int | None
    serial_number: str | None
    origin: str
    prescription_file: Path | None
    poll_ms: int


class Config(Struct, frozen=True, kw_only=True):
    """What the gateway was told to be. Paths are absolute."""

    home: str
    state_dir: Path
    mqtt: MqttConfig | None
    pumps: tuple[PumpConfig, ...]
    history: HistoryConfig | None
    panel: PanelConfig | None
    clock_trusted: bool
    """The wall clock counts as set although the system does not say so."""


def parse_config(text: str, base: Path) -> Config:
    """Read the text of a gateway.toml that stands in the folder ``base``.

    Raises ConfigError with every problem found.
    """
    if len(text.encode()) > CONFIG_BYTES_MAX:
        raise ConfigError((Problem(key="", message=f"is longer than {CONFIG_BYTES_MAX} bytes"),))
    written = read_toml(text, _GatewayFile, source="gateway.toml")
    problems: list[Problem] = []

    def refuse(key: str, message: str) -> None:
        problems.append(Problem(key=key, message=message))

    if not _TOKEN.fullmatch(written.home):
        refuse("home", f"{written.home!r} is not a pseudonym; use 1 to 32 of a-z, 0-9 and -")
    if not written.pump:
        refuse("pump", "there is none; add a [[pump]] table with id, family and port")
    pumps = tuple(
        _pump(table, f"pump[{index}]", base, refuse) for index, table in enumerate(written.pump, start=1)
    )
    _refuse_pumps_that_collide(pumps, refuse)
    if not problems:
        _refuse_lines_that_cannot_be(pumps, refuse)
    if problems:
        raise ConfigError(tuple(problems))
    return Config(
        home=written.home,
        state_dir=_under(base, written.state_dir),
        mqtt=_absolute_files(written.mqtt, base) if written.mqtt else None,
        pumps=pumps,
        history=msgspec.structs.replace(
            written.history, token_file=str(_under(base, written.history.token_file))
        )
        if written.history
        else None,
        panel=written.panel,
        clock_trusted=written.clock_trusted,
    )


def _pump(table: _PumpTable, key: str, base: Path, refuse: Refuse) -> PumpConfig:
    if not _TOKEN.fullmatch(table.id):
        refuse(f"{key}.id", f"{table.id!r} is not a token; use 1 to 32 of a-z, 0-9 and -")
    elif table.id == "gateway":
        refuse(
            f"{key}.id",
            "'gateway' is reserved for alerts about the gateway itself; choose another, as \"p1\"",
        )
    try:
        family = families.find(table.family)
    except ValueError as error:
        refuse(f"{key}.family", str(error))
    else:
        if family.traits.status is DriverStatus.BENCH and not table.allow_bench:
            refuse(
                f"{key}.family",
                f"{table.family!r} changes the pump when it is polled, so it is for the bench only;"
                " set allow_bench = true if no patient is connected",
            )
        if table.baud is not None and table.baud not in (family.line.baud, *family.line.bauds):
            possible = ", ".join(str(baud) for baud in (family.line.baud, *family.line.bauds))
            refuse(f"{key}.baud", f"{table.baud} is not possible with {table.family!r}; possible: {possible}")
        if table.serial_number is not None and "serial" not in family.traits.reports:
            refuse(
                f"{key}.serial_number",
                f"{table.family!r} pumps do not say their serial number, so another one would not be noticed;"
                " remove it",
            )
    if not table.port.strip():
        refuse(
            f"{key}.port", 'is empty; give a device, as "/dev/serial/by-id/usb-...", or socket://HOST:PORT'
        )
    if table.port.startswith(("capture:", "script:")):
        if table.origin == "real":
            refuse(f"{key}.origin", 'a capture or a script is never "real"; write origin = "test" or "demo"')
        scheme, _, name = table.port.partition(":")
        port = f"{scheme}:{_under(base, name)}"
    else:
        port = table.port
    poll_ms = _poll_ms(table.poll, key, refuse)
    return PumpConfig(
        pump=table.id,
        family=table.family,
        port=port,
        baud=table.baud,
        address=table.address,
        serial_number=table.serial_number,
        origin=table.origin,
        prescription_file=_under(base, table.prescription) if table.prescription else None,
        poll_ms=poll_ms,
    )


def _poll_ms(text: str, key: str, refuse: Refuse) -> int:
    try:
        poll_ms = duration_ms(text)
    except ValueError as error:
        refuse(f"{key}.poll", str(error))
        return _POLL_MIN_MS
    if not _POLL_MIN_MS <= poll_ms <= _POLL_MAX_MS:
        refuse(f"{key}.poll", f'{text!r} is not between 1s and 1min; "5s" is usual')
    return poll_ms


def _refuse_pumps_that_collide(pumps: tuple[PumpConfig, ...], refuse: Refuse) -> None:
    seen: dict[str, int] = {}
    ports: dict[tuple[str, int | None], int] = {}
    for index, pump in enumerate(pumps, start=1):
        if pump.pump in seen:
            refuse(
                f"pump[{index}].id",
                f"{pump.pump!r} is also the id of pump[{seen[pump.pump]}]; each needs its own",
            )
        seen.setdefault(pump.pump, index)
        place = (pump.port, pump.address)
        if place in ports:
            refuse(
                f"pump[{index}].port",
                f"{pump.port!r} is also the port of pump[{ports[place]}]; there each needs an address",
            )
        ports.setdefault(place, index)


def _refuse_lines_that_cannot_be(pumps: tuple[PumpConfig, ...], refuse: Refuse) -> None:
    """One line has one family and one speed, and the family must be able to have these pumps on it."""
    lines: dict[str, list[tuple[int, PumpConfig]]] = {}
    for index, pump in enumerate(pumps, start=1):
        lines.setdefault(pump.port, []).append((index, pump))
    for on_line in lines.values():
        (first, one), *others = on_line
        differences = [
            (f"pump[{index}].{name}", getattr(pump, name), getattr(one, name))
            for index, pump in others
            for name in ("family", "baud")
            if getattr(pump, name) != getattr(one, name)
        ]
        for key, here, there in differences:
            refuse(key, f"{here!r} differs from {there!r} of pump[{first}] on the same port; give one")
        if differences:
            continue
        expected = [PumpOnLine(pump=pump.pump, address=pump.address) for _, pump in on_line]
        try:
            families.find(one.family).open_session(expected)
        except ValueError as error:
            refuse(f"pump[{first}].port", str(error))


def _under(base: Path, name: str) -> Path:
    return (base / name).absolute()


def _absolute_files(mqtt: MqttConfig, base: Path) -> MqttConfig:
    files = {
        name: str(_under(base, value))
        for name in ("ca_file", "cert_file", "key_file", "password_file")
        if (value := getattr(mqtt, name)) is not None
    }
    return msgspec.structs.replace(mqtt, **files)
