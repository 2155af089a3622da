"""dashboard.toml: text to a frozen ``DashboardConfig``; every error names its key (tools page).

Nothing here opens a port, a file or a database.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from alerts.mqtt import MqttConfig
from alerts.strict import ConfigError, Problem, read_toml

CONFIG_BYTES_MAX = 64 * 1024

_Table = TypeVar("_Table", bound=Struct)


class WebConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the pages are served."""

    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    public_url: str | None = None
    """How people reach the pages, when that is not ``http://host:port/``."""


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the collector's database is."""

    url: str


class CollectorConfig(MqttConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mqtt]`` as in the gateway's file, and whether several processes share the subscription."""

    shared: bool = False


class SiteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose dashboard it is."""

    name: str = "Home infusion"
    zone: str = "UTC"
    """For times where the viewer's own zone is not known."""
    second_signature: bool = False


class _DashboardFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["dripwatch-dashboard/1"]
    store: StoreConfig
    mqtt: CollectorConfig
    web: WebConfig = WebConfig()
    site: SiteConfig = SiteConfig()


class DashboardConfig(Struct, frozen=True, kw_only=True):
    """What the dashboard was told to be. Paths are absolute where a base was given."""

    web: WebConfig
    store_url: str
    mqtt: CollectorConfig
    site: SiteConfig

    def address_at(self, port: int) -> str:
        """Where people find it, when it listens on ``port``."""
        if self.web.public_url:
            return self.web.public_url
        host = f"[{self.web.host}]" if ":" in self.web.host else self.web.host
        return f"{'https' if self.web.tls_cert_file else 'http'}://{host}:{port}/"


def parse_dashboard_config(
    text: str, base: Path | None = None, *, source: str = "dashboard.toml"
) -> DashboardConfig:
    """Read the text of a dashboard.toml that stands in the folder ``base``. ``source``: its name, for people.

    Raises ConfigError with every problem found.
    """
    if len(text.encode()) > CONFIG_BYTES_MAX:
        raise ConfigError(
            [Problem("", f"it is longer than {CONFIG_BYTES_MAX} bytes; shorten it.")], source=source
        )
    written = read_toml(text, _DashboardFile, source=source)
    problems = [*_problems_of_web(written.web), *_problems_of_the_rest(written)]
    if problems:
        raise ConfigError(problems, source=source)
    if base is None:
        base = Path()
    return DashboardConfig(
        web=_with_files_under(base, written.web, ("tls_cert_file", "tls_key_file")),
        store_url=_url_under(base, written.store.url),
        mqtt=_with_files_under(base, written.mqtt, ("ca_file", "cert_file", "key_file", "password_file")),
        site=written.site,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problems_of_web(web: WebConfig) -> list[Problem]:
    problems = []
    if not is_loopback(web.host):
        problems.append(
            Problem(
                "web.host",
                f"{web.host!r} can be reached by others, and this dashboard has no accounts yet, so "
                "anybody there "
                'could acknowledge an alarm; write "127.0.0.1" and reach it from elsewhere through an SSH '
                "tunnel.",
            )
        )
    if not 0 <= web.port <= 65_535:
        problems.append(
            Problem("web.port", f"{web.port} is not a port; use 1 to 65535, or 0 for any free one.")
        )
    if (web.tls_cert_file is None) != (web.tls_key_file is None):
        problems.append(
            Problem("web.tls_key_file", "a certificate and its key belong together; give both or neither.")
        )
    if web.public_url is not None and not web.public_url.startswith(("http://", "https://")):
        problems.append(
            Problem("web.public_url", f"{web.public_url!r} does not begin with http:// or https://.")
        )
    return problems


def _problems_of_the_rest(written: _DashboardFile) -> list[Problem]:
    problems = []
    if not written.store.url.startswith("sqlite:///"):
        problems.append(
            Problem(
                "store.url",
                f'{written.store.url.partition(":")[0]!r} is not known yet; write "sqlite:///dashboard.sqlite3".',
            )
        )
    if not written.mqtt.collector:
        problems.append(
            Problem(
                "mqtt.collector",
                'it is empty, so nothing would be receipted; write "main", as the gateways do.',
            )
        )
    if written.mqtt.shared:
        problems.append(
            Problem(
                "mqtt.shared", "several dashboards on one subscription are not possible yet; write false."
            )
        )
    try:
        ZoneInfo(written.site.zone)
    except (ValueError, OSError, KeyError):
        problems.append(
            Problem(
                "site.zone", f'{written.site.zone!r} is not a time zone known here; write as "Europe/Lisbon".'
            )
        )
    return problems


def _with_files_under(base: Path, table: _Table, names: tuple[str, ...]) -> _Table:
    files = {
        name: str((base / value).absolute()) for name in names if (value := getattr(table, name)) is not None
    }
    return msgspec.structs.replace(table, **files)


def _url_under(base: Path, url: str) -> str:
    path = url.removeprefix("sqlite:///")
    return f"sqlite:///{(base / path).absolute()}"
