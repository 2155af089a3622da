"""The door to the broker: MQTT 5 and 3.1.1 by paho, with a last will, TLS and sentences that say what to do.

``MqttClient`` moves messages between the broker and a queue, and decides nothing. It connects, and connects
again, for as long as it is not stopped; each connection has a paho client of its own. So nothing that was
handed over on a lost connection is sent behind anybody's back on the next one (paho keeps such messages in
memory, and would), and renewed certificates and passwords are read again.

What was measured of paho and Mosquitto: a publish while offline is queued in memory and sent later; a PUBACK
is not delivery; only MQTT 5 tells that a publish was not allowed; a broker that was killed has forgotten the
session, so every connection subscribes.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from alerts.sink import Message, SinkDown
from alerts.wire import MAX_READ_BYTES

KEEPALIVE_S = 15
"""A line that was cut is noticed after about twice this."""
BACK_OFF_S = (1, 2, 4, 8, 16, 30)
"""How long to wait before the next connection; the last is repeated without end."""
MAX_PACKET_BYTES = 1024 * 1024
"""What a broker may send us at once (MQTT 5); a payload above 64 KiB is counted and dropped here."""
SESSION_TAKEN_OVER = 142
"""MQTT 5: somebody else has connected with our client id."""
PACKET_TOO_LARGE = 149
"""MQTT 5: above the Maximum Packet Size of the other side."""
_GOODBYE_S = 2.0
_STOP_S = 6.0
IN_FLIGHT_MAX = 20
"""How many messages may wait for the broker's PUBACK; more is slower in paho, as measured."""
_HEADER_BYTES_MAX = 32  # of a PUBLISH: fixed header, packet identifier, message expiry

log = logging.getLogger("dripwatch.mqtt")


class MqttConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mqtt]`` of gateway.toml and of dashboard.toml (gateway page). Files are named, never contained."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    version: Literal[3, 5] = 5
    collector: Annotated[str, Meta(max_length=64)] = "main"
    """Whose receipts release a message; empty: the broker's PUBACK does."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    password_file: str | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError(
                "key_file is given without cert_file; give the certificate that goes with the key"
            )

    @property
    def tls(self) -> bool:
        """On when any of the four files is given; only to a loopback address may a password go without."""
        certificates = (self.ca_file, self.cert_file, self.key_file)
        if any(file is not None for file in certificates):
            return True
        return self.password_file is not None and not _is_loopback(self.host)


class BrokerConnected(Struct, frozen=True, kw_only=True):
    """The way is open in both directions. ``maximum_packet_size`` in bytes, if the broker has one."""

    session_present: bool
    maximum_packet_size: int | None = None


class BrokerLost(Struct, frozen=True, kw_only=True):
    """The connection has gone; what was not confirmed may or may not have arrived. It is sought again."""

    reason: str
    reason_code: int | None = None
    """That of the broker's DISCONNECT (MQTT 5): 142 is another gateway under our name."""


class BrokerRefused(Struct, frozen=True, kw_only=True):
    """No connection could be made: what is wrong, and what to do. Said once for each; it is tried on."""

    reason: str


class BrokerConfirmed(Struct, frozen=True, kw_only=True):
    """The broker's answer to the message that was sent with this token; from 128 on it has refused it."""

    token: int
    reason_code: int


class BrokerMessage(Struct, frozen=True, kw_only=True):
    """A message from the broker, of at most 64 KiB."""

    topic: str
    payload: bytes
    retain: bool
    qos: int


BrokerEvent = BrokerConnected | BrokerLost | BrokerRefused | BrokerConfirmed | BrokerMessage


