"""Connections to the database: a few writers, a pool of readers, and a fresh start after a fork.

A raw DBAPI connection is used below SQLAlchemy's statements: the plain driver runs many times more statements a second.
`Link` narrows it to three calls, the same on every driver.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fscore.domain.errors import SettingError, TransientError, UnavailableError
from fscore.meta.engines.sql.dialects import Dialect, Place, Raw

IDLE_READERS: Final = 8
Row = tuple[Any, ...]
"""A row as the driver gives it; the statement says what is in it."""


class Link:
    """One connection, used by one thread at a time."""

    __slots__ = ("execute", "raw")

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
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

    def close(self) -> None:
        """Give the connection back to the database."""
        self.raw.close()


class Connections:
    """Links to one database, made when first needed. Thread-safe; a forked child makes its own."""

    def __init__(self, dialect: Dialect, place: Place) -> None:
        self.dialect = dialect
        self.place = place
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._writing = threading.BoundedSemaphore(self.dialect.writers)
        self._writers: deque[Link] = deque()
        self._readers: deque[Link] = deque()

    @contextmanager
    def writer(self) -> Iterator[Link]:
        """A link that may write; waits for its turn in this process."""
        self._check()
        writing, writers = self._writing, self._writers
        with writing:
            link = writers.pop() if writers else self._connect()
            try:
                yield link
            except BaseException:
                if link.raw.in_transaction:
                    link.raw.rollback()
                raise
            finally:
                self._put(link, writers, self.dialect.writers)

    @contextmanager
    def reader(self) -> Iterator[Link]:
        """A link for reads."""
        link = self.take()
        try:
            yield link
        finally:
            self.give(link)

    def take(self) -> Link:
        """A link for reads, to be given back by `give`."""
        self._check()
        try:
            return self._readers.pop()
        except IndexError:
            pass
        try:
            return self._connect()
        except TransientError as error:
            raise UnavailableError(str(error)) from error

    def give(self, link: Link) -> None:
        """Take back what `take` gave."""
        self._put(link, self._readers, IDLE_READERS)

    def make(self) -> Link:
        """A link to a database that may have to be made first; the caller closes it."""
        return self._connect(create=True)

    def _connect(self, *, create: bool = False) -> Link:
        if not create and not self.dialect.exists(self.place):
            raise SettingError(f"there is no database at {self.place.location}; make a volume with `fscore format`")
        try:
            return Link(self.dialect.connect(self.place, create=create))
        except Exception as error:
            raise self.dialect.translate(error, self.place) from error

    def _put(self, link: Link, idle: deque[Link], most: int) -> None:
        if self._closed or len(idle) >= most or self._pid != os.getpid():
            link.close()
        else:
            idle.append(link)

    def _check(self) -> None:
        if self._closed:
            raise UnavailableError(f"{self.place.location} is closed")
        if self._pid != os.getpid():
            self._inherited = (self._writers, self._readers)  # closing them would release the parent's file locks
            self._start()

    def close(self) -> None:
        """Close every idle link, and those in use when they come back."""
        self._closed = True
        if self._pid != os.getpid():
            return
        for idle in (self._readers, self._writers):
            while idle:
                idle.pop().close()
