"""Connections to the database: a few writers, a pool of readers, and a fresh start after a fork.

A driver's own connection is used below SQLAlchemy's statements: it runs many times more statements a second.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fscore.domain.errors import SettingError, TransientError, UnavailableError
from fscore.meta.engines.sql.dialects import Dialect
from fscore.meta.engines.sql.links import Connection, Link, Row
from fscore.meta.engines.sql.places import Place

__all__ = ["Connection", "Connections", "Link", "Row"]

IDLE_READERS: Final = 8


class Connections:
    """Links to one database, made when first needed. Thread-safe; a forked child makes its own."""

    def __init__(self, dialect: Dialect, place: Place) -> None:
        self.dialect = dialect
        self.place = place
        self._closed = False
        self._most = min(place.connections or dialect.writers, dialect.writers)
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._writing = threading.BoundedSemaphore(self._most)
        self._writers: deque[Connection] = deque()
        self._readers: deque[Connection] = deque()

    @contextmanager
    def writer(self) -> Iterator[Connection]:
        """A link that may write; waits for its turn in this process."""
        self._check()
        writing, writers = self._writing, self._writers
        with writing:
            link = writers.pop() if writers else self._connect()
            try:
                yield link
            except BaseException:
                link.rollback()
                raise
            finally:
                self._put(link, writers, self._most)

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        """A link for reads."""
        link = self.take()
        try:
            yield link
        finally:
            self.give(link)

    def take(self) -> Connection:
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

    def give(self, link: Connection) -> None:
        """Take back what `take` gave."""
        self._put(link, self._readers, IDLE_READERS)

    def make(self) -> Connection:
        """A link to a database that may have to be made first; the caller closes it."""
        return self._connect(create=True)

    def _connect(self, *, create: bool = False) -> Connection:
        if not create and not self.dialect.exists(self.place):
            raise SettingError(f"there is no database at {self.place.location}; make a volume with `fscore format`")
        try:
            return self.dialect.connect(self.place, create=create)
        except Exception as error:
            raise self.dialect.translate(error, self.place) from error

    def _put(self, link: Connection, idle: deque[Connection], most: int) -> None:
        if self._closed or len(idle) >= most or self._pid != os.getpid() or not link.usable:
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
