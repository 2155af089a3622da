"""Tells systemd how the gateway is: started, alive, stopping, and one line for people.

The protocol is one datagram of ``NAME=value`` to the socket that systemd names in the environment variable
``NOTIFY_SOCKET`` (manual page sd_notify(3)): a path, or an abstract address written with ``@`` for its
leading null byte. Without the variable the gateway was started by hand, and nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

ROUND_TAKES_S = 15.0
"""So long a thread may take to come round before it counts as stuck: longer than any wait of its own."""


class Pulses:
    """Which threads come round. Each says so itself; a thread that stands still says nothing.

    Going round is progress, whatever comes of it: a pump that is unplugged, a broker that is away or a card
    that refuses is no reason to start the gateway anew.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[object, float]] = {}
        self._seen: dict[str, tuple[object, int]] = {}

    def beat(self, part: str, within_s: float = ROUND_TAKES_S) -> None:
        """This part has come round, and will again within so many seconds. From any thread."""
        self._said[part] = (object(), within_s)

    def late(self, now_ms: int) -> list[str]:
        """Parts that should have come round by now. For one thread only, which asks again and again."""
        late: list[str] = []
        for part, (beat, within_s) in list(self._said.items()):
            seen, since_ms = self._seen.get(part, (None, now_ms))
            if seen is not beat:
                self._seen[part] = (beat, now_ms)
            elif now_ms - since_ms > within_s * 1_000:
                late.append(part)
        return late


class Watchdog:
    """The gateway's voice towards systemd. No method blocks or raises.

    A datagram that cannot be delivered is dropped: systemd's own timer notices that we are silent, and the
    watch over the pump must not stop because of its supervisor.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """The configuration is read and the loop runs; ``systemctl start`` returns now."""
        self._tell("READY=1")

    def alive(self) -> None:
        """All parts have come round once more; restarts the unit's ``WatchdogSec``."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The gateway ends because it was asked to."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line that ``systemctl status`` shows to people."""
        self._tell("STATUS=" + " ".join(text.split()))

    def _tell(self, assignment: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(assignment.encode(), self._address)
        except OSError:
            return
