"""The collector's database: every durable message, before its receipt.

A receipt says "stored": so each transaction is on the disk (SQLite, write-ahead log, ``synchronous=FULL``)
before ``Store.keep`` returns. Nothing is ever overwritten: a number that comes with other bytes is kept
beside the first. What is old is forgotten (``Store.forget``): telemetry after 30 days; alerts, a year after
they were closed, and other messages of their lane after a year (desk.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import sqlalchemy as sql
from msgspec import Struct
from sqlalchemy.engine import Connection, Engine

from alerts.dashboard.collector import Lost
from alerts.sink import Lane

SCHEMA_VERSION = 1


class StoreUnusable(Exception):
    """The database cannot be opened, or was made by another version."""


class Durable(Struct, frozen=True, kw_only=True):
    """A numbered message as it came, with what is needed to find it again."""

    home: str
    store: str
    lane: Lane
    seq: int
    topic: str
    payload: bytes
    arrived_utc_ms: int
    readable: bool = True
    pump: str | None = None
    alert_id: str | None = None
    rev: int | None = None
    closed: bool = False
    """Whether this revision closes its alert."""


class LaneKey(Struct, frozen=True, order=True):
    """One numbering."""

    home: str
    store: str
    lane: Lane


class Notice(Struct, frozen=True, kw_only=True):
    """Something the dashboard itself has to say of a home, until a person closes it."""

    home: str
    key: str
    kind: str
    message: str
    raised_utc_ms: int


_METADATA = sql.MetaData()

_ABOUT = sql.Table(
    "about",
    _METADATA,
    sql.Column("key", sql.String, primary_key=True),
    sql.Column("value", sql.String, nullable=False),
)

_MESSAGE = sql.Table(
    "message",
    _METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("home", sql.String, nullable=False),
    sql.Column("store", sql.String, nullable=False),
    sql.Column("lane", sql.String, nullable=False),
    sql.Column("seq", sql.BigInteger, nullable=False),
    sql.Column("sha256", sql.String, nullable=False),
    sql.Column("topic", sql.String, nullable=False),
    sql.Column("payload", sql.LargeBinary, nullable=False),
    sql.Column("arrived_utc_ms", sql.BigInteger, nullable=False),
    sql.Column("readable", sql.Boolean, nullable=False),
    sql.Column("pump", sql.String),
    sql.Column("alert_id", sql.String),
    sql.Column("rev", sql.BigInteger),
    sql.Column("closed", sql.Boolean, nullable=False),
    sql.UniqueConstraint("home", "store", "lane", "seq", "sha256"),
    sql.Index("message_of_alert", "home", "alert_id"),
    sql.Index("message_by_arrival", "lane", "arrived_utc_ms"),
)

_PROGRESS = sql.Table(
    "progress",
    _METADATA,
    sql.Column("home", sql.String, primary_key=True),
    sql.Column("store", sql.String, primary_key=True),
    sql.Column("lane", sql.String, primary_key=True),
    sql.Column("done", sql.BigInteger, nullable=False),
)

_LOST = sql.Table(
    "lost",
    _METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("home", sql.String, nullable=False),
    sql.Column("store", sql.String, nullable=False),
    sql.Column("lane", sql.String, nullable=False),
    sql.Column("first", sql.BigInteger, nullable=False),
    sql.Column("last", sql.BigInteger, nullable=False),
    sql.Column("reason", sql.String, nullable=False),
    sql.Column("recorded_utc_ms", sql.BigInteger, nullable=False),
)

_NOTICE = sql.Table(
    "notice",
    _METADATA,
    sql.Column("home", sql.String, primary_key=True),
    sql.Column("key", sql.String, primary_key=True),
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("message", sql.String, nullable=False),
    sql.Column("raised_utc_ms", sql.BigInteger, nullable=False),
    sql.Column("closed_by", sql.String),
    sql.Column("closed_utc_ms", sql.BigInteger),
)

_DEED = sql.Table(
    "deed",
    _METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("home", sql.String, nullable=False),
    sql.Column("topic", sql.String, nullable=False),
    sql.Column("payload", sql.LargeBinary, nullable=False),
    sql.Column("at_utc_ms", sql.BigInteger, nullable=False),
)


_CLOSED_HERE = sql.Table(
    "closed_here",
    _METADATA,
    sql.Column("home", sql.String, primary_key=True),
    sql.Column("alert_id", sql.String, primary_key=True),
    sql.Column("rev", sql.BigInteger, primary_key=True),
    sql.Column("closed_by", sql.String, nullable=False),
    sql.Column("closed_utc_ms", sql.BigInteger, nullable=False),
)


# What is asked all day long is put together once: with SQLAlchemy that takes longer than the asking.


def _forget() -> sql.Delete:
    late = _MESSAGE.alias()
    is_long_closed = sql.exists().where(
        late.c.home == _MESSAGE.c.home,
        late.c.alert_id == _MESSAGE.c.alert_id,
        late.c.closed.is_(True),
        late.c.arrived_utc_ms < sql.bindparam("before"),
    )
    is_done = sql.exists().where(
        _PROGRESS.c.home == _MESSAGE.c.home,
        _PROGRESS.c.store == _MESSAGE.c.store,
        _PROGRESS.c.lane == _MESSAGE.c.lane,
        _PROGRESS.c.done >= _MESSAGE.c.seq,
    )
    old = (
        sql.select(_MESSAGE.c.id)
        .where(
            _MESSAGE.c.lane == sql.bindparam("of_lane"),
            _MESSAGE.c.arrived_utc_ms < sql.bindparam("before"),
            sql.or_(_MESSAGE.c.alert_id.is_(None), is_long_closed),
            is_done,
        )
        .order_by(_MESSAGE.c.arrived_utc_ms)
        .limit(sql.bindparam("most"))
    )
    return _MESSAGE.delete().where(_MESSAGE.c.id.in_(old))


_FORGET = _forget()
_OF_NUMBER = sql.select(_MESSAGE.c.sha256).where(
    _MESSAGE.c.home == sql.bindparam("of_home"),
    _MESSAGE.c.store == sql.bindparam("of_store"),
    _MESSAGE.c.lane == sql.bindparam("of_lane"),
    _MESSAGE.c.seq == sql.bindparam("of_seq"),
)
_INSERT = _MESSAGE.insert()


class Kept(Struct, frozen=True, kw_only=True):
    """What ``Store.keep`` found of each message, in their order."""

    new: tuple[bool, ...]
    """False: the same bytes under the same number were stored before."""
    contradicts: tuple[bool, ...]
    """True: new, and the number was stored before with other bytes."""


Contradiction = Callable[[Durable], Notice]
"""What is to be said of a message whose number was stored before with other bytes."""


class Store:
    """One SQLite file (or, later, another database that SQLAlchemy knows). Used by one thread."""

    def __init__(self, url: str) -> None:
        """Opens or makes the database at ``url``. Raises StoreUnusable with a sentence for people."""
        try:
            self._engine = _open(url)
            _METADATA.create_all(self._engine)
            with self._engine.begin() as transaction:
                found = _about(transaction, "schema_version")
                if found is None:
                    transaction.execute(
                        _ABOUT.insert(),
                        [
                            {"key": "schema_version", "value": str(SCHEMA_VERSION)},
                            {"key": "cookie_key", "value": secrets.token_hex(32)},
                        ],
                    )
                elif found != str(SCHEMA_VERSION):
                    raise StoreUnusable(
                        f"{url}: this database has schema version {found}, and this program reads version "
                        f"{SCHEMA_VERSION}: use the program that made it, or name another file in [store] url"
                    )
                key = _about(transaction, "cookie_key")
        except sql.exc.SQLAlchemyError as error:
            raise StoreUnusable(
                f"{url}: the database cannot be opened ({_cause(error)}): check [store] url, that the "
                "directory exists and that this user may write there"
            ) from error
        assert key is not None
        self.cookie_key = bytes.fromhex(key)

    def close(self) -> None:
        """Gives the file back."""
        self._engine.dispose()

    def keep(
        self,
        messages: Sequence[Durable],
        done: Mapping[LaneKey, int] | None = None,
        lost: Sequence[tuple[LaneKey, Lost]] = (),
        notices: Sequence[Notice] = (),
        now_utc_ms: int = 0,
        contradiction: Contradiction | None = None,
    ) -> Kept:
        """One transaction: all of it is on the disk when this returns, or (an exception) none of it.

        What is to be said of a ``contradiction`` belongs to it too: a message is new only once.
        """
        notices = list(notices)
        new, contradicts = [], []
        with self._engine.begin() as transaction:
            for message in messages:
                is_new, other_bytes = _insert(transaction, message)
                new.append(is_new)
                contradicts.append(is_new and other_bytes)
                if contradicts[-1] and contradiction is not None:
                    notices.append(contradiction(message))
            for lane, number in (done or {}).items():
                _upsert(
                    transaction,
                    _PROGRESS,
                    {"home": lane.home, "store": lane.store, "lane": lane.lane.value},
                    {"done": number},
                )
            for lane, run in lost:
                transaction.execute(
                    _LOST.insert().values(
                        home=lane.home,
                        store=lane.store,
                        lane=lane.lane.value,
                        first=run.first,
                        last=run.last,
                        reason=run.reason,
                        recorded_utc_ms=now_utc_ms,
                    )
                )
            for notice in notices:
                # Said anew, it is open anew: that somebody closed the last one says nothing of this one.
                _upsert(
                    transaction,
                    _NOTICE,
                    {"home": notice.home, "key": notice.key},
                    {
                        "kind": notice.kind,
                        "message": notice.message,
                        "raised_utc_ms": notice.raised_utc_ms,
                        "closed_by": None,
                        "closed_utc_ms": None,
                    },
                )
        return Kept(new=tuple(new), contradicts=tuple(contradicts))

    def progress(self) -> dict[LaneKey, tuple[int | None, tuple[int, ...]]]:
        """For each lane: up to where all is done, and the numbers stored above that."""
        with self._engine.connect() as connection:
            done = {_lane_key(row): int(row.done) for row in connection.execute(sql.select(_PROGRESS))}
            lanes = {
                _lane_key(row)
                for row in connection.execute(
                    sql.select(_MESSAGE.c.home, _MESSAGE.c.store, _MESSAGE.c.lane).distinct()
                )
            }
            found: dict[LaneKey, tuple[int | None, tuple[int, ...]]] = {}
            for lane in lanes | set(done):
                above = connection.execute(
                    sql.select(_MESSAGE.c.seq)
                    .where(_of_lane(lane), _MESSAGE.c.seq > done.get(lane, 0))
                    .distinct()
                    .order_by(_MESSAGE.c.seq)
                )
                found[lane] = (done.get(lane), tuple(int(row.seq) for row in above))
        return found

    def newest_revisions(self, closed_since_utc_ms: int) -> tuple[Durable, ...]:
        """Every stored revision of each alert that is not closed, or was closed since; oldest first."""
        late = _MESSAGE.alias()
        long_closed = sql.exists().where(
            late.c.home == _MESSAGE.c.home,
            late.c.alert_id == _MESSAGE.c.alert_id,
            late.c.closed.is_(True),
            late.c.arrived_utc_ms < closed_since_utc_ms,
        )
        return self._messages(_MESSAGE.c.alert_id.is_not(None), ~long_closed)

    def revisions(self, home: str, alert_id: str) -> tuple[Durable, ...]:
        """All that is stored of one alert, as it came."""
        return self._messages(_MESSAGE.c.home == home, _MESSAGE.c.alert_id == alert_id)

    def telemetry_since(self, arrived_utc_ms: int) -> tuple[Durable, ...]:
        """The readable telemetry that arrived since, oldest first."""
        return self._messages(
            _MESSAGE.c.lane == Lane.TELEMETRY.value,
            _MESSAGE.c.arrived_utc_ms >= arrived_utc_ms,
            _MESSAGE.c.readable.is_(True),
        )

    def open_notices(self) -> tuple[Notice, ...]:
        """What the dashboard has said of its own accord and nobody has closed."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                sql.select(_NOTICE).where(_NOTICE.c.closed_utc_ms.is_(None)).order_by(_NOTICE.c.raised_utc_ms)
            )
            return tuple(
                Notice(
                    home=row.home,
                    key=row.key,
                    kind=row.kind,
                    message=row.message,
                    raised_utc_ms=row.raised_utc_ms,
                )
                for row in rows
            )

    def close_notice(self, home: str, key: str, by: str, at_utc_ms: int) -> None:
        """Records who closed a notice, and when; one that is closed already keeps its first name."""
        with self._engine.begin() as transaction:
            transaction.execute(
                _NOTICE.update()
                .where(_NOTICE.c.home == home, _NOTICE.c.key == key, _NOTICE.c.closed_utc_ms.is_(None))
                .values(closed_by=by, closed_utc_ms=at_utc_ms)
            )

    def close_here(self, home: str, alert_id: str, rev: int, by: str, at_utc_ms: int) -> None:
        """Records that somebody has closed an alert which its gateway no longer knows."""
        with self._engine.begin() as transaction:
            _upsert(
                transaction,
                _CLOSED_HERE,
                {"home": home, "alert_id": alert_id, "rev": rev},
                {"closed_by": by, "closed_utc_ms": at_utc_ms},
            )

    def closed_here(self) -> tuple[tuple[str, str, int], ...]:
        """(home, alert_id, rev) of all orphans that were closed here."""
        with self._engine.connect() as connection:
            return tuple(
                (row.home, row.alert_id, row.rev) for row in connection.execute(sql.select(_CLOSED_HERE))
            )

    def keep_deed(self, deed_id: str, home: str, topic: str, payload: bytes, at_utc_ms: int) -> None:
        """Records what a person has sent to a home, before it is sent."""
        with self._engine.begin() as transaction:
            transaction.execute(
                _DEED.insert().values(
                    id=deed_id, home=home, topic=topic, payload=payload, at_utc_ms=at_utc_ms
                )
            )

    def forget(self, lane: Lane, before_utc_ms: int, most: int) -> int:
        """Deletes at most so many messages of a lane that arrived before, the oldest first; how many.

        Never one that is not receipted yet, nor any revision of an alert that was not closed before then.
        """
        with self._engine.begin() as transaction:
            return transaction.execute(
                _FORGET, {"of_lane": lane.value, "before": before_utc_ms, "most": most}
            ).rowcount

    def lost(self) -> tuple[tuple[LaneKey, Lost], ...]:
        """All numbers that were passed over, in the order in which that was found."""
        with self._engine.connect() as connection:
            rows = connection.execute(sql.select(_LOST).order_by(_LOST.c.id))
            return tuple(
                (_lane_key(row), Lost(first=row.first, last=row.last, reason=row.reason)) for row in rows
            )

    def _messages(self, *conditions: sql.ColumnElement[bool]) -> tuple[Durable, ...]:
        with self._engine.connect() as connection:
            rows = connection.execute(sql.select(_MESSAGE).where(*conditions).order_by(_MESSAGE.c.id))
            return tuple(_durable(row) for row in rows)


