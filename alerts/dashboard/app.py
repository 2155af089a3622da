"""The pages: server-rendered, one event stream to keep them up to date, and the few things a person can do.

Until accounts exist the pages are for this machine only: the address is loopback (config.py), the Host
header must name it (against DNS rebinding), and whatever changes something must come from a page of ours
(same origin, and a token bound to the cookie).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import queue
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import jinja2
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alerts import wire
from alerts.dashboard import views
from alerts.dashboard.clock import Clock
from alerts.dashboard.config import SiteConfig, is_loopback
from alerts.dashboard.desk import Acknowledge, CloseNotice, Desk, Showing, Trace
from alerts.dashboard.desk import Request as Wish
from alerts.dashboard.store import Store

BODY_BYTES_MAX = 16 * 1024
STREAMS_MAX = 64
STREAM_SPEAKS_EVERY_S = 1.0
STREAM_BEAT_EVERY_MS = 5_000
STREAM_GATHERS_S = 0.1
"""Changes that come together are shown together."""
PRESENT_FOR_MS = 3_600_000
"""How long an answered presence prompt holds (mqtt page, ``watch``)."""
ASKED_BEFORE_MS = 10 * 60_000
"""How long before that the prompt is shown."""
PRESENCES_MAX = 1_000
COOKIE = "dripwatch-who"
_PSEUDONYM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors "
    "'none'; object-src 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HERE = Path(__file__).parent
_LAST_UTC_MS = 253_370_764_800_000
"""The year 9999, in which dates end; it is a gateway's error."""


class Viewer(Struct, frozen=True, kw_only=True):
    """Who looks at the page; without a name they can read and nothing else."""

    name: str = ""
    role: str = ""
    session: str = ""
    token: str = ""
    """Goes with every form of this viewer."""
    is_present: bool = False
    """Whether they have said within the last hour that they are there."""
    is_asked: bool = False
    """Whether to ask them again."""


class Audience:
    """The open event streams and the people behind them. ``changed`` and ``watcher`` may be called by any
    thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[asyncio.Event, Viewer] = {}
        self._present_ms: dict[str, int] = {}
        self.is_over = False

    def changed(self) -> None:
        """There is something new to show."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)

    def watcher(self) -> str | None:
        """Somebody who has the page open and has said within the last hour that they are there."""
        for viewer in list(self._streams.values()):
            if viewer.name and self.is_present(viewer.session):
                return viewer.name
        return None

    def close(self) -> None:
        """Ends all streams."""
        self.is_over = True
        self.changed()

    def enter(self, viewer: Viewer) -> asyncio.Event | None:
        """A stream has been opened: the event that tells it to look; None if there are too many."""
        if len(self._streams) >= STREAMS_MAX or self.is_over:
            return None
        self._loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._streams[woken] = viewer
        return woken

    def leave(self, woken: asyncio.Event) -> None:
        """A stream has ended."""
        self._streams.pop(woken, None)

    def answer(self, session: str) -> None:
        """Somebody says that they are there."""
        self._present_ms.pop(session, None)
        self._present_ms[session] = self._clock.now_ms()
        while len(self._present_ms) > PRESENCES_MAX:
            self._present_ms.pop(next(iter(self._present_ms)))

    def forget(self, session: str) -> None:
        """Somebody has gone."""
        self._present_ms.pop(session, None)

    def is_present(self, session: str) -> bool:
        """Whether they have said so within the last hour."""
        return self._present_for_ms(session) > 0

    def is_asked(self, session: str) -> bool:
        """Whether their hour will soon be over."""
        return self._present_for_ms(session) < ASKED_BEFORE_MS

    def _present_for_ms(self, session: str) -> int:
        since_ms = self._present_ms.get(session)
        return 0 if since_ms is None else since_ms + PRESENT_FOR_MS - self._clock.now_ms()

    def _wake(self) -> None:
        for woken in self._streams:
            woken.set()


