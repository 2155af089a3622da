"""Fixtures with real brokers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.broker import MOSQUITTO, Amqtt, Authority, Mosquitto


@pytest.fixture
def needs_mosquitto() -> None:
    """Skips the test, and says why, on a machine without Mosquitto."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed; apt-get install mosquitto mosquitto-clients")


@pytest.fixture
def mosquitto(tmp_path: Path, needs_mosquitto: None) -> Iterator[Mosquitto]:
    """A running Mosquitto that lets anybody in."""
    broker = Mosquitto(tmp_path / "mosquitto")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def amqtt() -> Iterator[Amqtt]:
    """A running amqtt."""
    pytest.importorskip("amqtt", reason="amqtt is not installed; pip install dripwatch[demo]")
    broker = Amqtt()
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for the whole run; making one takes some tenths of a second."""
    return Authority(tmp_path_factory.mktemp("authority"))
