"""Real brokers for tests: Mosquitto with whatever rules a test wants, and amqtt as the demo runs it."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

LISTENS_WITHIN_S = 20.0

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

README = (Path(__file__).parents[2] / "README.md").read_text()


def printed(first_line: str) -> str:
    """The block of the README that begins so."""
    [block] = re.findall(rf"^```\n({re.escape(first_line)}\n.*?)^```", README, re.DOTALL | re.MULTILINE)
    return str(block)


BROKER_SETTINGS = printed("listener 8883")
"""What the README gives to a Mosquitto for homes with certificates."""
ACCESS_LIST = printed("pattern write dripwatch/v1/%u/up/#")
"""The access list of the README, which is that of the MQTT page, "Rules for the broker"."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_CA_CONFIG = """\
[ca]
default_ca = this
[this]
certificate = ca.crt
private_key = ca.key
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = anything
unique_subject = no
[anything]
commonName = supplied
"""


class Authority:
    """A certificate authority of its own, and what it has signed, made by openssl."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        (folder / "index.txt").touch()
        (folder / "ca.cnf").write_text(_CA_CONFIG)
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650"
            " -keyout ca.key -out ca.crt -addext basicConstraints=critical,CA:TRUE,pathlen:0"
            " -addext keyUsage=critical,keyCertSign,cRLSign",
            subject="test CA",
        )

    def server(self, name: str = "localhost", *, days: int = 825) -> tuple[Path, Path]:
        """Certificate and key of a broker. ``days`` may be negative: it has expired."""
        address = ",IP:127.0.0.1" if name == "localhost" else ""
        return self._signed(name, f"subjectAltName=DNS:{name}{address}\nextendedKeyUsage=serverAuth\n", days)

    def client(self, name: str, *, days: int = 825) -> tuple[Path, Path]:
        """Certificate and key of a home or of the dashboard; its name is the user's."""
        return self._signed(name, f"extendedKeyUsage=clientAuth\nsubjectAltName=DNS:{name}\n", days)

    def _signed(self, name: str, extensions: str, days: int) -> tuple[Path, Path]:
        (self.folder / f"{name}.ext").write_text(extensions)
        self._openssl(
            f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr",
            subject=name,
        )
        # `openssl ca` takes dates in the past, which `openssl x509 -days` has refused since 3.4.
        today = datetime.now(UTC)
        begins, ends = (today + timedelta(days=day) for day in (-2, days))
        self._openssl(
            f"ca -batch -config ca.cnf -in {name}.csr -extfile {name}.ext -out {name}.crt"
            f" -startdate {begins:%Y%m%d%H%M%SZ} -enddate {ends:%Y%m%d%H%M%SZ}"
        )
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _openssl(self, arguments: str, *, subject: str | None = None) -> None:
        names = [] if subject is None else ["-subj", f"/CN={subject}"]
        subprocess.run(
            ["openssl", *arguments.split(), *names],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=60,
        )


class _Process:
    """A broker that runs as a process, and can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def kill(self) -> None:
        """As by kill -9 or a power cut: it can save nothing."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """A clean stop."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Starts it again, with what it had saved."""
        self.terminate()
        self.start()

    def pause(self) -> None:
        """It answers nobody, but its connections stay: a broker that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def start(self) -> None:
        """Starts it, and returns when it listens."""
        raise NotImplementedError

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(timeout=20)
            self._process = None


class Mosquitto(_Process):
    """Mosquitto in a folder of its own, on a free loopback port."""

    def __init__(
        self,
        folder: Path,
        *,
        authority: Authority | None = None,
        server: tuple[Path, Path] | None = None,
        require_certificate: bool = False,
        passwords: Mapping[str, str] | None = None,
        access_list: str | None = None,
        settings: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        """``authority``: TLS, with the certificate ``server`` or one for localhost. ``settings``: more."""
        super().__init__()
        self.host = host
        assert MOSQUITTO is not None, "mosquitto is not installed"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        self._file = folder / "mosquitto.conf"
        lines = [
            # Not per_listener_settings: with it Mosquitto 2.0.21 forgets what waits for a kept session.
            "persistence true",
            f"persistence_location {folder}/data/",
            "max_queued_messages 100000",
            "log_dest stderr",  # it does not wait for a full buffer
            f"listener {self.port} {host}",
            f"allow_anonymous {'true' if passwords is None and not require_certificate else 'false'}",
        ]
        if os.geteuid() == 0:
            lines.insert(0, "user root")  # else it could not read keys that only root may read
        if authority is not None:
            certificate, key = server or authority.server()
            lines += [f"cafile {authority.ca_file}", f"certfile {certificate}", f"keyfile {key}"]
            if require_certificate:
                lines += ["require_certificate true", "use_identity_as_username true"]
        if passwords is not None:
            file = folder / "passwords"
            file.write_text("".join(f"{name}:{secret}\n" for name, secret in passwords.items()))
            file.chmod(0o600)
            subprocess.run(["mosquitto_passwd", "-U", str(file)], check=True, capture_output=True, timeout=60)
            lines.append(f"password_file {file}")
        if access_list is not None:
            (folder / "acl").write_text(access_list)
            lines.append(f"acl_file {folder / 'acl'}")
        self._file.write_text("\n".join([*lines, settings]) + "\n")

    @classmethod
    def as_printed(cls, folder: Path, authority: Authority) -> Mosquitto:
        """As the README sets it up, in this folder and on a free port."""
        broker = cls(folder)
        certificate, key = authority.server()
        (folder / "access").write_text(ACCESS_LIST)
        settings = BROKER_SETTINGS.replace("listener 8883", f"listener {broker.port} 127.0.0.1")
        for name, file in (
            ("ca.pem", authority.ca_file),
            ("broker.pem", certificate),
            ("broker.key", key),
            ("access", folder / "access"),
        ):
            settings = settings.replace(f"/etc/mosquitto/dripwatch/{name}", str(file))
        assert "/etc/" not in settings, "a file of the README is not known here"
        # What Debian's mosquitto.conf says before it includes ours, with our folder and without its log.
        debian = ["persistence true", f"persistence_location {folder}/data/", "log_dest stderr"]
        if os.geteuid() == 0:
            debian.insert(0, "user root")
        broker._file.write_text("\n".join([*debian, settings]))
        return broker

    def start(self) -> None:
        """Starts it, and returns when it says that it runs."""
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process, lines), daemon=True).start()
        try:
            while (line := lines.get(timeout=LISTENS_WITHIN_S)) is not None:
                if line.endswith(" running"):
                    return
        except queue.Empty:
            self.kill()
        raise AssertionError("mosquitto did not start:\n" + "\n".join(self.log))

    def _read(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.log.append(line.rstrip())
                lines.put(line.rstrip())
        lines.put(None)


class Amqtt(_Process):
    """amqtt, as the demo runs it on a machine without Mosquitto: MQTT 3.1.1, and nothing is kept."""

    def start(self) -> None:
        """Starts it, and returns when its port answers."""
        self._process = subprocess.Popen([sys.executable, "-m", "gateway.demo_broker", str(self.port)])
        waited = threading.Event()
        for _ in range(round(LISTENS_WITHIN_S / 0.05)):
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            assert self._process.poll() is None, "amqtt did not start"
            waited.wait(0.05)
        raise AssertionError(f"amqtt does not listen on {self.port}")