class Pages:
    """Renders every page, whole or only what is in its middle."""

    def __init__(self, desk: Desk, store: Store, clock: Clock, site: SiteConfig) -> None:
        self._desk = desk
        self._store = store
        self._clock = clock
        self._site = site
        self._viewed: tuple[Showing, int, views.BoardView] | None = None
        self._middles: dict[tuple[str, Viewer], tuple[dict[str, object], str]] = {}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        zone = ZoneInfo(site.zone)
        self._environment.filters["iso"] = lambda utc_ms: wire.iso_utc(_sayable(utc_ms))
        self._environment.filters["utc_words"] = lambda utc_ms: f"{_moment(utc_ms):%Y-%m-%d %H:%M:%S} UTC"
        self._environment.filters["utc_short"] = lambda utc_ms, style: _short(
            _moment(utc_ms).astimezone(zone), style
        )

    def whole(self, page: str, viewer: Viewer) -> str:
        """The page at this path."""
        template, values = self._values(page, viewer)
        return self._environment.get_template("base.html").render(
            main_template=template,
            page=page,
            site=self._site.name,
            now_utc_ms=self._clock.utc_ms(),
            **values,
        )

    def middle(self, page: str, viewer: Viewer) -> str:
        """What is inside ``main`` of the page at this path; rendered only when something in it has changed.

        May be called by several threads at once: at worst one of them renders what another has rendered.
        """
        template, values = self._values(page, viewer)
        before = self._middles.pop((page, viewer), None)
        if before is not None and before[0] == values:
            text = before[1]
        else:
            text = self._environment.get_template(template).render(**values)
        self._middles[page, viewer] = (values, text)
        while len(self._middles) > STREAMS_MAX:
            self._middles.pop(next(iter(self._middles)), None)
        return text

    def sorry(self, heading: str, words: str) -> str:
        """A page that says why something was not done."""
        return self._environment.get_template("base.html").render(
            main_template="sorry.html",
            page="/",
            site=self._site.name,
            now_utc_ms=self._clock.utc_ms(),
            heading=heading,
            words=words,
        )

    def shown_alerts(self) -> tuple[tuple[str, int], ...]:
        """(alert_id, rev) of what the board's page shows now."""
        return tuple((row.alert_id, row.rev) for row in self._board(self._clock.now_ms()).alerts)

    def _board(self, now_ms: int) -> views.BoardView:
        """The board, worked out once for all viewers: after each change, and each second."""
        showing, second = self._desk.showing, now_ms // 1_000
        if self._viewed is None or self._viewed[0] is not showing or self._viewed[1] != second:
            board = views.view(showing.board, showing.notices, now_ms, showing.storage_words)
            self._viewed = (showing, second, board)
            return board
        return self._viewed[2]

    def _values(self, page: str, viewer: Viewer) -> tuple[str, dict[str, object]]:
        showing = self._desk.showing
        now_ms = self._clock.now_ms()
        values: dict[str, object] = {"viewer": viewer, "roles": [role.value for role in wire.Role]}
        alert = parse_alert_page(page)
        if alert is None:
            return "board.html", {**values, "board": self._board(now_ms)}
        name, alert_id = alert
        home = showing.board.homes.get(name)
        known = home.alerts.get(alert_id) if home else None
        row = views.alert_row(showing.board, name, known, now_ms) if known else None
        history = []
        for message in self._store.revisions(name, alert_id):
            try:
                history.append(views.history_entry(wire.decode(message.payload, wire.Alert)))
            except wire.WireError:
                continue
        history.sort(key=lambda entry: (entry.rev, entry.utc_ms))
        return "alert.html", {**values, "row": row, "history": views.without_repeats(history)}


def parse_alert_page(page: str) -> tuple[str, str] | None:
    """(home, alert_id) of the page of an alert; None for every other path."""
    words = page.split("/")
    if len(words) == 4 and words[:2] == ["", "alert"]:
        topic = wire.parse_topic(wire.up(words[2], "alert", pump="p", alert_id=words[3]))
        if topic is not None and topic.alert_id is not None:
            return topic.home, topic.alert_id
    return None


