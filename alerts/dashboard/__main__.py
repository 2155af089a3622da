"""``python -m alerts.dashboard --config FILE``: the nurse dashboard as a process. 0 on SIGTERM."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from alerts import wire
from alerts.dashboard.app import Audience, make_app
from alerts.dashboard.clock import Clock
from alerts.dashboard.config import DashboardConfig, parse_dashboard_config
from alerts.dashboard.desk import Desk, Trace
from alerts.dashboard.store import Store, StoreUnusable
from alerts.mqtt import MqttClient
from alerts.strict import ConfigError

SESSION_EXPIRY_S = 7 * 24 * 3600
"""How long the broker keeps for us what comes while we are away (mqtt page, "Rules for the broker")."""
USERNAME = "dashboard"

log = logging.getLogger("dripwatch.dashboard")


class CannotStart(Exception):
    """A sentence for the person who has started it."""


def main() -> int:
    """Runs the dashboard until SIGTERM or Ctrl-C: 0; 1 with a sentence if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="dripwatch dashboard",
        description="The nurse dashboard: a page with all open alerts and all pumps.",
    )
    parser.add_argument("--config", required=True, type=Path, help="dashboard.toml")
    parser.add_argument("--trace", action="store_true", help="print milestones as lines of JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="dashboard: %(message)s", stream=sys.stderr)
    try:
        return _serve(arguments.config, arguments.trace)
    except (CannotStart, ConfigError, StoreUnusable) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _configured(path: Path) -> DashboardConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"{path}: cannot be read ({error}); name a dashboard.toml with --config") from error
    return parse_dashboard_config(text, path.absolute().parent, source=str(path))


def _serve(config_file: Path, is_traced: bool) -> int:
    config = _configured(config_file)
    clock = Clock()
    trace = _tracer(clock) if is_traced else _silent
    listener = _listener(config, config_file)
    store = Store(config.store_url)
    audience = Audience(clock)
    desk = Desk(
        collector_name=config.mqtt.collector,
        store=store,
        clock=clock,
        watcher=audience.watcher,
        changed=audience.changed,
        trace=trace,
    )
    client = MqttClient(
        config.mqtt,
        client_id=f"dw-dashboard-{config.mqtt.collector}",
        username=USERNAME,
        will=None,
        subscriptions=((wire.up("+", "#"), 1),),
        session_expiry_s=SESSION_EXPIRY_S,
        deliver=desk.deliver,
    )
    desk.connect(client)
    app = make_app(
        desk=desk,
        store=store,
        clock=clock,
        audience=audience,
        site=config.site,
        is_secure=config.web.tls_cert_file is not None,
        trace=trace,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
            limit_concurrency=256,
            ssl_certfile=config.web.tls_cert_file,
            ssl_keyfile=config.web.tls_key_file,
        )
    )
    broken = threading.Event()

    def stop(_signal: int = 0, _frame: object = None) -> None:
        server.should_exit = True
        audience.close()

    def broke(arguments: threading.ExceptHookArgs) -> None:
        # Pages that nobody brings up to date any more are worse than none.
        log.error("a thread broke, so the dashboard ends", exc_info=arguments.exc_value)
        broken.set()
        stop()

    threading.excepthook = broke
    desk_thread = threading.Thread(target=desk.run, args=(lambda: server.should_exit,), name="desk")

    # uvicorn raises the signal again when it has ended; this makes that a clean end.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    desk_thread.start()
    client.start()
    port = listener.getsockname()[1]
    sys.stderr.write(f"Nurse dashboard: {config.address_at(port)}\n")
    sys.stderr.flush()
    try:
        server.run(sockets=[listener])
    finally:
        server.should_exit = True
        client.stop(None)
        desk_thread.join()
        store.close()
    return 1 if broken.is_set() else 0


def _listener(config: DashboardConfig, config_file: Path) -> socket.socket:
    """Bound before anything else is opened, so that a taken port is told in a sentence."""
    try:
        return socket.create_server(
            (config.web.host, config.web.port),
            family=socket.AF_INET6 if ":" in config.web.host else socket.AF_INET,
        )
    except OSError as error:
        raise CannotStart(
            f"{config_file}: web.port: {config.web.host} port {config.web.port} cannot be used "
            f"({error.strerror}); choose another port, or stop what listens there."
        ) from error


def _tracer(clock: Clock) -> Trace:
    lock = threading.Lock()

    def trace(step: str, **fields: object) -> None:
        line = json.dumps({"step": step, "time": wire.iso_utc(clock.utc_ms()), **fields})
        with lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    return trace


def _silent(step: str, **fields: object) -> None:
    """No milestones were asked for."""


if __name__ == "__main__":
    sys.exit(main())
