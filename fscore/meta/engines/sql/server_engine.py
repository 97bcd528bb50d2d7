"""The engine over a database server: optimistic transactions, batched reads, and what a lost connection means."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from fscore.domain.attr import Attr
from fscore.domain.errors import CorruptError, SettingError, StoreError, UnavailableError
from fscore.meta.engines.sql import chores
from fscore.meta.engines.sql.connections import Connection, Connections
from fscore.meta.engines.sql.dialects import Dialect
from fscore.meta.engines.sql.engine import SqlEngine
from fscore.meta.engines.sql.guards import guards
from fscore.meta.engines.sql.optimistic import ServerTxn, ServerView
from fscore.meta.engines.sql.places import Place
from fscore.meta.engines.sql.rows import NODE_COLUMNS, attr_of
from fscore.meta.engines.sql.servers import (
    DatabaseError,
    DuplicateError,
    LostError,
    ServerConnections,
    ServerDialect,
    ServerLink,
    UnknownError,
)
from fscore.meta.records import DirStat
from fscore.meta.txn import MetaTxn, MetaView

T = TypeVar("T")

DUPLICATES: Final = 10
"""Runs of one transaction that may find a key taken; a race is over sooner."""

"""The extra that brings the driver of a scheme."""


class ServerEngine(SqlEngine):
    """Records in the tables of a database server. Thread-safe."""

    def _connections(self, dialect: Dialect, place: Place) -> Connections:
        assert isinstance(dialect, ServerDialect)
        return ServerConnections(dialect, place, self._clock)

    def _view_of(self, link: Connection) -> MetaView:
        assert isinstance(link, ServerLink)
        return ServerView(link, self._sql)

    def transact(self, body: Callable[[MetaTxn], T]) -> T:
        """Run `body` on unlocked reads, then compare and write; see `optimistic`."""
        taken = 0

        def attempt(link: Connection) -> T:
            nonlocal taken
            try:
                return self._transact_once(link, body)
            except DatabaseError as error:
                cause = self._dialect.translate(error, self._place)
                taken += isinstance(cause, DuplicateError)
                if taken > DUPLICATES:
                    raise CorruptError(f"a number or name is taken that no record shows: {cause}") from error
                raise cause from error

        return self._attempts(attempt)

    def walk(self, parent: int, names: Sequence[bytes]) -> list[tuple[int, Attr]]:
        """The node of each name in turn, eight names a round trip; see `SupportsResolve`."""
        walks, width = guards(self._sql).walks, len(NODE_COLUMNS)
        found: list[tuple[int, Attr]] = []
        while len(found) < len(names):
            part = names[len(found) : len(found) + len(walks)]
            args = (*part[1:], found[-1][0] if found else parent, part[0])
            rows = self._rows(walks[len(part) - 1], *args)
            for at in range(0, width * len(part) if rows else 0, width):
                if rows[0][at] is None:
                    return found
                found.append((rows[0][at], attr_of(rows[0][at + 1 : at + width])))
            if not rows:
                return found
        return found

    def _transact_once(self, link: Connection, body: Callable[[MetaTxn], T]) -> T:
        assert isinstance(link, ServerLink)
        txn = ServerTxn(link, self._sql)
        try:
            result = body(txn)
        except (DatabaseError, StoreError):
            raise
        except Exception:
            txn.confirm()
            raise
        try:
            txn.commit()
        except UnknownError as error:
            try:
                happened = txn.happened()
            except (DatabaseError, StoreError):  # lost again, or no connection to be had: it may have
                happened = None
            if happened is None:
                raise UnavailableError(
                    f"the connection to {self.location} was lost at a commit, and its outcome is unknown"
                ) from error
            if not happened:
                raise LostError(str(error)) from error
        return result

    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int] | None:
        """As `SqlEngine`, and never twice: None when the outcome is unknown."""
        try:
            return super()._write(lambda link: chores.add_dir_stats(link, self._sql, deltas)) if deltas else []
        except UnknownError:
            return None

    def _write(self, work: Callable[[Connection], T]) -> T:
        """As `SqlEngine`; these jobs may be done twice, so that one whose outcome is unknown is."""

        def attempt(link: Connection) -> T:
            try:
                link.begin()
                result = work(link)
                link.commit()
            except UnknownError as error:
                raise LostError(str(error)) from error
            return result

        return self._attempts(attempt)


def open_server(url: str) -> ServerEngine:
    """The engine behind a META-URL of a database server. The driver is imported now, and may be missing."""
    scheme = url.partition("://")[0]
    try:
        dialect = _postgres() if scheme == "postgres" else _mysql()
    except ImportError as error:
        raise SettingError(f"{scheme}:// needs a driver: pip install 'fscore[{scheme}]' ({error})") from error
    return ServerEngine(dialect, dialect.place(url))


@functools.cache  # statements are compiled once for a dialect
def _postgres() -> ServerDialect:
    from fscore.meta.engines.sql.postgres import Postgres

    return Postgres()


@functools.cache
def _mysql() -> ServerDialect:
    from fscore.meta.engines.sql.mysql import Mysql

    return Mysql()
