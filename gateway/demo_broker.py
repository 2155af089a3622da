"""A broker for the demo on a machine without Mosquitto: amqtt, as a process of its own.

MQTT 3.1.1 only, keeps nothing, and lets anybody in: for loopback and for showing, never for a home.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from amqtt.broker import Broker


async def serve(port: int) -> None:
    """Serve on this loopback port until SIGTERM."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 50}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await broker.shutdown()


def main(arguments: Sequence[str]) -> int:
    """``python -m gateway.demo_broker PORT``: 0 on SIGTERM."""
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(int(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