class MqttClient:
    """One client of one broker, from ``start`` to ``stop``."""

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        username: str | None,
        will: Callable[[], Message] | None,
        subscriptions: Sequence[tuple[str, int]],
        session_expiry_s: int,
        deliver: Callable[[BrokerEvent], None],
    ) -> None:
        """``subscriptions``: filters and QoS. ``will`` is asked at each connection, from another thread.

        ``deliver`` is called from other threads; it may neither wait long nor raise.
        """
        self._config = config
        self._client_id = client_id
        self._username = username
        self._will = will
        self._subscriptions = list(subscriptions)
        self._session_expiry_s = session_expiry_s
        self._deliver = deliver
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._connection: _Connection | None = None
        self._said: BrokerEvent | None = None
        self._in_flight_max = IN_FLIGHT_MAX
        self.oversized = 0
        """How many messages above 64 KiB have come and were dropped."""

    def start(self) -> None:
        """Begins to connect, and returns at once."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether its thread, once started, still goes on: it connects, or tries to."""
        return self._thread.is_alive()

    def send(self, message: Message, token: int) -> None:
        """Hands over one message. The broker's answer comes as ``BrokerConfirmed``; at QoS 0, when it is out.

        Raises SinkDown while there is no connection; then the message has not been taken.
        """
        connection = self._connection
        if connection is None or not connection.publish(message, token):
            raise SinkDown(f"no connection to {self._config.host}:{self._config.port}")

    def stop(self, goodbye: Message | None = None) -> None:
        """Takes leave, so that the last will is not sent; with a last message, if there is one."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.close(goodbye)
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        """Connects, and again, with pauses that grow while it fails."""
        failures = 0
        while not self._stopping.is_set():
            end = self._one_connection()
            if self._stopping.is_set():
                return
            if end != self._said:  # a refusal is said once, not every half minute
                self._say(end)
            was_up = isinstance(end, BrokerLost)
            failures = 0 if was_up else failures + 1
            pause_s = BACK_OFF_S[min(max(failures, 1), len(BACK_OFF_S)) - 1]
            if isinstance(end, BrokerLost) and end.reason_code == SESSION_TAKEN_OVER:
                pause_s = BACK_OFF_S[-1]  # two of one name would throw each other out for ever
            self._stopping.wait(pause_s)

    def _one_connection(self) -> BrokerLost | BrokerRefused:
        """One connection; and at once another if this broker takes fewer messages at a time."""
        while True:
            try:
                client = self._new_paho_client()
            except _UnusableFile as error:
                return BrokerRefused(reason=str(error))
            client.on_message = self._on_message
            connection = _Connection(
                self._config, client, self._subscriptions, self._session_expiry_s, self._say
            )
            self._connection = connection
            try:
                end = connection.run(self._stopping)
            finally:
                self._connection = None
            if connection.in_flight_max >= self._in_flight_max:
                return end
            self._in_flight_max = connection.in_flight_max

    def _say(self, event: BrokerEvent) -> None:
        if not isinstance(event, BrokerConfirmed | BrokerMessage):
            self._said = event
        self._deliver(event)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if len(message.payload) > MAX_READ_BYTES:
            self.oversized += 1
            log.warning("dropped a message of %d bytes on %s", len(message.payload), message.topic)
            return
        self._say(
            BrokerMessage(
                topic=message.topic, payload=bytes(message.payload), retain=message.retain, qos=message.qos
            )
        )

    def _new_paho_client(self) -> paho.Client:
        """Raises _UnusableFile."""
        config = self._config
        is_5 = config.version == 5
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=paho.MQTTv5 if is_5 else paho.MQTTv311,
            clean_session=None if is_5 else self._session_expiry_s == 0,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(self._in_flight_max)
        if config.tls:
            client.tls_set_context(_tls_context(config))
        if self._username is not None:
            password = None if config.password_file is None else _password(config.password_file)
            client.username_pw_set(self._username, password)
        if self._will is not None:
            will = self._will()
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        return client


class _Connection:
    """One connection, with a paho client that serves for nothing else."""

    def __init__(
        self,
        config: MqttConfig,
        client: paho.Client,
        subscriptions: list[tuple[str, int]],
        session_expiry_s: int,
        say: Callable[[BrokerEvent], None],
    ) -> None:
        self._config = config
        self._client = client
        self._subscriptions = subscriptions
        self._session_expiry_s = session_expiry_s
        self._say = say
        self._up = False
        self._connected: BrokerConnected | None = None
        self._over = threading.Event()
        self._end: BrokerLost | BrokerRefused | None = None
        self._last_error = ""
        self.in_flight_max = client.max_inflight_messages
        """How many messages may be under way; fewer if the broker has said so (its Receive Maximum)."""
        self._packet_bytes_max: int | None = None
        # The answer to a message may come before paho has told us its number: whichever is second joins them.
        self._joining = threading.Lock()
        self._tokens: dict[int, int] = {}
        self._early_answers: dict[int, int] = {}
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_log = self._on_log

    def run(self, stopping: threading.Event) -> BrokerLost | BrokerRefused:
        """Connects and stays until the connection is over. How it ended."""
        config = self._config
        try:
            if config.version == 5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.SessionExpiryInterval = self._session_expiry_s
                properties.MaximumPacketSize = MAX_PACKET_BYTES
                clean = self._session_expiry_s == 0
                self._client.connect(
                    config.host, config.port, KEEPALIVE_S, clean_start=clean, properties=properties
                )
            else:
                self._client.connect(config.host, config.port, KEEPALIVE_S)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            return BrokerRefused(reason=why_not(error, config))
        self._client.loop_start()
        if stopping.is_set():
            self.close(None)
        self._over.wait()
        self._client.loop_stop()
        return self._end or BrokerLost(reason="The connection to the broker was closed.")

    def publish(self, message: Message, token: int) -> bool:
        """Whether the message was taken."""
        if not self._up:
            return False
        size = len(message.payload) + len(message.topic.encode()) + _HEADER_BYTES_MAX
        if self._packet_bytes_max is not None and size > self._packet_bytes_max:
            # The broker would cut the connection for it, each time it is sent again.
            self._say(BrokerConfirmed(token=token, reason_code=PACKET_TOO_LARGE))
            return True
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, self._properties_of(message)
        )
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        with self._joining:
            answer = self._early_answers.pop(info.mid, None)
            if answer is None:
                self._tokens[info.mid] = token
        if answer is not None:
            self._say(BrokerConfirmed(token=token, reason_code=answer))
        return True

    def close(self, goodbye: Message | None) -> None:
        """Takes leave of the broker; waits a moment for it to take the last message."""
        if self._up and goodbye is not None:
            info = self._client.publish(goodbye.topic, goodbye.payload, goodbye.qos, goodbye.retain)
            if info.rc is MQTTErrorCode.MQTT_ERR_SUCCESS:
                info.wait_for_publish(_GOODBYE_S)
        self._up = False
        self._client.disconnect()
        self._over.set()

    def _properties_of(self, message: Message) -> Properties | None:
        if self._config.version != 5 or message.expiry_s is None:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = message.expiry_s
        return properties

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason_code.is_failure:
            self._end = BrokerRefused(reason=why_refused(reason_code, client.username, self._config))
            return
        receive_maximum = getattr(properties, "ReceiveMaximum", self.in_flight_max)
        if receive_maximum < self.in_flight_max:
            # paho's own limit may not be changed on a live connection: the next one is made with this.
            self.in_flight_max = receive_maximum
            client.disconnect()
            return
        self._packet_bytes_max = getattr(properties, "MaximumPacketSize", None)
        self._connected = BrokerConnected(
            session_present=flags.session_present, maximum_packet_size=self._packet_bytes_max
        )
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        if flags.session_present or not self._subscriptions:
            # A kept session has its subscriptions already, and its messages come at once.
            self._come_up()

    def _come_up(self) -> None:
        """The way is open in both directions: what comes from now on reaches us."""
        assert self._connected is not None
        if not self._up:
            self._up = True
            self._say(self._connected)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._over.is_set():  # paho may say it twice
            return
        if self._up:
            self._up = False
            said = flags.is_disconnect_packet_from_server
            self._end = BrokerLost(
                reason=why_lost(reason_code, self._last_error, self._config, said_by_broker=said),
                reason_code=reason_code.value if said else None,
            )
        elif self._end is None:
            self._end = BrokerRefused(reason=why_silent(self._last_error, self._config))
        self._over.set()

    def _on_publish(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._joining:
            token = self._tokens.pop(mid, None)
            if token is None:
                self._early_answers[mid] = reason_code.value
        if token is not None:
            self._say(BrokerConfirmed(token=token, reason_code=reason_code.value))

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        for (topic, _), code in zip(self._subscriptions, reason_codes, strict=False):
            if code.is_failure:
                log.error(
                    "The broker does not let %r read %s (%s): add it to the broker's access list.",
                    client.username,
                    topic,
                    code,
                )
        self._come_up()

    def _on_log(self, client: paho.Client, userdata: Any, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self._last_error = text


# --- what to tell a person ---------------------------------------------------------------------------------


class _UnusableFile(Exception):
    """A file that the configuration names cannot be used: a sentence."""


def why_not(error: OSError | UnicodeError, config: MqttConfig) -> str:
    """Why no connection could be made, and what to do."""
    where = f"{config.host}:{config.port}"
    match error:
        case ssl.SSLCertVerificationError(verify_code=code):
            return _why_not_trusted(code, error.verify_message, config)
        case ssl.SSLError() if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return f"{where} does not speak TLS: set mqtt.port to the broker's TLS port (usually 8883)."
        case ssl.SSLError():
            return _why_not_our_certificate(str(error)) or (
                f"TLS with {where} failed ({error.reason or error}): look into the broker's log."
            )
        case ConnectionRefusedError():
            return f"Nothing answers at {where}: start the broker there, or correct mqtt.host and mqtt.port."
        case socket.gaierror() | UnicodeError():
            return f"The name {config.host!r} is not known: correct mqtt.host, or look at the network."
        case TimeoutError():
            return f"{where} does not answer: look at the network and at firewalls on the way."
        case ConnectionResetError() | ssl.SSLEOFError():
            return f"{where} closed the connection at once: correct mqtt.port, or look into the broker's log."
    return f"{where} cannot be reached ({_detail(error)}): look at this machine's network."


def why_refused(reason_code: ReasonCode, username: str | None, config: MqttConfig) -> str:
    """Why the broker answered, and answered no."""
    match reason_code.getName():
        case "Bad user name or password" | "Not authorized":
            if config.password_file is not None:
                return (
                    f"The broker does not accept user {username!r} with this password:"
                    f" correct the password in {config.password_file}, or the broker's password file."
                )
            return (
                f"The broker does not accept user {username!r}: set mqtt.password_file,"
                " or mqtt.cert_file and mqtt.key_file, or add the user to the broker."
            )
        case "Unsupported protocol version":
            return f"The broker does not speak MQTT {_name(config)}: set mqtt.version = {8 - config.version}."
        case "Client identifier not valid":
            return "The broker does not accept this client id: allow dw-{home} in the broker's configuration."
        case name:
            return f"The broker refuses the connection ({name}): look into the broker's log."


def why_silent(last_error: str, config: MqttConfig) -> str:
    """Why a connection ended before the broker had answered."""
    where = f"{config.host}:{config.port}"
    if config.tls:
        # The broker's TLS alert tells why, but the end of the connection may overtake it.
        advice = (
            "if it wants a certificate, set mqtt.cert_file and mqtt.key_file"
            if config.cert_file is None
            else f"if {config.cert_file} has expired or is not of its authority, renew mqtt.cert_file"
        )
        return _why_not_our_certificate(last_error) or (
            f"{where} closed the connection before it answered: {advice}; else look into the broker's log."
        )
    return (
        f"{where} closed the connection before it answered: if it wants TLS, set mqtt.ca_file;"
        f" if it does not speak MQTT {_name(config)}, set mqtt.version = {8 - config.version}."
    )


def why_lost(reason_code: ReasonCode, last_error: str, config: MqttConfig, *, said_by_broker: bool) -> str:
    """Why a connection that was up has ended."""
    where = f"{config.host}:{config.port}"
    if said_by_broker and reason_code.value == SESSION_TAKEN_OVER:
        return (
            "Another client has connected under this name: find the second gateway or dashboard, and stop it."
        )
    if said_by_broker:
        return f"The broker at {where} closed the connection ({reason_code.getName()})."
    if reason_code.getName() == "Keep alive timeout":
        return f"The broker at {where} no longer answers: look at the network."
    return f"The connection to the broker at {where} was lost{f' ({last_error})' if last_error else ''}."


# X509_V_ERR_ of OpenSSL.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


def _why_not_trusted(code: int, detail: str, config: MqttConfig) -> str:
    if code == _EXPIRED:
        return (
            "The broker's certificate has expired: renew it on the broker, if this machine's clock is right."
        )
    if code == _NOT_YET_VALID:
        return "The broker's certificate is not valid yet: look at this machine's clock."
    if code in (_WRONG_NAME, _WRONG_ADDRESS):
        return f"The broker's certificate is not for {config.host!r}: correct mqtt.host, or the certificate."
    if code in _UNKNOWN_AUTHORITY:
        trusted = config.ca_file or "this machine"
        return (
            f"The broker's certificate comes from an authority that {trusted} does not hold:"
            " set mqtt.ca_file to the certificate of the broker's authority."
        )
    return f"The broker's certificate cannot be trusted ({detail}): renew it on the broker."


def _why_not_our_certificate(text: str) -> str:
    """A sentence if the broker has refused our certificate; it says so only by a TLS alert."""
    text = text.lower().replace("_", " ")
    if "certificate required" in text or "handshake failure" in text:
        return "The broker wants a certificate: set mqtt.cert_file and mqtt.key_file."
    if "alert certificate expired" in text:
        return "Our certificate has expired: renew mqtt.cert_file."
    if "alert unknown ca" in text or "alert bad certificate" in text or "alert certificate unknown" in text:
        return "The broker does not accept our certificate: set mqtt.cert_file to one from its authority."
    return ""


def _name(config: MqttConfig) -> str:
    return "5" if config.version == 5 else "3.1.1"


def _password(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _UnusableFile(f"mqtt.password_file: {file} cannot be read ({_detail(error)}).") from error


def _tls_context(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:  # also what is no certificate
        raise _UnusableFile(
            f"mqtt.ca_file: {config.ca_file} cannot be read as a certificate in PEM form ({_detail(error)})."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.cert_file is not None:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except OSError as error:
            raise _UnusableFile(
                f"mqtt.cert_file, mqtt.key_file: {config.cert_file}, {config.key_file} cannot be read as"
                f" a certificate and its key in PEM form ({_detail(error)})."
            ) from error
    return context


def _detail(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
