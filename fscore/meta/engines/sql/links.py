"""One connection to a database, the same on every driver, used by one thread at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

Row = tuple[Any, ...]
"""A row as the driver gives it; the statement says what is in it. Texts and blobs are bytes."""
Raw = Any
"""A driver's own connection: every driver has its own class and the standard has no Protocol for it."""
Call = tuple[str, Sequence[object]]
"""A statement and its parameters."""


class Link(ABC):
    """Runs statements."""

    __slots__ = ()

    @abstractmethod
    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """The first row, or None."""

    @abstractmethod
    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Every row."""

    @abstractmethod
    def run(self, sql: str, args: Sequence[object] = ()) -> int:
        """Rows that the statement matched; of an intent that goes out with the commit, 1."""

    def fetch(self, calls: Sequence[Call]) -> None:  # noqa: B027 - in a file a question costs no trip
        """These will be asked by `one` or `all`; where a question costs a round trip, ask them all in one."""


class Connection(Link):
    """A link that stands. Outside of `begin` and `commit` each statement is a transaction of its own."""

    __slots__ = ()

    @abstractmethod
    def begin(self) -> None:
        """Start a transaction that will write."""

    @abstractmethod
    def commit(self) -> None:
        """Make the transaction's changes true."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo an open transaction; nothing happens when none is open."""

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Whether the next one may have it: no transaction is open, the server has not hung up."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back to the database."""


class FileLink(Connection):
    """A connection of Python's sqlite3, in autocommit mode."""

    __slots__ = ("_begin", "execute", "raw")

    def __init__(self, raw: Raw, begin: str) -> None:
        self.raw = raw
        self._begin = begin
        self.execute: Callable[..., Any] = raw.execute

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """The first row, or None."""
        row: Row | None = self.execute(sql, args).fetchone()
        return row

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Every row."""
        rows: list[Row] = self.execute(sql, args).fetchall()
        return rows

    def run(self, sql: str, args: Sequence[object] = ()) -> int:
        """Rows that the statement changed."""
        count: int = self.execute(sql, args).rowcount
        return count

    def begin(self) -> None:
        """Take the write lock."""
        self.execute(self._begin)

    def commit(self) -> None:
        """Commit."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo."""
        if self.raw.in_transaction:
            self.raw.rollback()

    @property
    def usable(self) -> bool:
        """Whether no transaction is open."""
        return not self.raw.in_transaction

    def close(self) -> None:
        """Close the file."""
        self.raw.close()
