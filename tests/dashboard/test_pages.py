"""The pages over real HTTP on loopback: what can be read, what can be done, and by whom."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn

from alerts.dashboard import app as pages
from alerts.dashboard.app import Audience, Cookies, make_app
from alerts.dashboard.config import SiteConfig
from alerts.dashboard.desk import Desk
from alerts.dashboard.store import Store
from alerts.mqtt import BrokerConnected, BrokerEvent
from alerts.sink import Message
from tests.dashboard.home import SetClock, SpeakingHome

STARTS_WITHIN_S = 20


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()


class Site:
    """A dashboard without a broker: what it would send is in ``sent``."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self.home = SpeakingHome(self.clock)
        self.sent: list[Message] = []
        store = Store(f"sqlite:///{folder / 'd.sqlite3'}")
        self.audience = Audience(self.clock)  # type: ignore[arg-type]
        self.desk = Desk(
            collector_name="main",
            store=store,
            clock=self.clock,  # type: ignore[arg-type]
            watcher=self.audience.watcher,
            changed=self.audience.changed,
        )
        self.desk.connect(self)
        app = make_app(
            desk=self.desk,
            store=store,
            clock=self.clock,  # type: ignore[arg-type]
            audience=self.audience,
            site=SiteConfig(name="North <valley>"),
            is_secure=False,
            trace=lambda step, **fields: None,
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self.threads = [
            threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}),
            threading.Thread(target=self.desk.run, args=(lambda: self.server.should_exit,)),
        ]
        self.cookie = ""
        self.hear(BrokerConnected(session_present=False))

    def send(self, message: Message, token: int) -> None:
        self.sent.append(message)

    def hear(self, *events: BrokerEvent) -> None:
        """Before ``start`` by hand; after it, wait for the stream."""
        for event in events:
            self.desk.deliver(event)

    def start(self) -> None:
        self.desk.turn()
        for thread in self.threads:
            thread.start()
        waited = threading.Event()
        for _ in range(STARTS_WITHIN_S * 100):
            if self.server.started:
                return
            waited.wait(0.01)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        self.audience.close()
        self.server.should_exit = True
        for thread in self.threads:
            if thread.is_alive():
                thread.join()
        self.listener.close()

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STARTS_WITHIN_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            named.setdefault("Cookie", self.cookie)
        connection.request(method, path, body, named)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        headers.setdefault("Origin", f"http://127.0.0.1:{self.port}")
        headers.setdefault("Content_Type", "application/x-www-form-urlencoded")
        return self.request("POST", path, urlencode(fields), **headers)

    def say_who(self, name: str = "nurse-07") -> str:
        """The token of the forms, once somebody has said who they are."""
        answer = self.post("/name", {"name": name, "role": "nurse"})
        assert answer.status == 303
        found = SimpleCookie(answer.headers["Set-Cookie"])
        self.cookie = f"{pages.COOKIE}={found[pages.COOKIE].value}"
        token = re.search(r'name="token" value="([^"]+)"', self.get("/").text)
        assert token is not None
        return token[1]

    def stream(self, page: str = "/") -> Stream:
        return Stream(self, page)


class Stream:
    """An open event stream."""

    def __init__(self, site: Site, page: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=STARTS_WITHIN_S)
        headers = {"Cookie": site.cookie} if site.cookie else {}
        self.connection.request("GET", f"/events?page={page}", headers=headers)
        self.response = self.connection.getresponse()

    def next_main(self) -> str:
        """The next state of the page's middle, as HTML."""
        name = ""
        while line := self.response.readline().decode():
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: ") and name == "main":
                return str(json.loads(line[6:]))
        raise AssertionError("the stream ended")

    def until(self, words: str) -> str:
        """Reads on until the page says this."""
        while words not in (found := self.next_main()):
            pass
        return found

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.stop()


