"""The gateway's memory over power cuts: one SQLite file with the alert book, the outbox and what must be
kept.

Write-ahead log, ``synchronous=FULL``: when ``Store.commit`` returns, an alert and the messages that it causes
are on the card, together. A file that cannot be read is set aside, never deleted, and a new one, with a new
``store`` token, takes its place. The schema has had a version from its first day; a newer one than ours is
refused, not guessed at.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from alerts.alert import Alert, AlertState
from alerts.sink import Lane, Message
from gateway.effects import Commit
from gateway.lanes import POLICIES, AnyLane, Draft, Fetch, LaneKept, LanePolicy, OwnLane, Waiting

SCHEMA_VERSION = 1
PAGE_BYTES = 1024
"""Of a new database. A commit writes whole pages, and most of ours change a few hundred bytes in each."""
PAGES_IN_MEMORY_MAX = 32_768
"""Without a card, so much is kept in memory: 32 MB."""
CHECKPOINT_PAGES = 4_000
"""So many pages in the log before it is copied into the database: about 4 MB."""

_SCHEMA = """
create table meta (name text primary key, value text not null) without rowid;
create table alert (alert_id text primary key, body blob not null) without rowid;
create table outbox (
    lane text not null, seq integer not null, body blob not null, primary key (lane, seq)
) without rowid;
create table waiting (
    lane text not null, place integer not null, body blob not null, primary key (lane, place)
) without rowid;
create table kept (name text primary key, body blob not null) without rowid;
"""


class StoreFailed(Exception):
    """The card cannot be read or written; the sentence says what happened."""


class StoreRefused(StoreFailed):
    """It is not the card: another gateway has it, or a newer one has written it."""


class Restored(Struct, frozen=True, kw_only=True):
    """What was found on the card at the start."""

    store: str
    """The token of this database: a new one for a new card."""
    alerts: tuple[Alert, ...]
    lanes: dict[AnyLane, LaneKept]
    kept: dict[str, bytes]
    set_aside: str | None = None
    """Name of the broken file that was set aside, if there was one."""
    without_card: bool = False
    """Nothing of this survives the process."""


class Store:
    """The open database. Used by one thread at a time; it decides nothing."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the database at ``path``. Raises StoreFailed if neither is possible.

        ``None``: in memory, for as long as this process lives, because the card cannot be used.
        """
        self.set_aside: str | None = None
        self._lock: IO[bytes] | None = None
        self._in_memory = path is None
        self.path = path or Path(":memory:")
        if path is None:
            self._database = self._open()
        else:
            self._open_on_card(path)

    def _open_on_card(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreFailed(
                f"{path.parent}: cannot be made ({error.strerror}). Set state_dir to a folder that can."
            ) from None
        lock = self._lock = self._alone()
        had_a_database = lock.tell() > 0
        try:
            if had_a_database and path.is_file() and path.stat().st_size == 0:
                raise sqlite3.DatabaseError("nothing is left of it")
            self._database = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            lock.close()
            raise StoreFailed(f"{path}: {error}. Is the folder writable, or the disk full?") from None
        except sqlite3.DatabaseError:
            self._begin_anew()
        except StoreFailed:
            lock.close()
            raise
        if not had_a_database:
            with contextlib.suppress(OSError):
                os.write(lock.fileno(), b"1\n")

    def restore(self) -> Restored:
        """Everything that was kept.

        What cannot be understood is set aside like a broken file. Raises StoreFailed if the card cannot be
        read.
        """
        try:
            return self._restore()
        except sqlite3.OperationalError as error:
            raise StoreFailed(f"{self.path}: {error}") from error
        except (sqlite3.DatabaseError, msgspec.DecodeError):
            return self.restore_anew()

    def restore_anew(self) -> Restored:
        """Set this database aside, which nobody understands; what a new one holds. Raises StoreFailed."""
        self._database.close()
        self._begin_anew()
        return self._restore()

    def commit(self, commit: Commit) -> None:
        """Write this in one transaction. Raises StoreFailed, and then nothing was written."""
        try:
            with self._database:
                self._database.execute("begin immediate")
                self._write(commit)
        except sqlite3.Error as error:
            raise StoreFailed(f"{self.path}: {error}") from error

    def fetch(self, fetch: Fetch) -> tuple[Waiting, ...]:
        """Drafts that wait at these places. Raises StoreFailed."""
        try:
            return self._waiting(
                "and place between ? and ? order by place", fetch.lane, fetch.first_place, fetch.last_place
            )
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise StoreFailed(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the database, and let another gateway have it."""
        self._database.close()
        if self._lock is not None:
            self._lock.close()

    def _alone(self) -> IO[bytes]:
        """Hold the folder: two gateways on one database would give one number twice. Raises StoreFailed.

        The kernel lets go of it when this process ends, however it ends.
        """
        try:
            lock = self.path.with_name("lock").open("ab")
        except OSError as error:
            raise StoreFailed(f"{self.path.parent}: {error.strerror}. Is the folder writable?") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StoreRefused(
                f"{self.path.parent} is in use by another gateway:"
                " stop that one, or give this one a state_dir of its own."
            ) from None
        return lock

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            if self._in_memory:
                database.execute(f"pragma max_page_count={PAGES_IN_MEMORY_MAX}")
            else:
                self.path.chmod(0o600)
            database.execute(f"pragma page_size={PAGE_BYTES}")
            database.execute("pragma journal_mode=wal")
            database.execute("pragma synchronous=full")
            database.execute(f"pragma wal_autocheckpoint={CHECKPOINT_PAGES}")
            version = database.execute("pragma user_version").fetchone()[0]
            if version == 0:
                with database:
                    database.execute("begin immediate")
                    for statement in _SCHEMA.split(";"):
                        if statement.strip():
                            database.execute(statement)
                    database.execute("insert into meta values ('store', ?)", (f"s-{secrets.token_hex(4)}",))
                    database.execute(f"pragma user_version={SCHEMA_VERSION}")
            elif version > SCHEMA_VERSION:
                raise StoreRefused(
                    f"{self.path} was written by a newer Dripwatch (schema {version}, this one knows"
                    f" {SCHEMA_VERSION}). Install that version again, or set state_dir to an empty folder."
                )
            (verdict,) = database.execute("pragma quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(str(verdict))
        except BaseException:
            database.close()
            raise
        return database

    def _begin_anew(self) -> None:
        """Set the broken file aside and open a new one. Raises StoreFailed."""
        aside = self.path.with_name(f"{self.path.name}.broken-{secrets.token_hex(4)}")
        try:
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(aside.with_name(aside.name + suffix))
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(
                f"{self.path} cannot be read, and not be set aside either ({error}). Is the folder writable?"
            ) from None
        self.set_aside = aside.name

    def _restore(self) -> Restored:
        store = self._meta("store")
        if store is None:
            raise sqlite3.DatabaseError("'store' is missing in table meta")
        alerts = tuple(
            msgspec.msgpack.decode(body, type=Alert)
            for (body,) in self._database.execute("select body from alert order by alert_id")
        )
        lanes: dict[AnyLane, LaneKept] = {lane: self._restore_lane(lane) for lane in (*Lane, *OwnLane)}
        kept = {
            str(name): bytes(body) for name, body in self._database.execute("select name, body from kept")
        }
        return Restored(
            store=store,
            alerts=alerts,
            lanes=lanes,
            kept=kept,
            set_aside=self.set_aside,
            without_card=self._in_memory,
        )

    def _meta(self, name: str) -> str | None:
        row = self._database.execute("select value from meta where name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _restore_lane(self, lane: AnyLane) -> LaneKept:
        next_seq = self._meta(f"next_seq/{lane}")
        numbered = tuple(
            msgspec.msgpack.decode(body, type=Message)
            for (body,) in self._database.execute(
                "select body from outbox where lane = ? order by seq", (lane,)
            )
        )
        window = POLICIES.get(lane, LanePolicy()).window
        waiting = self._waiting("order by place limit ?", lane, -1 if window is None else window)
        further = self._database.execute(
            "select place, length(body) from waiting where lane = ? and place > ? order by place",
            (lane, waiting[-1].place if waiting else 0),
        )
        places, sizes = array("q"), array("q")
        for place, size in further:
            places.append(place)
            sizes.append(size)
        return LaneKept(
            next_seq=int(next_seq or 1),
            numbered=numbered,
            waiting=waiting,
            further_places=places,
            further_bytes=sizes,
        )

    def _waiting(self, which: str, *parameters: object) -> tuple[Waiting, ...]:
        return tuple(
            Waiting(place=place, draft=msgspec.msgpack.decode(body, type=Draft))
            for place, body in self._database.execute(
                f"select place, body from waiting where lane = ? {which}",  # noqa: S608
                parameters,
            )
        )

    def _write(self, commit: Commit) -> None:
        execute = self._database.execute
        for alert in commit.alerts:
            if alert.state is AlertState.CLOSED:
                execute("delete from alert where alert_id = ?", (alert.alert_id,))
            else:
                execute(
                    "insert or replace into alert values (?, ?)",
                    (alert.alert_id, msgspec.msgpack.encode(alert)),
                )
        for changes in commit.lanes:
            lane = changes.lane
            if changes.taken_back:
                # A commit that was refused may be on the card all the same.
                execute("delete from outbox where lane = ? and seq >= ?", (lane, changes.next_seq))
            self._many(
                "insert or replace into outbox values (?, ?, ?)",
                ((lane, message.seq, msgspec.msgpack.encode(message)) for message in changes.numbered),
            )
            self._many(
                "insert or replace into waiting values (?, ?, ?)",
                ((lane, entry.place, msgspec.msgpack.encode(entry.draft)) for entry in changes.waiting),
            )
            self._many(
                "delete from waiting where lane = ? and place = ?",
                ((lane, place) for place in changes.no_longer_waiting),
            )
            if changes.released_up_to is not None:
                execute("delete from outbox where lane = ? and seq <= ?", (lane, changes.released_up_to))
            execute("insert or replace into meta values (?, ?)", (f"next_seq/{lane}", str(changes.next_seq)))
        self._many("insert or replace into kept values (?, ?)", commit.kept)

    def _many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._database.executemany(statement, rows)
