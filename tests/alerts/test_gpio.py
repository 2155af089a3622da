"""The panel on gpiozero's mock pins: what lamps and buzzer were seen to do, in virtual time."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from gpiozero import Device
from gpiozero.pins import mock

from alerts.gpio import GpioPanel, NoPanel
from alerts.signal import LAMP_TEST_MS, Lamp, PanelSignal, Press, Sound

PINS = {"green": 17, "yellow": 27, "red": 22, "buzzer": 18}
BUTTON = 23


class Bench:
    """A panel whose thread is the test itself: it goes to the next instant that the panel asks for."""

    def __init__(self, monkeypatch) -> None:
        self.now_ms = 0
        # The mock pins write down when they changed: by the same clock.
        monkeypatch.setattr(mock, "monotonic", lambda: self.now_ms / 1000)
        self.factory = mock.MockFactory()
        monkeypatch.setattr(Device, "pin_factory", self.factory)
        self.presses: list[Press] = []
        self.panel = GpioPanel(**PINS, button=BUTTON, now_ms=lambda: self.now_ms)

    def play(self, for_ms: int, *, alive: bool = True) -> None:
        until_ms = self.now_ms + for_ms
        while self.now_ms < until_ms:
            if alive:
                self.panel.refresh()
            self.now_ms = min(until_ms, self.now_ms + self.panel.step(self.presses.append))

    def lit(self) -> set[str]:
        return {name for name, pin in PINS.items() if self.factory.pin(pin).state}

    def forget(self) -> None:
        for pin in PINS.values():
            self.factory.pin(pin).clear_states()

    def seen(self, name: str) -> list[tuple[int, int]]:
        """Each time that the pin was high: for how long, and how long it had been low before, in ms."""
        states = self.factory.pin(PINS[name]).states[1:]
        durations = [(round(state.timestamp * 1000), state.state) for state in states]
        return [
            (after_ms, before_ms)
            for (before_ms, rises), (after_ms, falls) in pairwise(durations)
            if rises and not falls
        ]


@pytest.fixture
def bench(monkeypatch):
    """A panel after its lamp test."""
    bench = Bench(monkeypatch)
    bench.play(LAMP_TEST_MS + 500)
    bench.forget()
    yield bench
    bench.panel.close()
    bench.factory.reset()


def test_at_the_start_all_pins_are_low_and_then_all_lamps_are_tried(monkeypatch):
    bench = Bench(monkeypatch)
    assert bench.lit() == set()
    bench.play(10)
    assert bench.lit() == {"green", "yellow", "red"}
    bench.play(LAMP_TEST_MS)
    assert bench.lit() == set()


@pytest.mark.parametrize(
    ("lamp", "hz", "hz_limits", "duty_limits"),
    [("red", 2.0, (1.4, 2.8), (0.2, 0.6)), ("yellow", 0.6, (0.4, 0.8), (0.2, 0.6))],
)
def test_the_pins_flash_at_the_frequency_and_duty_of_their_priority(bench, lamp, hz, hz_limits, duty_limits):
    bench.panel.show(PanelSignal(**{lamp: Lamp.FLASHING}))
    bench.play(60_000)
    # What the pin did before it first rose is not part of its flashing.
    flashes = bench.seen(lamp)[1:]
    assert len(flashes) > 30
    for high_ms, low_ms in flashes:
        assert hz_limits[0] <= 1000 / (high_ms + low_ms) <= hz_limits[1]
        assert 1000 / (high_ms + low_ms) == pytest.approx(hz, rel=0.01)
        assert duty_limits[0] <= high_ms / (high_ms + low_ms) <= duty_limits[1]


HIGH_BURST = [(150, 100), (150, 100), (150, 350), (150, 100), (150, 800)] * 2


@pytest.mark.parametrize(
    ("sound", "pulses"),
    [
        (Sound.HIGH, [*HIGH_BURST[:-1], (150, 5_000)]),
        (Sound.MEDIUM, [(200, 200), (200, 200), (200, 7_500)]),
        (Sound.LOW, [(200, 200), (200, None)]),
    ],
)
def test_the_buzzer_pin_sounds_the_burst_and_keeps_the_pause(bench, sound, pulses):
    bench.panel.show(PanelSignal(sound=sound, call=1))
    bench.play(40_000)
    seen = bench.seen("buzzer")
    heard = [
        (high_ms, following[1]) for (high_ms, _), following in zip(seen, [*seen[1:], (0, None)], strict=True)
    ]
    assert heard[: len(pulses)] == pulses
    if sound is Sound.LOW:
        assert len(heard) == len(pulses)


def test_the_newest_signal_wins(bench):
    bench.panel.show(PanelSignal(red=Lamp.FLASHING, sound=Sound.HIGH))
    bench.panel.show(PanelSignal(yellow=Lamp.STEADY))
    bench.play(100)
    assert bench.lit() == {"yellow"}
    assert bench.seen("buzzer") == []


def test_green_goes_out_when_the_loop_stands_still_and_comes_back_when_it_goes_on(bench):
    bench.panel.show(PanelSignal(green=True))
    bench.play(60_000)
    assert bench.lit() == {"green"}
    bench.play(9_500, alive=False)
    assert bench.lit() == {"green"}
    bench.play(1_000, alive=False)
    assert bench.lit() == set()
    bench.play(1_000)
    assert bench.lit() == {"green"}


def test_a_bouncing_press_is_one_short_press_and_a_held_one_is_a_call(bench):
    button = bench.factory.pin(BUTTON)
    for _ in range(3):
        button.drive_low()
        bench.play(7)
        button.drive_high()
        bench.play(7)
    button.drive_low()
    bench.play(300)
    button.drive_high()
    bench.play(300)
    assert bench.presses == [Press.SHORT]
    button.drive_low()
    bench.play(5_000)
    button.drive_high()
    bench.play(1_000)
    assert bench.presses == [Press.SHORT, Press.LONG]


def test_closed_everything_is_off_for_good(bench):
    bench.panel.show(PanelSignal(green=True, red=Lamp.FLASHING, yellow=Lamp.STEADY, sound=Sound.HIGH))
    bench.play(10)
    assert bench.lit() == {"green", "yellow", "red", "buzzer"}
    bench.panel.close()
    assert bench.lit() == set()


@pytest.mark.parametrize("end", ["close", "stopping", "a pin fails"])
def test_however_its_thread_ends_everything_is_off(bench, end):
    lit, stopping = threading.Event(), threading.Event()
    bench.panel.show(PanelSignal(green=True))
    green = bench.factory.pin(PINS["green"])

    raised: list[Exception] = []

    def serve() -> None:
        try:
            bench.panel.serve(stopping, lambda press: None)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    for _ in range(2_000):
        if green.state:
            lit.set()
            break
        threading.Event().wait(0.005)
    assert lit.is_set()
    if end == "close":
        bench.panel.close()
    elif end == "stopping":
        stopping.set()
    else:
        bench.panel.show("no signal at all")
    thread.join(5)
    assert not thread.is_alive()
    assert bool(raised) is (end == "a pin fails")
    assert bench.lit() == set()


def test_without_pins_it_says_so(monkeypatch):
    monkeypatch.setattr(Device, "pin_factory", mock.MockFactory())
    with pytest.raises(NoPanel, match="pins cannot be had"):
        GpioPanel(green=17, yellow=27, red=22, buzzer=18, button=99, now_ms=lambda: 0)