def words_of(html: str) -> str:
    """What a person reads, without the tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_a_page_shows_alerts_pumps_and_the_intended_use_without_a_script(site: Site) -> None:
    site.hear(site.home.beat((("a-s-1-1", 1),), as_of=1), site.home.state(), site.home.alert())
    site.start()
    words = words_of(site.get("/").text)
    for sentence in (
        "Under-infusion",
        "Pump on plan",
        "Pump counted 12.4 mL of 13.6 mL expected by now",
        "Dripwatch cannot see the line or the patient.",
        "The pump's own alarms come first.",
        "Not a certified medical device",
        "North <valley>",
    ):
        assert sentence in words
    assert "UTC" in words


def test_what_a_home_says_is_never_html(site: Site) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    site.hear(
        site.home.alert(message=evil, kind=evil, code=evil, state=evil, acknowledged=None),
        site.home.state(verdict=evil, state=evil, origin=evil, alarms=[evil]),
        site.home.event(message=evil),
        site.home.order(message=evil, reason=evil, accepted=False),
        site.home.beat(link=evil),
    )
    site.start()
    for path in ("/", "/alert/h-1/a-s-1-1"):
        text = site.get(path).text
        assert "<script>alert" not in text
        assert "<img" not in text


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_no_home_can_take_the_page_away_from_the_others(site: Site, moment: str) -> None:
    much = 1e308
    home = site.home
    given = {"by": "nurse-07", "at": moment, "until": moment}
    numbers = dict.fromkeys(("rate_ml_h", "pressure_mmhg", "expected_ml", "decidable_after_s"), much)
    for sign in (1, -1):
        site.hear(
            home.alert(1, 1, time=moment, since=moment, raised=moment, respond_within_s=2**53 - 1),
            home.alert(2, 1, state="acknowledged", acknowledged=given, level=2**53 - 1),
            home.state(time=moment, ends_at=moment, verdict="too_early", **numbers),
            home.state(
                occlusion_blind_s=much, delivered_ml=-much, absence={"what": "<img>", "until": moment}
            ),
            home.event(time=moment),
            home.beat(age_s=sign * much),
        )
    site.start()
    site.hear(SpeakingHome(site.clock, home="h-2").alert(message="Of the other home."))
    stream = site.stream()
    assert "Of the other home." in words_of(stream.until("Of the other home."))
    stream.close()
    assert site.get("/alert/h-1/a-s-1-1").status == site.get("/").status == 200


def test_what_was_announced_stands_there_with_its_end_and_judges_nothing(site: Site) -> None:
    absence = {"what": "nurse_present", "until": "2026-05-04T10:40:00.000Z"}
    site.hear(site.home.beat(), site.home.state(verdict="unknown", absence=absence))
    site.start()
    text = site.get("/").text
    assert "Announced, nurse present: until" in words_of(text)
    assert 'datetime="2026-05-04T10:40:00.000Z"' in text
    assert "What the pump does meanwhile is not judged." in words_of(text)


def test_old_figures_never_stand_without_a_mark(site: Site) -> None:
    site.hear(site.home.beat(link="down"), site.home.state(expected_ml=None, delivered_ml=None))
    site.start()
    assert "OLD What follows was last read at" in words_of(site.get("/").text)


def test_every_answer_carries_the_headers_that_keep_others_out(site: Site) -> None:
    site.start()
    for path in ("/", "/healthz", "/static/app.js", "/no/such/page", "/alert/h-1/a-s-1-1"):
        headers = site.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_on_the_page_comes_from_elsewhere_or_stands_in_line(site: Site) -> None:
    site.hear(site.home.alert(), site.home.state(), site.home.telemetry(("2026-05-04T08:00:00Z", 0, 0)))
    site.start()
    site.say_who()
    text = site.get("/").text
    assert not re.findall(r"""(?:src|href|action)=["'](?![/#])""", text)
    assert not re.findall(r"\sstyle=|\son[a-z]+=|<style|javascript:", text)
    assert re.findall(r"<script[^>]*>", text) == ['<script src="/static/app.js" defer>']


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("ward.example.org", 421),
        ("127.0.0.1.example.org", 421),
        ("localhost@example.org", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_loopback_names_are_answered(site: Site, host: str, status: int) -> None:
    site.start()
    assert site.get("/", Host=host).status == status


def test_a_large_request_is_refused(site: Site) -> None:
    site.start()
    assert site.post("/name", {"name": "x" * 20_000, "role": "nurse"}).status == 413


def test_a_body_without_a_length_is_bounded_too(site: Site) -> None:
    site.start()
    with socket.create_connection(("127.0.0.1", site.port), timeout=STARTS_WITHIN_S) as raw:
        head = (
            "POST /name HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        raw.sendall(head.encode())
        try:
            for _ in range(40):
                raw.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
            raw.sendall(b"0\r\n\r\n")
        except OSError:
            pass
        answer = b""
        try:
            while part := raw.recv(65_536):
                answer += part
        except OSError:
            pass
    assert b"303" not in answer.split(b"\r\n")[0]
    assert site.get("/").status == 200


@pytest.mark.parametrize(
    ("name", "role"),
    [("Mary Smith", "nurse"), ("", "nurse"), ("nurse-07", "queen"), ("a" * 33, "nurse"), ("a.b", "nurse")],
)
def test_a_pseudonym_is_short_and_plain(site: Site, name: str, role: str) -> None:
    site.start()
    assert site.post("/name", {"name": name, "role": role}).status == 400


def test_the_cookie_is_for_this_site_alone(site: Site) -> None:
    site.start()
    cookie = site.post("/name", {"name": "nurse-07", "role": "nurse"}).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_a_cookie_that_we_have_not_made_is_nobody() -> None:
    ours, theirs = Cookies(b"1" * 32), Cookies(b"2" * 32)
    made = ours.made("nurse-07", "nurse")
    assert ours.read(made).name == "nurse-07"
    for forged in (
        theirs.made("nurse-07", "nurse"),
        made.replace("nurse-07", "nurse-08"),
        made[:-1],
        "",
        ".",
        "a.b",
        None,
    ):
        assert ours.read(forged).name == ""
    other = ours.read(ours.made("nurse-07", "nurse"))
    assert other.token != ours.read(made).token


def acknowledge(token: str) -> dict[str, str]:
    return {"token": token, "home": "h-1", "alert_id": "a-s-1-1", "rev": "1"}


def test_an_acknowledgement_is_sent_and_waits_on_the_page_for_the_gateways_word(site: Site) -> None:
    site.hear(site.home.alert())
    site.start()
    token = site.say_who()
    answer = site.post("/ack", acknowledge(token))
    assert (answer.status, answer.headers["Location"]) == (303, "/#alert-h-1-a-s-1-1")
    assert [message.topic for message in site.sent if "ack" in message.topic] == ["dripwatch/v1/h-1/down/ack"]
    assert "Acknowledgement of nurse-07 sent, waiting for the gateway." in words_of(site.get("/").text)
    stream = site.stream()
    stream.until("waiting for the gateway")
    site.hear(site.home.acknowledged(1, 2))
    confirmed = words_of(stream.until("The gateway has confirmed it"))
    assert "Acknowledged by nurse-07 at" in confirmed
    stream.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 303),
    ],
)
def test_only_a_page_of_ours_can_acknowledge(site: Site, headers: dict[str, str], status: int) -> None:
    site.hear(site.home.alert())
    site.start()
    token = site.say_who()
    assert site.post("/ack", acknowledge(token), **headers).status == status
    assert len([message for message in site.sent if "ack" in message.topic]) == (status == 303)


