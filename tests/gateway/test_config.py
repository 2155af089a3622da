"""gateway.toml: what is wrong is told with its key, counted from 1, and with what is possible."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from alerts.strict import ConfigError
from drivers.alaris.session import AlarisFamily
from gateway.config import CONFIG_BYTES_MAX, Config, parse_config

BASE = Path("/etc/dripwatch")
PUMP = """\
[[pump]]
id = "p1"
family = "alaris"
port = "/dev/ttyUSB0"
"""
SECOND = PUMP.replace("p1", "p2").replace("USB0", "USB1")
HEAD = """\
format = "dripwatch-gateway/1"
home = "h-7f3a"
state_dir = "state"
"""
MQTT = """\
[mqtt]
host = "broker.example.org"
port = 8883
ca_file = "ca.pem"
cert_file = "home.pem"
key_file = "/keys/home.key"
"""


def parsed(text: str) -> Config:
    return parse_config(text, BASE)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    return [str(problem) for problem in refused.value.problems]


def test_relative_paths_are_relative_to_the_file():
    config = parsed(HEAD + MQTT + PUMP + 'prescription = "rx.toml"\n')
    assert config.state_dir == BASE / "state"
    assert config.pumps[0].prescription_file == BASE / "rx.toml"
    assert (config.mqtt.ca_file, config.mqtt.key_file) == ("/etc/dripwatch/ca.pem", "/keys/home.key")


def test_what_is_not_written_is_as_the_page_says():
    config = parsed(HEAD + PUMP)
    (pump,) = config.pumps
    assert (pump.poll_ms, pump.origin, pump.address, pump.serial_number) == (5_000, "real", None, None)
    assert (config.mqtt, config.history, config.panel, config.clock_trusted) == (None, None, None, False)


def test_a_script_is_named_relative_to_the_file_too():
    text = HEAD + PUMP.replace("alaris", "dummy").replace("/dev/ttyUSB0", "script:day.txt")
    assert parsed(text + 'origin = "demo"\n').pumps[0].port == "script:/etc/dripwatch/day.txt"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEAD, "pump: there is none; add a [[pump]] table"),
        (HEAD.replace("h-7f3a", "Mrs Smith") + PUMP, "home: 'Mrs Smith' is not a pseudonym"),
        (HEAD.replace("/1", "/2") + PUMP, "format: 'dripwatch-gateway/2' is not known; known are"),
        (HEAD + PUMP + "pol = 3\n", "pump[1].pol: there is no such key; did you mean 'poll'?"),
        (HEAD + PUMP.replace("p1", "gateway"), "pump[1].id: 'gateway' is reserved"),
        (HEAD + PUMP.replace("p1", "Pump 1"), "pump[1].id: 'Pump 1' is not a token"),
        (HEAD + PUMP + SECOND.replace("alaris", "alariss"), "pump[2].family: 'alariss' is not known"),
        (HEAD + PUMP + SECOND.replace("p2", "p1"), "pump[2].id: 'p1' is also the id of pump[1]"),
        (
            HEAD + PUMP + SECOND.replace("USB1", "USB0"),
            "pump[2].port: '/dev/ttyUSB0' is also the port of pump[1]",
        ),
        (HEAD + PUMP.replace('"/dev/ttyUSB0"', '" "'), "pump[1].port: is empty"),
        (HEAD + PUMP + "baud = 1\n", "pump[1].baud: 1 is not possible with 'alaris'; possible: "),
        (HEAD + PUMP + 'poll = "5"\n', "pump[1].poll: '5' is not a duration"),
        (HEAD + PUMP + 'poll = "1s30min"\n', "pump[1].poll: '1s30min' names its units twice or from small"),
        (HEAD + PUMP + 'poll = "500d"\n', "pump[1].poll: '500d' is longer than 400d"),
        (HEAD + PUMP + 'poll = "0.5s"\n', "pump[1].poll: '0.5s' is not between 1s and 1min"),
        (HEAD + PUMP + 'poll = "2min"\n', "pump[1].poll: '2min' is not between 1s and 1min"),
        (
            HEAD + PUMP + 'origin = "life"\n',
            "pump[1].origin: 'life' is not known; known are real, test, demo",
        ),
        (
            HEAD + PUMP.replace("alaris", "dummy").replace("/dev/ttyUSB0", "script:day.txt"),
            'pump[1].origin: a capture or a script is never "real"',
        ),
        (
            HEAD
            + PUMP
            + "address = 1\n"
            + SECOND.replace("USB1", "USB0").replace("alaris", "dummy")
            + "address = 2\n",
            "pump[2].family: 'dummy' differs from 'alaris' of pump[1] on the same port",
        ),
        (
            HEAD + PUMP.replace("alaris", "dummy") + "address = 1\n",
            "pump[1].port: pump p1: dummy pumps have no address",
        ),
        (HEAD + MQTT.replace("8883", "0") + PUMP, "mqtt.port: found 0; expected int >= 1."),
        (
            HEAD + MQTT.replace('cert_file = "home.pem"\n', "") + PUMP,
            "mqtt: key_file is given without cert_file",
        ),
        (
            HEAD + PUMP + "[panel]\ngreen = 17\nyellow = 17\nred = 22\nbuzzer = 18\nbutton = 23\n",
            "panel: two parts are given the same pin",
        ),
        (
            HEAD + PUMP + "[panel]\ngreen = 99\nyellow = 1\nred = 22\nbuzzer = 18\nbutton = 23\n",
            "panel.green: found 99; expected int <= 27.",
        ),
        ("x" * (CONFIG_BYTES_MAX + 1), f"is longer than {CONFIG_BYTES_MAX} bytes"),
    ],
)
def test_each_mistake_is_told_with_its_place_and_what_is_possible(text, sentence):
    (said,) = problems(text)
    assert said.startswith(sentence)


def test_a_serial_number_that_a_family_never_says_cannot_be_watched_over(monkeypatch):
    text = HEAD + PUMP + 'serial_number = "8002-1"\n'
    assert parsed(text).pumps[0].serial_number == "8002-1"
    silent = structs.replace(AlarisFamily.traits, reports=("state", "volume_ml"))
    monkeypatch.setattr(AlarisFamily, "traits", silent)
    (said,) = problems(text)
    assert said.startswith("pump[1].serial_number: 'alaris' pumps do not say their serial number")


def test_all_mistakes_are_told_at_once():
    text = HEAD.replace("h-7f3a", "H") + PUMP + 'poll = "9h"\n' + SECOND.replace("p2", "p1")
    assert [said.partition(":")[0] for said in problems(text)] == ["home", "pump[1].poll", "pump[2].id"]


@given(st.text(max_size=200) | st.text(max_size=60).map(lambda text: HEAD + PUMP + text))
def test_whatever_is_written_is_either_a_configuration_or_told_what_is_wrong(text):
    try:
        config = parsed(text)
    except ConfigError as refused:
        assert refused.problems
        assert all(problem.message for problem in refused.problems)
    else:
        assert config.pumps
