"""dashboard.toml: every error names its key and says what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alerts.dashboard.config import parse_dashboard_config
from alerts.strict import ConfigError

ROOT = Path(__file__).parents[2]
WHOLE = """
format = "dripwatch-dashboard/1"
[web]
host = "127.0.0.1"
port = 8080
[store]
url = "sqlite:///dashboard.sqlite3"
[mqtt]
host = "127.0.0.1"
port = 1883
version = 5
collector = "main"
shared = false
ca_file = "ca.pem"
[site]
name = "North valley"
zone = "Europe/Lisbon"
second_signature = false
"""


def test_a_whole_file_is_read_and_its_paths_are_relative_to_it() -> None:
    config = parse_dashboard_config(WHOLE, Path("/srv/dripwatch"))
    assert config.store_url == "sqlite:////srv/dripwatch/dashboard.sqlite3"
    assert config.mqtt.ca_file == "/srv/dripwatch/ca.pem"
    assert config.mqtt.collector == "main"
    assert config.address_at(8080) == "http://127.0.0.1:8080/"
    assert config.site.name == "North valley"


def test_only_format_store_and_broker_must_be_given() -> None:
    text = 'format = "dripwatch-dashboard/1"\n[store]\nurl = "sqlite:///d"\n[mqtt]\nhost = "b"\nport = 1\n'
    assert parse_dashboard_config(text).web.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ('host = "127.0.0.1"\nport = 8080', 'host = "0.0.0.0"\nport = 8080', "web.host", "no accounts yet"),
        ('host = "127.0.0.1"\nport = 8080', 'host = "ward.example.org"', "web.host", "127.0.0.1"),
        ('host = "127.0.0.1"\nport = 8080', 'hots = "127.0.0.1"', "web.hots", "did you mean 'host'"),
        ("port = 8080", "port = 70000", "web.port", "not a port"),
        ("port = 8080", 'port = 8080\ntls_cert_file = "c"', "web.tls_key_file", "belong together"),
        ("port = 8080", 'port = 8080\npublic_url = "ward"', "web.public_url", "http"),
        ("sqlite:///dashboard.sqlite3", "postgresql+psycopg://x", "store.url", "not known yet"),
        ('collector = "main"', 'collector = ""', "mqtt.collector", "main"),
        ("shared = false", "shared = true", "mqtt.shared", "false"),
        ("Europe/Lisbon", "Europe/Atlantis", "site.zone", "time zone"),
        ("dripwatch-dashboard/1", "dripwatch-dashboard/2", "format", "dripwatch-dashboard/1"),
        ("[site]", "[sight]", "sight", "did you mean 'site'"),
    ],
)
def test_a_wrong_key_or_value_names_itself(old: str, new: str, key: str, words: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as refused:
        parse_dashboard_config(WHOLE.replace(old, new))
    assert [problem.key for problem in refused.value.problems] == [key]
    assert words in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_every_loopback_address_will_do(host: str) -> None:
    assert parse_dashboard_config(WHOLE.replace('"127.0.0.1"', f'"{host}"')).web.host == host


def test_a_file_without_end_is_refused_before_it_is_read() -> None:
    with pytest.raises(ConfigError, match="longer than"):
        parse_dashboard_config(WHOLE + "#" * 70_000)


def started_with(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alerts.dashboard", "--config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_the_sentence_names_the_file_that_was_given(tmp_path: Path) -> None:
    file = tmp_path / "rx.toml"
    file.write_text('format = "dripwatch/1"\n')
    done = started_with(file)
    assert done.returncode == 1
    assert done.stderr.splitlines()
    assert all(line.startswith(f"{file}: ") for line in done.stderr.splitlines())


def test_a_port_that_is_taken_is_told_with_the_file_that_was_given(tmp_path: Path) -> None:
    file = tmp_path / "ward.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(WHOLE.replace("port = 8080", f"port = {port}"))
        done = started_with(file)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file}: web.port: 127.0.0.1 port {port} cannot be used")
