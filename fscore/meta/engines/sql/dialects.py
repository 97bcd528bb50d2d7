"""What differs between databases: how SQL spells a few things, how a connection is made, which errors mean what.

A dialect is listed in `engine.DIALECTS` by URL scheme. SQLite stands here; `postgres` and `mysql` have modules of
their own, no other module knows a database by name.

How to write a statement that runs on SQLite, PostgreSQL and MySQL:

* SQLAlchemy Core over `tables.Tables`, compiled by `Statements.compiled` with the order of its parameters; columns are
  always named (no `SELECT *`, no whole-row update). Core quotes names (`group`, `key`); never write SQL text by hand.
* Upsert: `Dialect.upsert`, `upsert_set`, `insert_absent`; the refused value is `Dialect.excluded`. Always say the keys
  of the unique index meant. Joining bytes: `Dialect.concat`; bytes for a text column: `Dialect.as_text`.
* Numbers in the text are `ZERO` and `ONE` (or `sa.literal_column`), not Python ints, which become parameters. A LIMIT
  is `.limit(p("n")).offset(ZERO)`. Integers are signed 64 (I64) or signed 32 bit (I32); 64-bit lock owners are stored
  as two's complement. Blobs are bound as bytes, text as `str`; both come back as bytes.
* In a reader of `SqlView`/`SqlTxn` use `self._link.one` and `.all` with a plain SELECT: on servers the engine reads
  without locks and compares each such read at commit, with the rows locked; `for_update` is not wanted there. A SELECT
  whose rows have no natural order needs ORDER BY, else the comparison fails for nothing.
* An intent of `SqlTxn` is `self._link.run`, whose count is not known on servers (intents go out with the commit).
  Relative updates (`column + ?`) wherever others may write the row too.
* In `chores` (functions over a link, inside `SqlEngine._write`) statements run one by one: there a read that decides a
  write is locked by `Dialect.for_update`, and `run` returns the count of rows matched.
"""

from __future__ import annotations

import sqlite3
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from fscore.domain.errors import CorruptError, NoSpace, SettingError, StoreError, TransientError, UnavailableError
from fscore.meta.engines.sql.links import Connection, FileLink, Link
from fscore.meta.engines.sql.places import FilePlace, Place

BUSY_MS: Final = 5000
CACHE_KIB: Final = 16384
SYNCHRONOUS: Final = frozenset({"OFF", "NORMAL", "FULL", "EXTRA"})

Insert = Any
"""An insert with ON CONFLICT or its like: SQLAlchemy has one class for each database."""
Construct = Any
"""Such an insert, complete."""


