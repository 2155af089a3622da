"""The caregiver's panel on the pins of a Raspberry Pi, by gpiozero: three lamps, a buzzer, a button.

Imported only where ``[panel]`` is set. One thread plays what ``alerts/signal.py`` says, by the clock that it
is given. The buzzer is an active one (it sounds for as long as its pin is high): the burst is as
IEC 60601-1-8 has it, the tone of a piezo is not. The button connects its pin to ground.

All pins are low at the start, and at the end of the process however it ends, but for a ``kill -9``: then the
next start sets them, and systemd's ``ExecStopPost`` before it.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable

from gpiozero import DigitalInputDevice, DigitalOutputDevice, GPIOZeroError

from alerts.signal import Button, Levels, PanelSignal, Player, Press

LOOKS_EVERY_MS = 500
"""So often at least the thread looks whether it is to end."""
CLOSES_WITHIN_S = 1.0

log = logging.getLogger("dripwatch")


class NoPanel(Exception):
    """The pins cannot be had; the message is a sentence for a person."""


class GpioPanel:
    """The parts on their pins. ``show``, ``refresh`` and ``close`` may be called from any thread."""

    def __init__(
        self, *, green: int, yellow: int, red: int, buzzer: int, button: int, now_ms: Callable[[], int]
    ) -> None:
        """BCM numbers of the pins. Raises NoPanel. Everything is off then, until ``serve``."""
        self._now_ms = now_ms
        try:
            # The lamps first, together: a process that was killed may have left them lit.
            self._outputs = {
                name: DigitalOutputDevice(pin, initial_value=False)
                for name, pin in (("green", green), ("yellow", yellow), ("red", red), ("buzzer", buzzer))
            }
            self._contact = DigitalInputDevice(button, pull_up=True)
        except (GPIOZeroError, OSError, ImportError) as error:
            raise NoPanel(f"its pins cannot be had ({type(error).__name__}: {error})") from error
        now = now_ms()
        self._player = Player(now)
        self._button = Button(self._contact.is_active, now)
        self._newest = self._played = PanelSignal()
        self._refreshed_ms = now
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._ended = threading.Event()
        self._ended.set()
        self._contact.when_activated = self._contact.when_deactivated = self._woken.set
        atexit.register(self.close)

    def show(self, signal: PanelSignal) -> None:
        """From now on this signal; the newest wins."""
        self._newest = signal
        self._woken.set()

    def refresh(self) -> None:
        """The gateway's loop has come round: what is shown holds."""
        self._refreshed_ms = self._now_ms()

    def serve(self, stopping: threading.Event, press: Callable[[Press], None]) -> None:
        """Play until ``stopping`` or ``close``; raises whatever the pins do. All is off then."""
        self._ended.clear()
        try:
            while not (stopping.is_set() or self._closed.is_set()):
                wait_ms = self.step(press)
                self._woken.wait(wait_ms / 1000)
                self._woken.clear()
        finally:
            self._dark()
            self._ended.set()

    def step(self, press: Callable[[Press], None]) -> int:
        """Set the pins as they are to be now, and look at the button; after how long to look again, in ms."""
        now_ms = self._now_ms()
        pressed = self._button.contact(bool(self._contact.is_active), now_ms)
        if pressed is not None:
            press(pressed)
        signal = self._newest
        self._player.refresh(self._refreshed_ms)
        if signal is not self._played:
            # Looked at, and not taken out: one that comes at this very moment must not be lost.
            self._played = signal
            self._player.show(signal, now_ms)
        self._set(self._player.levels(now_ms))
        looks = (self._player.next_change_ms(now_ms), self._button.next_look_ms(), now_ms + LOOKS_EVERY_MS)
        return max(1, min(look_ms for look_ms in looks if look_ms is not None) - now_ms)

    def close(self) -> None:
        """Everything off, for good."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._woken.set()
        self._ended.wait(CLOSES_WITHIN_S)
        self._dark()
        atexit.unregister(self.close)

    def _set(self, levels: Levels) -> None:
        for name, pin in self._outputs.items():
            level = getattr(levels, name)
            if bool(pin.value) is not level:
                pin.value = level

    def _dark(self) -> None:
        try:
            self._set(Levels())
        except (GPIOZeroError, OSError) as error:
            log.error("the panel's pins cannot be switched off (%s)", error)
