"""The composition: the only place where real parts are chosen, and the command ``dripwatch run``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import secrets
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import msgspec

from alerts import wire
from alerts.mqtt import BrokerEvent, MqttClient
from alerts.strict import ConfigError, Problem
from drivers import families
from gateway.clock import SystemClock, boottime_ms
from gateway.config import Config, PanelConfig, PumpConfig, parse_config
from gateway.core.order import OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.engine import Engine, EngineSetup, KeptUnreadable
from gateway.intended_use import SHORT
from gateway.orders import in_words
from gateway.pump import PumpSetup
from gateway.run import Gateway, Observer, PanelParts, Performer
from gateway.store import Restored, Store, StoreFailed, StoreRefused
from gateway.trace import Tracer
from gateway.watchdog import Watchdog

DATABASE = "dripwatch.sqlite"
SESSION_EXPIRY_S = 7 * 24 * 3600

_INSTALL = "install it with: pip install 'dripwatch[history]'"

log = logging.getLogger("dripwatch")


def main(arguments: Sequence[str]) -> int:
    """``dripwatch run``: 0 on SIGTERM, 1 if it cannot begin, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog="dripwatch run",
        description="Watch the pumps of one home, and tell its nursing team what is not as prescribed.",
        epilog=SHORT,
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="gateway.toml")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="print a line of JSON on standard output for each milestone of an alert",
    )
    parser.add_argument(
        "--panel-off",
        action="store_true",
        help="only switch the panel's lamps and buzzer off: for systemd, when the gateway has been killed",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    print(SHORT, file=sys.stderr)  # noqa: T201
    try:
        config = read_config(options.config)
        if options.panel_off:
            panel = open_panel(config.panel) if config.panel is not None else None
            if panel is not None:
                panel.close()
            return 0
        gateway = compose(config, observers=(print_milestones(),) if options.trace else ())
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s: %s", options.config, problem)
        return 1
    except StoreFailed as error:
        log.error("%s", error)
        return 1
    gateway.run()
    return 0


def read_config(file: Path) -> Config:
    """Read gateway.toml. Raises ConfigError with a sentence for each problem."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError((Problem(key="", message=f"cannot be read ({error.strerror})"),)) from None
    except UnicodeDecodeError:
        raise ConfigError((Problem(key="", message="is not UTF-8 text"),)) from None
    return parse_config(text, file.absolute().parent)


def compose(
    config: Config,
    *,
    observers: Sequence[Observer] = (),
    performer: Callable[[Performer], Performer] = lambda real: real,
) -> Gateway:
    """The gateway of real parts that this configuration describes. Raises StoreFailed."""
    # Before all else: whatever the lamps show is of an earlier start.
    panel = open_panel(config.panel) if config.panel is not None else None
    history = config.history
    if history is not None and find_spec("influxdb_client") is None:
        log.error("[history]: influxdb-client is not installed, so nothing is written there; %s", _INSTALL)
        history = None
    clock = SystemClock(always_synced=config.clock_trusted)
    store, restored = _store(config.state_dir / DATABASE)
    setup = EngineSetup(
        home=config.home,
        version=metadata.version("dripwatch"),
        pumps=tuple(_pump_setup(pump) for pump in config.pumps),
        families={pump.port: families.find(pump.family) for pump in config.pumps},
        collector=config.mqtt.collector if config.mqtt else "",
        mqtt=config.mqtt is not None,
        mqtt_version=config.mqtt.version if config.mqtt else 5,
        history=history is not None,
        boot=f"b-{secrets.token_hex(4)}",
        panel=panel is not None,
    )
    try:
        engine = _engine(setup, restored)
    except KeptUnreadable as error:
        log.error("%s: what is kept there cannot be read (%s); it is set aside", store.path, error)
        engine = _engine(setup, store.restore_anew())
    lines = {
        pump.port: msgspec.structs.replace(
            setup.families[pump.port].line, baud=pump.baud or setup.families[pump.port].line.baud
        )
        for pump in config.pumps
    }

    def broker(deliver: Callable[[BrokerEvent], None]) -> MqttClient:
        assert config.mqtt is not None
        return MqttClient(
            config.mqtt,
            client_id=f"dw-{config.home}",
            username=config.home,
            will=lambda: engine.last_will(clock.moment()),
            subscriptions=((wire.down(config.home, "#"), 1),),
            session_expiry_s=SESSION_EXPIRY_S,
            deliver=deliver,
        )

    return Gateway(
        engine,
        clock=clock,
        store=store,
        lines=lines,
        broker=broker if config.mqtt is not None else None,
        watchdog=Watchdog(),
        certificate=Path(config.mqtt.cert_file) if config.mqtt and config.mqtt.cert_file else None,
        history=history,
        panel=panel,
        observers=observers,
        performer=performer,
    )


def open_panel(pins: PanelConfig) -> PanelParts | None:
    """The panel on these pins, all dark; ``None``, and the reason in the log, where there are none."""
    try:
        # Only a home that has a panel needs what drives it.
        from alerts.gpio import GpioPanel, NoPanel
    except ImportError as error:
        log.error("[panel] is set, but the gateway goes on without: pip install 'dripwatch[pi]' (%s)", error)
        return None
    try:
        return GpioPanel(
            green=pins.green,
            yellow=pins.yellow,
            red=pins.red,
            buzzer=pins.buzzer,
            button=pins.button,
            now_ms=boottime_ms,
        )
    except NoPanel as error:
        log.error("[panel] is set, but the gateway goes on without: %s", error)
        return None


def _store(path: Path) -> tuple[Store, Restored]:
    """The database of this gateway and what it holds; in memory if its card has failed since it was made.

    A card that has become read-only, or is full, is no reason not to watch. Raises StoreFailed where nothing
    was made yet (then it is the configuration that is wrong), and StoreRefused.
    """
    try:
        store = Store(path)
        return store, store.restore()
    except StoreRefused:
        raise
    except StoreFailed as error:
        if not path.exists():
            raise
        log.error("%s; the gateway goes on without its card", error)
        store = Store(None)
        return store, store.restore()


def _engine(setup: EngineSetup, restored: Restored) -> Engine:
    return Engine(
        setup,
        store=restored.store,
        alerts=restored.alerts,
        lanes=restored.lanes,
        kept=restored.kept,
        set_aside=restored.set_aside,
        without_card=restored.without_card,
    )


def print_milestones() -> Observer:
    """An observer that prints each milestone on standard output."""
    tracer = Tracer()

    def observe(happened: object, effects: object) -> None:
        for milestone in tracer.observe(happened, effects):  # type: ignore[arg-type]
            print(msgspec.json.encode(milestone).decode(), flush=True)  # noqa: T201

    return observe


def _pump_setup(pump: PumpConfig) -> PumpSetup:
    text = _prescription_text(pump)
    prescription = _prescription(pump, text)
    return PumpSetup(
        pump=pump.pump,
        port=pump.port,
        address=pump.address,
        poll_ms=pump.poll_ms,
        origin=pump.origin,
        driver_status=families.find(pump.family).traits.status,
        serial_number=pump.serial_number,
        prescription=prescription,
        prescription_text=text if prescription else None,
        prescription_sha256=hashlib.sha256(text.encode()).hexdigest() if prescription and text else None,
    )


def _prescription_text(pump: PumpConfig) -> str | None:
    file = pump.prescription_file
    if file is None:
        log.warning("pump %s has no prescription: only what it says itself is watched", pump.pump)
        return None
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        log.error("%s: cannot be read (%s); pump %s is watched without it", file, error.strerror, pump.pump)
    except UnicodeDecodeError:
        log.error("%s: is not UTF-8 text; pump %s is watched without it", file, pump.pump)
    return None


def _prescription(pump: PumpConfig, text: str | None) -> Prescription | None:
    if text is None:
        return None
    try:
        return parse_order(text)
    except OrderError as error:
        log.error("%s: %s", pump.prescription_file, in_words(error, text))
        log.error("pump %s is watched without a prescription until its file is mended", pump.pump)
        return None