def _open(url: str) -> Engine:
    engine = sql.create_engine(url)
    if engine.dialect.name == "sqlite":

        @sql.event.listens_for(engine, "connect")
        def _set_up(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA busy_timeout = 5000")

    return engine


def _cause(error: sql.exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error)


def _about(transaction: Connection, key: str) -> str | None:
    value = transaction.execute(sql.select(_ABOUT.c.value).where(_ABOUT.c.key == key)).scalar()
    return None if value is None else str(value)


def _insert(transaction: Connection, message: Durable) -> tuple[bool, bool]:
    """Whether these bytes are new under this number, and whether other bytes were there before."""
    digest = sha256(message.topic.encode() + b"\n" + message.payload).hexdigest()
    number = {
        "of_home": message.home,
        "of_store": message.store,
        "of_lane": message.lane.value,
        "of_seq": message.seq,
    }
    before = {row.sha256 for row in transaction.execute(_OF_NUMBER, number)}
    if digest in before:
        return False, False
    transaction.execute(
        _INSERT,
        {
            "home": message.home,
            "store": message.store,
            "lane": message.lane.value,
            "seq": message.seq,
            "sha256": digest,
            "topic": message.topic,
            "payload": message.payload,
            "arrived_utc_ms": message.arrived_utc_ms,
            "readable": message.readable,
            "pump": message.pump,
            "alert_id": message.alert_id,
            "rev": message.rev,
            "closed": message.closed,
        },
    )
    return True, bool(before)


def _upsert(
    transaction: Connection, table: sql.Table, key: Mapping[str, object], values: Mapping[str, object]
) -> None:
    update, insert = _upserts(table, tuple(key), tuple(values))
    of_key = {f"of_{name}": value for name, value in key.items()}
    if transaction.execute(update, {**of_key, **values}).rowcount == 0:
        transaction.execute(insert, {**key, **values})


@cache
def _upserts(
    table: sql.Table, key: tuple[str, ...], values: tuple[str, ...]
) -> tuple[sql.Update, sql.Insert]:
    condition = sql.and_(*(table.c[name] == sql.bindparam(f"of_{name}") for name in key))
    update = table.update().where(condition).values({name: sql.bindparam(name) for name in values})
    return update, table.insert()


def _of_lane(lane: LaneKey) -> sql.ColumnElement[bool]:
    return sql.and_(
        _MESSAGE.c.home == lane.home, _MESSAGE.c.store == lane.store, _MESSAGE.c.lane == lane.lane.value
    )


def _lane_key(row: Any) -> LaneKey:
    return LaneKey(row.home, row.store, Lane(row.lane))


def _durable(row: Any) -> Durable:
    return Durable(
        home=row.home,
        store=row.store,
        lane=Lane(row.lane),
        seq=row.seq,
        topic=row.topic,
        payload=row.payload,
        arrived_utc_ms=row.arrived_utc_ms,
        readable=row.readable,
        pump=row.pump,
        alert_id=row.alert_id,
        rev=row.rev,
        closed=row.closed,
    )
