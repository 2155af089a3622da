"""The running gateway with a panel on mock pins: lit while it runs, dark when it has stopped."""

from __future__ import annotations

import logging
import threading

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from gateway.app import compose, main
from gateway.config import parse_config
from gateway.inputs import ButtonHeld
from tests.gateway.test_run import CONFIG

PATIENCE_S = 20.0
PANEL = """\
[panel]
green = 17
yellow = 27
red = 22
buzzer = 18
button = 23
"""
LAMPS = (17, 27, 22)
BUTTON = 23


@pytest.fixture(autouse=True)
def _own_excepthook(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "day.txt").write_text("0 state=idle rate_ml_h=0 volume_ml=0 alarms=\n")
    return tmp_path


def wait_until(condition) -> None:
    for _ in range(round(PATIENCE_S / 0.02)):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("not so in time")


@pytest.mark.live
def test_the_lamps_are_lit_while_the_gateway_runs_and_dark_when_it_has_stopped(folder, monkeypatch):
    factory = MockFactory()
    monkeypatch.setattr(Device, "pin_factory", factory)
    happenings: list[object] = []
    gateway = compose(
        parse_config(CONFIG + PANEL, folder),
        observers=(lambda happened, effects: happenings.append(happened),),
    )
    lamps = [factory.pin(pin) for pin in LAMPS]
    assert not any(lamp.state for lamp in lamps)
    thread = threading.Thread(target=lambda: gateway.run(handle_signals=False))
    thread.start()
    wait_until(lambda: all(lamp.state for lamp in lamps))
    wait_until(
        lambda: [lamp.state for lamp in lamps] == [False, True, False]
    )  # no prescription: a medium one
    factory.pin(BUTTON).drive_low()
    wait_until(lambda: any(isinstance(happened, ButtonHeld) for happened in happenings))
    wait_until(lambda: lamps[2].state)
    gateway.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not any(factory.pin(pin).state for pin in (*LAMPS, 18))


def test_a_gateway_that_breaks_leaves_no_lamp_lit(folder, monkeypatch):
    factory = MockFactory()
    monkeypatch.setattr(Device, "pin_factory", factory)

    def breaks(happened: object, effects: object) -> None:
        if any(factory.pin(pin).state for pin in LAMPS):
            raise RuntimeError("a promise of our own is broken")

    gateway = compose(parse_config(CONFIG + PANEL, folder), observers=(breaks,))
    with pytest.raises(RuntimeError, match="broken"):
        gateway.run(handle_signals=False)
    assert not any(factory.pin(pin).state for pin in (*LAMPS, 18))


def test_pins_that_fail_end_the_panel_and_not_the_watch_over_the_pump(folder, monkeypatch, caplog):
    factory = MockFactory()
    monkeypatch.setattr(Device, "pin_factory", factory)
    looks: list[object] = []
    gateway = compose(
        parse_config(CONFIG + PANEL, folder),
        observers=(lambda happened, effects: looks.append(happened),),
    )
    lamp = factory.pin(LAMPS[0])

    def fails(*_: object) -> None:
        raise OSError("the pins are gone")

    thread = threading.Thread(target=lambda: gateway.run(handle_signals=False))
    thread.start()
    wait_until(lambda: lamp.state)
    monkeypatch.setattr(lamp, "_set_state", fails)
    wait_until(lambda: any("the panel's pins fail" in line for line in caplog.messages))
    seen = len(looks)
    wait_until(lambda: len(looks) > seen)
    monkeypatch.undo()
    gateway.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_where_there_are_no_pins_the_gateway_says_so_and_goes_on(folder, monkeypatch, caplog):
    monkeypatch.setattr(Device, "pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "none-such")
    with caplog.at_level(logging.ERROR):
        gateway = compose(parse_config(CONFIG + PANEL, folder))
    assert ["[panel] is set, but the gateway goes on without" in line for line in caplog.messages] == [True]
    gateway.stop()
    gateway.run(handle_signals=False)


def test_what_a_killed_gateway_has_left_lit_can_be_put_out(folder, monkeypatch):
    factory = MockFactory()
    monkeypatch.setattr(Device, "pin_factory", factory)
    file = folder / "gateway.toml"
    file.write_text(CONFIG + PANEL)
    for pin in (*LAMPS, 18):
        factory.pin(pin).function = "output"
        factory.pin(pin).state = True
    assert main(["--config", str(file), "--panel-off"]) == 0
    assert not any(factory.pin(pin).state for pin in (*LAMPS, 18))
    assert not (folder / "state").exists()