def test_a_client_that_does_not_say_where_it_comes_from_is_refused(site: Site) -> None:
    site.hear(site.home.alert())
    site.start()
    token = site.say_who()
    body = urlencode(acknowledge(token))
    plain = {"Content_Type": "application/x-www-form-urlencoded"}
    assert site.request("POST", "/ack", body, **plain).status == 403


@pytest.mark.parametrize("path", ["/ack", "/close", "/present", "/leave"])
def test_without_a_name_or_with_another_token_nothing_is_done(site: Site, path: str) -> None:
    site.hear(site.home.alert())
    site.start()
    assert site.post(path, acknowledge("")).status == 403
    site.say_who()
    assert site.post(path, acknowledge("0" * 64)).status == 403
    assert site.get(path).status == 405
    assert [message for message in site.sent if "ack" in message.topic] == []


def test_another_pump_can_be_taken_as_the_patients_and_only_there(site: Site) -> None:
    words = "Use this pump from now on"
    site.hear(site.home.alert())
    site.start()
    token = site.say_who()
    assert words not in site.get("/").text
    stream = site.stream()
    site.hear(site.home.alert(2, kind="wrong_pump", priority="high"))
    stream.until(words)
    stream.close()
    wish = {**acknowledge(token), "alert_id": "a-s-1-2", "adopt": "yes"}
    assert site.post("/ack", wish).status == 303
    [sent] = [message for message in site.sent if "ack" in message.topic]
    assert json.loads(sent.payload)["adopt"] is True