class Cookies:
    """A pseudonym in a cookie that only we can have made, and the token for the forms that goes with it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def made(self, name: str, role: str) -> str:
        """A new cookie value."""
        value = f"{name}.{role}.{secrets.token_hex(16)}"
        return f"{value}.{self._sign('cookie', value)}"

    def read(self, cookie: str | None) -> Viewer:
        """Who that is; nobody if we have not made it."""
        value, _, signature = (cookie or "").rpartition(".")
        if not value or not hmac.compare_digest(signature.encode(), self._sign("cookie", value).encode()):
            return Viewer()
        name, role, session = value.split(".")
        return Viewer(name=name, role=role, session=session, token=self._sign("form", value))

    def _sign(self, purpose: str, value: str) -> str:
        return hmac.new(self._key, f"{purpose}:{value}".encode(), hashlib.sha256).hexdigest()


Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    *,
    desk: Desk,
    store: Store,
    clock: Clock,
    audience: Audience,
    site: SiteConfig,
    is_secure: bool,
    trace: Trace,
) -> ASGIApp:
    """The web application. ``is_secure``: it is served over TLS."""
    pages = Pages(desk, store, clock, site)
    cookies = Cookies(store.cookie_key)
    shown: set[tuple[str, int]] = set()

    def viewer_of(request: Request) -> Viewer:
        viewer = cookies.read(request.cookies.get(COOKIE))
        return Viewer(
            name=viewer.name,
            role=viewer.role,
            session=viewer.session,
            token=viewer.token,
            is_present=audience.is_present(viewer.session),
            is_asked=audience.is_asked(viewer.session),
        )

    async def page(request: Request) -> Response:
        path = request.url.path
        if path != "/" and parse_alert_page(path) is None:
            return sorry(404, "There is no such page", "Check the address.")
        return html(await run_in_threadpool(pages.whole, path, viewer_of(request)))

    async def events(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Only for pages of this dashboard.\n", status_code=403)
        path = request.query_params.get("page", "/")
        viewer = viewer_of(request)
        woken = audience.enter(viewer)
        if woken is None:
            return PlainTextResponse(
                "Too many pages are open on this dashboard; close some.\n", status_code=503
            )
        return StreamingResponse(stream(path, request, woken), media_type="text/event-stream")

    async def stream(path: str, request: Request, woken: asyncio.Event) -> AsyncIterator[str]:
        sent = ""
        spoke_ms = 0
        try:
            while not audience.is_over:
                woken.clear()
                alerts = pages.shown_alerts() if path == "/" else ()
                middle = await run_in_threadpool(pages.middle, path, viewer_of(request))
                now_ms = clock.now_ms()
                if middle != sent:
                    yield _event("main", wire.iso_utc(clock.utc_ms()), json.dumps(middle))
                    sent, spoke_ms = middle, now_ms
                    for alert_id, rev in alerts:
                        if (alert_id, rev) not in shown:
                            shown.add((alert_id, rev))
                            trace("shown", alert_id=alert_id, rev=rev)
                elif now_ms - spoke_ms >= STREAM_BEAT_EVERY_MS:
                    yield _event("beat", wire.iso_utc(clock.utc_ms()), "{}")
                    spoke_ms = now_ms
                try:
                    await asyncio.wait_for(woken.wait(), STREAM_SPEAKS_EVERY_S)
                    await asyncio.sleep(STREAM_GATHERS_S)
                except TimeoutError:
                    pass
        finally:
            audience.leave(woken)

    async def name(request: Request) -> Response:
        form = await request.form(max_fields=8)
        given = str(form.get("name", "")).strip().lower()
        role = str(form.get("role", ""))
        if not _PSEUDONYM.fullmatch(given) or role not in set(wire.Role):
            words = "Use 1 to 32 of a-z, 0-9 and -, such as nurse-07, and choose a role."
            return sorry(400, "This pseudonym cannot be used", words)
        cookie = cookies.made(given, role)
        audience.answer(cookies.read(cookie).session)
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(COOKIE, cookie, path="/", httponly=True, samesite="strict", secure=is_secure)
        return response

    async def leave(request: Request) -> Response:
        audience.forget(viewer_of(request).session)
        response = RedirectResponse("/", status_code=303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=is_secure)
        return response

    async def present(request: Request) -> Response:
        audience.answer(viewer_of(request).session)
        audience.changed()
        return RedirectResponse("/", status_code=303)

    async def acknowledge(request: Request) -> Response:
        form = await request.form(max_fields=8)
        viewer = viewer_of(request)
        try:
            wish = Acknowledge(
                home=str(form["home"]),
                alert_id=str(form["alert_id"]),
                rev=int(str(form["rev"])),
                by=viewer.name,
                role=wire.Role(viewer.role),
                adopt="adopt" in form,
                closes="closes" in form,
            )
        except (KeyError, ValueError):
            return sorry(400, "Nothing was acknowledged", "The form was not complete. Load the board anew.")
        known = desk.showing.board.homes.get(wish.home)
        if known is None or wish.alert_id not in known.alerts:
            return sorry(404, "Nothing was acknowledged", "This alert is not on the board any more.")
        if not 0 <= wish.rev <= known.alerts[wish.alert_id].newest.rev:
            return sorry(400, "Nothing was acknowledged", "This was never shown. Load the board anew.")
        audience.answer(viewer.session)
        return await do(wish, f"/#alert-{wish.home}-{wish.alert_id}")

    async def close(request: Request) -> Response:
        form = await request.form(max_fields=8)
        wish = CloseNotice(
            home=str(form.get("home", "")), key=str(form.get("key", "")), by=viewer_of(request).name
        )
        return await do(wish, "/")

    async def do(wish: Wish, then: str) -> Response:
        try:
            await asyncio.wait_for(asyncio.wrap_future(desk.ask(wish)), 10)
        except (queue.Full, TimeoutError, SQLAlchemyError):
            words = (
                "The dashboard could not store it, so it was not sent. Try again; if it stays so, telephone."
            )
            return sorry(503, "Nothing was done", words)
        return RedirectResponse(then, status_code=303)

    def ours(handler: Handler, needs_name: bool = True) -> Handler:
        """Only from a page of ours, and (where it ``needs_name``) by the viewer for whom that page was
        made."""

        async def guarded(request: Request) -> Response:
            if not is_from_our_page(request):
                return sorry(403, "Not done", "This did not come from a page of this dashboard.")
            if needs_name:
                viewer = viewer_of(request)
                form = await request.form(max_fields=8)
                token = str(form.get("token", ""))
                if not viewer.name or not hmac.compare_digest(token.encode(), viewer.token.encode()):
                    return sorry(403, "Not done", "Say who you are on the board first, then do it again.")
            return await handler(request)

        return guarded

    async def healthz(_request: Request) -> Response:
        showing = desk.showing
        is_well = showing.board.subscribed_ms is not None and not showing.storage_words
        return JSONResponse(
            {
                "broker": "connected" if showing.board.subscribed_ms is not None else "not connected",
                "storage": "failing" if showing.storage_words else "working",
                "homes": len(showing.board.homes),
                "messages_without_place": desk.missed,
            },
            status_code=200 if is_well else 503,
        )

    def html(text: str, status: int = 200) -> Response:
        return Response(
            text, status_code=status, media_type="text/html", headers={"Cache-Control": "no-store"}
        )

    def sorry(status: int, heading: str, words: str) -> Response:
        return html(pages.sorry(heading, words), status)

    return Guard(
        Starlette(
            routes=[
                Route("/", page),
                Route("/alert/{home}/{alert_id}", page),
                Route("/events", events),
                Route("/healthz", healthz),
                Route("/name", ours(name, needs_name=False), methods=["POST"]),
                Route("/leave", ours(leave), methods=["POST"]),
                Route("/present", ours(present), methods=["POST"]),
                Route("/ack", ours(acknowledge), methods=["POST"]),
                Route("/close", ours(close), methods=["POST"]),
                Mount("/static", StaticFiles(directory=_HERE / "static")),
            ]
        )
    )


def is_from_our_page(request: Request) -> bool:
    """Whether the browser says that a page of this origin has sent it. One that says nothing is refused."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return site == "same-origin"
    return origin.partition("://")[2] == request.headers.get("host")


