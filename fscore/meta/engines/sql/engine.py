"""The engine over a SQL database: transactions, views, and the volume-wide records around the tree.

A transaction that loses its race, or finds the database locked by another process, runs again after a random wait, for
`PATIENCE_S` at most. The driver's errors end here: `Dialect.translate`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, NoReturn, TypeVar

from fscore.domain.attr import Attr, Entry
from fscore.domain.errors import ConflictError, SettingError, TransientError, UnavailableError
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.sql import acls, chores, quotas, scans
from fscore.meta.engines.sql.connections import Connection, Connections, Link, Row
from fscore.meta.engines.sql.dialects import Dialect, Sqlite
from fscore.meta.engines.sql.places import Place
from fscore.meta.engines.sql.rows import attr_of, edge_of, records_of, unpack_pairs
from fscore.meta.engines.sql.statements import create_all, statements
from fscore.meta.engines.sql.txn import SqlTxn, SqlView
from fscore.meta.records import Counter, DirStat, Edge, Session
from fscore.meta.txn import MetaTxn, MetaView
from fscore.runtime.clock import Clock, SystemClock

T = TypeVar("T")

PATIENCE_S: Final = 30.0
FIRST_WAIT_S: Final = 0.002
LONGEST_WAIT_S: Final = 0.25
PAGE: Final = 4096
NEGATIVE: Final = -1
"""Below every key that a scan goes by."""


class SqlEngine(MetaEngine):
    """Records in the tables of a SQL database. Thread-safe."""

    def __init__(
        self, dialect: Dialect, place: Place, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self._dialect = dialect
        self._place = place
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self._links = self._connections(dialect, place)
        self._unflushed = False
        self._sql = statements(dialect, place.table_prefix)

    def _connections(self, dialect: Dialect, place: Place) -> Connections:
        return Connections(dialect, place)

    @property
    def name(self) -> str:
        """URL scheme."""
        return self._place.scheme

    @property
    def location(self) -> str:
        """The URL without options."""
        return self._place.location

    def transact(self, body: Callable[[MetaTxn], T]) -> T:
        """Run `body` under the write lock; on a lost race or a locked database run it again."""
        return self._write(lambda link: body(SqlTxn(link, self._sql)))

    def view(self) -> AbstractContextManager[MetaView]:
        """Reads, each of what is committed at that moment."""
        return _Viewing(self._links, self._view_of)

    def _view_of(self, link: Connection) -> MetaView:
        return SqlView(link, self._sql)

    def nodes(self, inos: Sequence[int]) -> list[Attr | None]:
        """The attributes of many nodes, a hundred in a statement."""
        return self._read(functools.partial(scans.nodes, self._sql, inos))

    def scan_dir(self, ino: int, *, attrs: bool, batch: int = 4096) -> Iterator[list[Entry]]:
        """Entries by name, a page at a time."""
        after = b""
        while True:
            page = self._read(functools.partial(scans.dir_page, self._sql, ino, after, batch, attrs=attrs))
            if page:
                yield page
            if len(page) < batch:
                return
            after = page[-1].name

    def reserve(self, counter: Counter, count: int) -> range:
        """Fresh numbers; the row holds the next free one or the last one used (volume-format.md 2.3)."""
        return self._write(lambda link: chores.reserve(link, self._sql, counter, count))

    def load_setting(self) -> bytes | None:
        """The setting, None when there is no database or none of ours in it."""
        if not self._dialect.exists(self._place):
            return None
        return self._read(lambda link: chores.load_setting(link, self._sql))

    def init_volume(self, setting: bytes, nodes: Mapping[int, Attr]) -> None:
        """Make the tables that are missing, then everything a new volume has."""
        link = self._links.make()
        try:
            create_all(link, self._sql.tables, self._dialect)
        except Exception as error:  # noqa: BLE001 - translated or raised as it is
            self._raise(error)
        finally:
            link.close()
        if self.load_setting() is not None:
            raise SettingError(f"{self.location} holds a volume already")
        self._write(lambda link: chores.init_volume(link, self._sql, setting, nodes, self.location))

    def store_setting(self, setting: bytes) -> None:
        """Replace the setting."""
        if not self._write(lambda link: link.run(self._sql.put_setting, (setting.decode(),))):
            raise SettingError(f"there is no volume at {self.location}")

    def counters(self) -> dict[str, int]:
        """Every counter row."""
        return self._read(lambda link: {name.decode(): value for name, value in link.all(self._sql.all_counters)})

    def server_time(self) -> float:
        """Unix seconds; a file has no server but this machine."""
        now_us = self._read(self._dialect.now_us)
        return self._clock.now_ns() / 1e9 if now_us is None else now_us / 1e6

    def put_session(self, session: Session) -> bool:
        """Insert a session, or put off its expiry."""
        return self._write(lambda link: chores.put_session(link, self._sql, session))

    def sessions(self) -> list[Session]:
        """Every session."""
        return self._read(
            lambda link: [Session(sid, expire, info or b"") for sid, expire, info in link.all(self._sql.all_sessions)]
        )

    def legacy_sessions(self) -> list[Session]:
        """Rows of the old table, where there is one."""
        return self._read(lambda link: chores.legacy_sessions(link, self._sql))

    def sustained(self, sid: int) -> list[int]:
        """Inodes that a session keeps alive."""
        return self._read(lambda link: [ino for (ino,) in link.all(self._sql.get_sustained, (sid,))])

    def drop_session(self, sid: int) -> None:
        """Remove a session's locks and its record."""
        self._write(lambda link: chores.drop_session(link, self._sql, sid))

    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int] | None:
        """Relative updates; those that hit no row, or go below zero, are returned."""
        return self._write(lambda link: chores.add_dir_stats(link, self._sql, deltas)) if deltas else []

    def dir_stat(self, ino: int) -> DirStat | None:
        """Statistics of one directory."""
        row = self._read(lambda link: link.one(self._sql.get_dir_stat, (ino,)))
        return None if row is None else DirStat(*row)

    def set_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Store recomputed statistics."""
        self._write(lambda link: link.run(self._sql.put_dir_stat, (ino, *stat)))

    def load_quotas(self, *kinds: QuotaKind) -> dict[QuotaKey, Quota]:
        """Every quota record of these kinds."""
        return self._read(lambda link: quotas.load(link, self._sql.quotas, kinds))

    def scan_log(self) -> Iterator[tuple[int, bytes]]:
        """Rows of the change log, oldest first."""
        yield from map(_pair, self._pages(self._sql.quotas.scan_log))

    def count_log(self) -> int:
        """Rows of the change log."""
        row = self._read(lambda link: link.one(self._sql.quotas.count_log))
        return 0 if row is None else int(row[0])

    def trim_log(self, version: int) -> None:
        """Delete the oldest rows."""
        self._write(lambda link: link.run(self._sql.quotas.trim_log, (version,)))

    def take_dead(self, limit: int = 1000) -> list[tuple[int, int]]:
        """Slices with refs <= 0."""
        return self._read(lambda link: [(id_, size) for id_, size in link.all(self._sql.dead_slices, (limit,))])

    def forget_dead(self, slices: Iterable[tuple[int, int]]) -> None:
        """Delete the rows of dead slices."""
        pairs = list(slices)
        if pairs:
            self._write(lambda link: [link.run(self._sql.forget_slice, pair) for pair in pairs])

    def delfiles(self, before_s: int, limit: int = 1000) -> list[tuple[int, int]]:
        """Queued deletions up to a time."""
        rows = self._read(lambda link: link.all(self._sql.delfiles, (before_s, limit)))
        return [(ino, length) for ino, length in rows]

    def forget_delfile(self, ino: int, length: int) -> None:
        """Remove a queued deletion."""
        self._write(lambda link: link.run(self._sql.forget_delfile, (ino, length)))

    def delayed(self, before_s: int, limit: int = 1000) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Parked slices older than a time."""
        rows = self._read(lambda link: link.all(self._sql.delayed, (before_s, limit)))
        return [(new_id, at_s, unpack_pairs(blob)) for new_id, at_s, blob in rows]

    def forget_delayed(self, new_id: int, at_s: int) -> None:
        """Remove a parked list and drop its references."""
        self._write(lambda link: chores.forget_delayed(link, self._sql, new_id, at_s))

    def claim_job(self, gate: str, now_s: int, window_s: int) -> bool:
        """Take the turn when the last one is longer ago than the window."""
        return self._write(lambda link: chores.claim_job(link, self._sql, gate, now_s, window_s))

    def acls(self, after: int = 0) -> dict[int, bytes]:
        """ACL rules above a number."""
        return self._read(lambda link: acls.acls(link, self._sql.acls, after))

    def add_acl(self, rule: bytes) -> int:
        """Store an ACL rule."""
        return self._write(lambda link: acls.add_acl(link, self._sql.acls, rule))

    def used_features(self) -> frozenset[str]:
        """Features with a row in their table."""
        return self._read(lambda link: chores.used_features(link, self._sql))

    def scan_nodes(self) -> Iterator[tuple[int, Attr]]:
        """Every node, by inode."""
        for row in self._pages(self._sql.scan_nodes):
            yield row[0], attr_of(row[1:])

    def scan_edges(self) -> Iterator[tuple[int, bytes, Edge]]:
        """Every entry."""
        for _, parent, name, kind, ino in self._pages(self._sql.scan_edges):
            yield parent, name, edge_of(kind, ino)

    def scan_chunks(self) -> Iterator[tuple[int, int, tuple[SliceRecord, ...]]]:
        """Every chunk list."""
        for _, ino, index, blob in self._pages(self._sql.scan_chunks):
            yield ino, index, records_of(blob)

    def scan_refs(self) -> Iterator[tuple[int, int, int]]:
        """Every slice's references."""
        yield from map(_three, self._pages(self._sql.scan_refs))

    def scan_parents(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Parents of nodes whose `Attr.parent` is 0."""
        for (ino,) in self._pages(self._sql.scan_linked):
            yield ino, {row[0]: row[1] for row in self._rows(self._sql.get_parents, ino)}

    def scan_dir_stats(self) -> Iterator[tuple[int, DirStat]]:
        """Every directory statistic."""
        for ino, *numbers in self._pages(self._sql.scan_dir_stats):
            yield ino, DirStat(*numbers)

    def scan_delfiles(self) -> Iterator[tuple[int, int]]:
        """Every queued deletion."""
        yield from map(_two, self._pages(self._sql.all_delfiles))

    def scan_delayed(self) -> Iterator[tuple[int, int]]:
        """Every parked slice."""
        for _, blob in self._pages(self._sql.all_delayed):
            yield from unpack_pairs(blob)

    def scan_detached(self) -> Iterator[tuple[int, int]]:
        """Every root of a tree that is not linked yet."""
        yield from map(_two, self._read(lambda link: link.all(self._sql.all_detached)))

    def scan_sustained(self) -> Iterator[tuple[int, int]]:
        """Every inode that is deleted but open."""
        yield from map(_two, self._read(lambda link: link.all(self._sql.all_sustained)))

    def flush(self) -> None:
        """Make what was committed since the last flush durable. Usage is not held back: its transaction charges it."""
        if self._unflushed:
            self._unflushed = False
            self._read(self._dialect.harden)

    def close(self) -> None:
        """Close the connections."""
        self._links.close()

    def _pages(self, sql: str) -> Iterator[Row]:
        """Rows of a paged scan; the first column is what it goes on after. No connection is held between pages."""
        after = NEGATIVE
        while page := self._rows(sql, after, PAGE):
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, statement by statement."""

        def attempt(link: Connection) -> T:
            link.begin()
            result = work(link)
            link.commit()
            return result

        return self._attempts(attempt)

    def _attempts(self, attempt: Callable[[Connection], T]) -> T:
        """What an attempt over a writer's link returns; it is made again when it lost a race or the connection."""
        deadline: float | None = None
        wait = FIRST_WAIT_S
        while True:
            try:
                with self._links.writer() as link:
                    result = attempt(link)
                    self._unflushed = True
                    return result
            except Exception as error:
                cause = self._dialect.translate(error, self._place)
                if not isinstance(cause, TransientError | ConflictError):
                    if cause is error:
                        raise
                    raise cause from error
                now = self._clock.monotonic()
                deadline = deadline or now + PATIENCE_S
                if now + wait > deadline:
                    raise UnavailableError(f"a transaction found no turn for {PATIENCE_S:.0f} s: {cause}") from error
            self._clock.sleep(wait * self._rng.random())
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _read(self, work: Callable[[Link], T]) -> T:
        with self._links.reader() as link:
            try:
                return work(link)
            except Exception as error:  # noqa: BLE001 - translated or raised as it is
                self._raise(error)

    def _rows(self, sql: str, *args: object) -> list[Row]:
        return self._read(lambda link: link.all(sql, args))

    def _raise(self, error: Exception) -> NoReturn:
        _raise(self._dialect.translate(error, self._place), error)


class _Viewing:
    """A view and the link below it, for the time of a `with`."""

    __slots__ = ("_link", "_links", "_view")

    def __init__(self, links: Connections, view: Callable[[Connection], MetaView]) -> None:
        self._links = links
        self._view = view

    def __enter__(self) -> MetaView:
        self._link = self._links.take()
        return self._view(self._link)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._links.give(self._link)
        if isinstance(error, Exception):
            cause = self._links.dialect.translate(error, self._links.place)
            if cause is not error:
                _raise(cause, error)


def _raise(cause: Exception, error: Exception) -> NoReturn:
    if isinstance(cause, TransientError | ConflictError):
        cause = UnavailableError(str(cause))
    if cause is error:
        raise error
    raise cause from error


def _pair(row: Row) -> tuple[int, bytes]:
    return row[0], row[1]


def _two(row: Row) -> tuple[int, int]:
    return row[0], row[1]


def _three(row: Row) -> tuple[int, int, int]:
    return row[0], row[1], row[2]


def open_sqlite(url: str) -> SqlEngine:
    """The engine behind `sqlite3:///absolute/path.db` or `sqlite3://relative.db`."""
    dialect = _sqlite()
    return SqlEngine(dialect, dialect.place(url))


@functools.cache
def _sqlite() -> Sqlite:
    """One for the process: statements are compiled once for a dialect, which takes 50 ms."""
    return Sqlite()
