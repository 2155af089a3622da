"""Tells systemd how the gateway is: started, alive, stopping, and one line for people.

The protocol is one datagram of ``NAME=value`` to the socket that systemd names in the environment variable
``NOTIFY_SOCKET`` (manual page sd_notify(3)): a path, or an abstract address written with ``@`` for its
leading null byte. Without the variable the gateway was started by hand, and nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


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
        """The loop has come round once more; restarts the unit's ``WatchdogSec``."""
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