class Guard:
    """Before everything else: the Host header, the size of what is sent; after it: the headers of
    security."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        request = Request(scope)
        refusal = _refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_BYTES_MAX:
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, receive_bounded, send_guarded)


def _refusal(request: Request) -> Response | None:
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        words = f"This dashboard answers only to 127.0.0.1 and localhost, not to {host[:100]!r}.\n"
        return PlainTextResponse(words, status_code=421)
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
        return PlainTextResponse(f"At most {BODY_BYTES_MAX} bytes may be sent.\n", status_code=413)
    return None


def _event(name: str, event_id: str, data: str) -> str:
    return f"event: {name}\nid: {event_id}\ndata: {data}\n\n"


def _moment(utc_ms: int) -> datetime:
    return datetime.fromtimestamp(_sayable(utc_ms) / 1000, UTC)


def _sayable(utc_ms: int) -> int:
    """The nearest time that every zone can say: no home may take the page away from the others."""
    return min(max(utc_ms, 0), _LAST_UTC_MS)


def _short(moment: datetime, style: str) -> str:
    """For a browser without our script: the site's own zone, named."""
    formats = {"time": "%H:%M %Z", "seconds": "%H:%M:%S %Z", "full": "%Y-%m-%d %H:%M:%S %Z"}
    return moment.strftime(formats[style])