def test_an_orphan_is_closed_by_the_form_that_says_so(site: Site) -> None:
    site.hear(site.home.alert(), site.home.open_list(as_of=2))
    site.start()
    token = site.say_who()
    assert 'name="closes" value="yes"' in site.get("/").text
    assert site.post("/ack", acknowledge(token)).status == 303
    assert "I have looked into it: close" in site.get("/").text
    assert site.post("/ack", {**acknowledge(token), "closes": "yes"}).status == 303
    assert "I have looked into it: close" not in site.get("/").text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"rev": "x"}, 400),
        ({"rev": "2"}, 400),
        ({"rev": "9" * 30}, 400),
        ({"rev": "-1"}, 400),
        ({"alert_id": "a-9"}, 404),
        ({"home": "h-9"}, 404),
    ],
)
def test_an_acknowledgement_of_nothing_is_refused(site: Site, change: dict[str, str], status: int) -> None:
    site.hear(site.home.alert())
    site.start()
    token = site.say_who()
    assert site.post("/ack", {**acknowledge(token), **change}).status == status


def test_the_history_of_an_alert_has_each_revision_once(site: Site) -> None:
    site.hear(
        site.home.alert(1, 1),
        site.home.alert(1, 2, reason="escalated", level=1),
        site.home.acknowledged(1, 3),
    )
    site.start()
    words = words_of(site.get("/alert/h-1/a-s-1-1").text)
    positions = [words.index(f"revision {rev}") for rev in (1, 2, 3)]
    assert positions == sorted(positions)
    assert "Nobody has answered in time: escalated" in words
    assert "By nurse-07 until" in words


def test_an_alert_that_never_came_has_a_page_that_says_so(site: Site) -> None:
    site.start()
    assert "Nothing is stored of it" in words_of(site.get("/alert/h-1/a-s-1-77").text)


def test_a_new_alert_comes_through_the_open_stream(site: Site) -> None:
    site.start()
    stream = site.stream()
    assert "Under-infusion" not in stream.next_main()
    site.hear(site.home.alert())
    assert "Under-infusion" in stream.until("Under-infusion")
    stream.close()


def test_somebody_watches_while_their_page_is_open_and_for_an_hour_after_they_said_so(site: Site) -> None:
    site.start()
    assert site.audience.watcher() is None
    token = site.say_who()
    assert site.audience.watcher() is None
    stream = site.stream()
    stream.next_main()
    assert site.audience.watcher() == "nurse-07"
    site.clock.pass_s(3_001)
    stream.until("Are you still there?")
    assert site.audience.watcher() == "nurse-07"
    site.clock.pass_s(600)
    stream.until("nobody watches")
    assert site.audience.watcher() is None
    assert site.post("/present", {"token": token}).status == 303
    stream.until("somebody watches")
    assert site.audience.watcher() == "nurse-07"
    stream.close()


def test_a_page_is_rendered_once_for_what_it_shows(site: Site) -> None:
    made = pages.Pages(site.desk, site.desk._store, site.clock, SiteConfig())  # type: ignore[arg-type]
    nurse, other = pages.Viewer(name="nurse-07"), pages.Viewer(name="nurse-08")
    first = made.middle("/", nurse)
    site.clock.pass_s(1)
    assert made.middle("/", nurse) is first
    assert "nurse-08" in made.middle("/", other)
    site.hear(site.home.alert())
    site.desk.turn()
    assert "Under-infusion" in made.middle("/", nurse)
    site.clock.pass_s(40)
    assert "waiting for the home" in made.middle("/", nurse)


def test_pages_of_others_cannot_use_up_the_streams(site: Site) -> None:
    site.start()
    assert site.get("/events", Sec_Fetch_Site="cross-site").status == 403


def test_streams_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "STREAMS_MAX", 1)
    site.start()
    stream = site.stream()
    stream.next_main()
    assert site.get("/events").status == 503
    stream.close()


def test_health_says_whether_the_broker_is_there(site: Site) -> None:
    site.start()
    answer = site.get("/healthz")
    assert (answer.status, json.loads(answer.text)["broker"]) == (200, "connected")