class Dialect(ABC):
    """Spelling, connecting and translating for one kind of database. One object a kind; it holds no connection."""

    sqlalchemy: sa.Dialect
    writers: int
    """Connections that may write at the same time in one process."""
    shared: str = ""
    """What a SELECT ends with that keeps others from changing its rows until commit."""
    exclusive: str = ""
    """What a SELECT ends with that keeps others from changing or locking its rows until commit."""

    @abstractmethod
    def place(self, url: str) -> Place:
        """What a META-URL says. SettingError when it says too little."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Insert:
        """This database's own insert construct."""

    @abstractmethod
    def upsert_set(self, insert: Insert, keys: Sequence[str], values: Mapping[str, object]) -> Construct:
        """`insert`; where a row with these keys exists, set these values of it instead."""

    @abstractmethod
    def excluded(self, column: str, table: sa.Table) -> sa.ColumnElement[Any]:
        """In `upsert_set`, the value that could not be inserted."""

    @abstractmethod
    def insert_absent(self, insert: Insert) -> Construct:
        """`insert`, unless a row with its key exists."""

    @abstractmethod
    def concat(self, left: sa.ColumnElement[Any], right: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Two byte strings, joined."""

    @abstractmethod
    def as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Bytes as the text they are, unchanged."""

    @abstractmethod
    def for_update(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, locking the rows it reads."""

    @abstractmethod
    def connect(self, place: Place, *, create: bool) -> Connection:
        """A new connection. With `create` the database may be made."""

    @abstractmethod
    def exists(self, place: Place) -> bool:
        """Whether there is a database at all."""

    @abstractmethod
    def columns(self, link: Link, table: str) -> frozenset[str]:
        """The columns of a table; empty when there is no such table."""

    @abstractmethod
    def indexes(self, link: Link) -> frozenset[str]:
        """The names of all indexes."""

    @abstractmethod
    def now_us(self, link: Link) -> int | None:
        """Unix microseconds of the server; None when there is no server but this machine."""

    def harden(self, link: Link) -> None:  # noqa: B027 - most databases need nothing
        """Make what is committed survive a power cut, where commits alone do not."""

    @abstractmethod
    def translate(self, error: Exception, place: Place) -> Exception:
        """The error of our tree for one of the driver's; TransientError means: run the transaction again."""

    def upsert(self, insert: Insert, keys: Sequence[str], columns: Sequence[str]) -> Construct:
        """`insert`, replacing these columns of a row with the same keys."""
        table = insert.table
        assert isinstance(table, sa.Table)
        return self.upsert_set(insert, keys, {name: self.excluded(name, table) for name in columns})

    def as_blob(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """The value as bytes, whatever type the database took it for."""
        return sa.cast(value, sa.LargeBinary())


class Sqlite(Dialect):
    """A file. One writer at a time: a transaction takes the write lock at its begin (3.4: BEGIN IMMEDIATE)."""

    def __init__(self) -> None:
        self.sqlalchemy = SQLiteDialect_pysqlite(paramstyle="qmark")
        self.writers = 1

    def place(self, url: str) -> FilePlace:
        """A path."""
        return FilePlace(url)

    def insert(self, table: sa.Table) -> Insert:
        """The insert that knows ON CONFLICT."""
        return sqlite_insert(table)

    def upsert_set(self, insert: Insert, keys: Sequence[str], values: Mapping[str, object]) -> Construct:
        """ON CONFLICT DO UPDATE."""
        return insert.on_conflict_do_update(index_elements=list(keys), set_=dict(values))

    def excluded(self, column: str, table: sa.Table) -> sa.ColumnElement[Any]:
        """`excluded.column`."""
        return sa.literal_column(f"excluded.{column}", table.c[column].type)

    def insert_absent(self, insert: Insert) -> Construct:
        """ON CONFLICT DO NOTHING."""
        return insert.on_conflict_do_nothing()

    def concat(self, left: sa.ColumnElement[Any], right: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """The || operator, whose result is text and must be cast back (3.4)."""
        return left.op("||", return_type=sa.LargeBinary())(right)

    def as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A cast keeps the bytes, valid UTF-8 or not."""
        return sa.cast(value, sa.Text())

    def for_update(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The write lock covers everything."""
        return query

    def exists(self, place: Place) -> bool:
        """Whether the file is there."""
        return Path(place.address).exists()

    def connect(self, place: Place, *, create: bool) -> Connection:
        """As the official client opens it: WAL, 5 s busy timeout, synchronous NORMAL (or `?synchronous=FULL`)."""
        path = Path(place.address).absolute()
        mode = "rwc" if create else "rw"
        synchronous = place.options.get("synchronous", "NORMAL").upper()
        if synchronous not in SYNCHRONOUS:
            raise SettingError(f"synchronous={synchronous} is none of {', '.join(sorted(SYNCHRONOUS))}")
        connection = sqlite3.connect(
            f"file:{urllib.parse.quote(str(path))}?mode={mode}",
            uri=True,
            timeout=BUSY_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.text_factory = bytes
        try:
            for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", f"cache_size=-{CACHE_KIB}"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            connection.close()
            raise
        return FileLink(connection, "BEGIN IMMEDIATE")

    def columns(self, link: Link, table: str) -> frozenset[str]:
        """Asks the schema."""
        return frozenset(row[0].decode() for row in link.all("SELECT name FROM pragma_table_info(?)", (table,)))

    def indexes(self, link: Link) -> frozenset[str]:
        """Asks the schema."""
        return frozenset(row[0].decode() for row in link.all("SELECT name FROM sqlite_master WHERE type = 'index'"))

    def now_us(self, link: Link) -> int | None:
        """A file has no clock."""
        return None

    def harden(self, link: Link) -> None:
        """A checkpoint syncs the log, which commits with synchronous NORMAL only write. Blocks nobody."""
        link.all("PRAGMA wal_checkpoint(PASSIVE)")

    def translate(self, error: Exception, place: Place) -> Exception:
        """By SQLite's primary result code."""
        if not isinstance(error, sqlite3.Error):
            return error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = f"{place.location}: {error}"
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return TransientError(where)
        if code == sqlite3.SQLITE_FULL:
            return NoSpace(f"the disk of {where}")
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}:
            return CorruptError(where)
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
            return UnavailableError(where)
        if "no such table" in str(error) or "no such column" in str(error):
            return SettingError(f"{where}; this is no volume, or one that the official client has to upgrade first")
        return UnavailableError(where) if isinstance(error, sqlite3.OperationalError) else StoreError(where)
