"""MySQL, MariaDB and what speaks their protocol, through PyMySQL: several statements in one packet.

Transactions are READ COMMITTED: what a body read is compared under row locks at commit (`optimistic`). Tables that we
make have a binary UTF-8 collation of their own, so that the database's default (latin1 or case-insensitive, often)
does not govern names.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.mysql.base import MySQLDialect

from fscore.domain.errors import SettingError
from fscore.meta.engines.sql.dialects import Construct, Insert
from fscore.meta.engines.sql.links import Call, Link
from fscore.meta.engines.sql.packets import Channel, PacketError, render
from fscore.meta.engines.sql.places import MysqlPlace, Place
from fscore.meta.engines.sql.servers import Answer, DatabaseError, Fault, Lost, ServerDialect, Wire
from fscore.runtime.clock import SystemClock

CONNECT_TIMEOUT_S: Final = 10
KEEPALIVE: Final = {
    socket.TCP_KEEPIDLE: 20,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 30_000,
}
CHARSET: Final = "utf8mb4"
SHARED: Final = " LOCK IN SHARE MODE"
EXCLUSIVE: Final = " FOR UPDATE"
WITHOUT_SHARED_LOCKS: Final = ("TiDB", "OceanBase")
"""Servers that refuse or ignore a shared lock, by their version's words: readers lock there as writers do."""
UPTIME_SLACK_S: Final = 2
"""The server tells whole seconds, and its clock is not ours."""
COLLATION: Final = "utf8mb4_bin"
SESSION: Final[Sequence[Call]] = (
    ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", ()),
    ("SET autocommit = 1, sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'", ()),
)
LOCK_WAIT_S: Final = 10
"""How long a statement waits for a row or a table that others have locked."""
WAITS: Final = "SET innodb_lock_wait_timeout = %s, lock_wait_timeout = %s"

FAULTS: Final[Mapping[int, Fault]] = {
    1205: Fault.RETRY,  # lock wait timeout
    1213: Fault.RETRY,  # deadlock
    1020: Fault.RETRY,  # MariaDB: record has changed since last read
    3572: Fault.RETRY,
    8002: Fault.RETRY,  # TiDB: write conflict
    8022: Fault.RETRY,
    8028: Fault.RETRY,  # TiDB: schema changed meanwhile
    9007: Fault.RETRY,
    1062: Fault.DUPLICATE,
    1053: Fault.LOST,  # the server shuts down
    1077: Fault.LOST,
    1079: Fault.LOST,
    1317: Fault.LOST,  # interrupted by KILL
    1927: Fault.LOST,  # MariaDB: connection was killed
    2006: Fault.LOST,
    2013: Fault.LOST,
    2014: Fault.LOST,
    4031: Fault.LOST,
    2002: Fault.UNREACHABLE,
    2003: Fault.UNREACHABLE,
    2005: Fault.UNREACHABLE,
    1040: Fault.BUSY,
    1203: Fault.BUSY,
    1226: Fault.BUSY,
    1044: Fault.REFUSED,
    1045: Fault.REFUSED,
    1142: Fault.REFUSED,
    1290: Fault.REFUSED,  # read-only
    1698: Fault.REFUSED,
    1836: Fault.REFUSED,
    1049: Fault.NO_DATABASE,
    1146: Fault.NO_TABLE,
    1054: Fault.NO_TABLE,
    1264: Fault.RANGE,
    1690: Fault.RANGE,
    1366: Fault.TEXT,
    1300: Fault.TEXT,
    1406: Fault.LONG,
    1021: Fault.FULL,
    1114: Fault.FULL,
    1034: Fault.CORRUPT,
    1194: Fault.CORRUPT,
}
"""By error number (MySQL's and MariaDB's error references; 8xxx and 9xxx are TiDB's)."""


class MysqlWire(Wire):
    """One connection, made by PyMySQL; statements and answers go through `packets`."""

    def __init__(self, place: MysqlPlace, **parameters: Any) -> None:  # noqa: ANN401 - PyMySQL's
        line = _dial(place)
        try:
            self._connection = pymysql.connect(defer_connect=True, **parameters)
            self._connection.connect(line)
        except pymysql.MySQLError as error:
            line.close()
            raise _sorted(error, Fault.UNREACHABLE) from error
        self.born = SystemClock().monotonic()
        self._channel = Channel(self._connection)
        version = self._connection.get_server_info()
        self._shares = not any(kind in version for kind in WITHOUT_SHARED_LOCKS)

    @property
    def ident(self) -> int:
        """The server's thread of this connection."""
        return int(self._connection.thread_id())

    def batch(self, calls: Sequence[Call]) -> list[Answer]:
        """See `Wire`."""
        if not self._shares:
            calls = [(sql.replace(SHARED, EXCLUSIVE), args) for sql, args in calls]
        try:
            return [Answer(rows, count) for rows, count in self._channel.ask(render(calls), len(calls))]
        except PacketError as error:
            raise DatabaseError(FAULTS.get(error.number, Fault.OTHER), f"{error} ({error.number})") from error
        except (OSError, EOFError) as error:
            raise DatabaseError(Fault.LOST, f"the connection is lost: {error}") from error

    def close(self) -> None:
        """See `Wire`."""
        self._channel.close()


def _dial(place: MysqlPlace) -> socket.socket:
    """A socket to the server, which notices when the server's machine is gone."""
    try:
        if place.socket:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                line.connect(place.socket)
            except OSError:
                line.close()
                raise
            return line
        line = socket.create_connection((place.host, place.port), CONNECT_TIMEOUT_S)
    except OSError as error:
        raise DatabaseError(Fault.UNREACHABLE, str(error)) from error
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        line.setsockopt(socket.IPPROTO_TCP, option, value)
    return line


def _sorted(error: pymysql.MySQLError, other: Fault) -> DatabaseError:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return DatabaseError(FAULTS.get(number, other), f"{error.args[-1] if error.args else error} ({number})")


class Mysql(ServerDialect):
    """Spelling for MySQL 8.0 and MariaDB 10.3, and later."""

    shared = SHARED
    exclusive = EXCLUSIVE
    begin: Sequence[Call] = (("START TRANSACTION", ()),)
    snapshot: Sequence[Call] = (
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", ()),
        ("START TRANSACTION", ()),  # TiDB refuses READ ONLY, which would only be a promise
    )

    def __init__(self) -> None:
        self.sqlalchemy = MySQLDialect(paramstyle="format")

    def place(self, url: str) -> MysqlPlace:
        """A database, and who asks."""
        return MysqlPlace(url)

    def wire(self, place: Place, *, create: bool) -> Wire:
        """Connect, and set the session up."""
        assert isinstance(place, MysqlPlace)
        wire = MysqlWire(
            place,
            host=place.host,  # whose name a certificate must bear
            **_tls(place),
            user=place.user,
            password=place.password,
            database=place.database,
            charset=CHARSET,
            client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
            autocommit=None,
        )
        try:
            wire.batch(SESSION)
            _bound_waits(wire)
        except DatabaseError:
            wire.close()
            raise
        return wire

    def insert(self, table: sa.Table) -> Insert:
        """The insert that knows ON DUPLICATE KEY."""
        return mysql_insert(table)

    def upsert_set(self, insert: Insert, keys: Sequence[str], values: Mapping[str, object]) -> Construct:
        """ON DUPLICATE KEY UPDATE, which asks for no key."""
        return insert.on_duplicate_key_update(dict(values))

    def excluded(self, column: str, table: sa.Table) -> sa.ColumnElement[Any]:
        """VALUES(column), which MariaDB knows only."""
        return sa.func.VALUES(
            sa.literal_column(self.sqlalchemy.identifier_preparer.quote(column)), type_=table.c[column].type
        )

    def insert_absent(self, insert: Insert) -> Construct:
        """A key that exists is set to itself: INSERT IGNORE would swallow other errors, too."""
        table = insert.table
        column = next(iter(table.primary_key.columns))
        return insert.on_duplicate_key_update({column.name: column})

    def concat(self, left: sa.ColumnElement[Any], right: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """CONCAT()."""
        return sa.func.concat(left, right, type_=sa.LargeBinary())

    def as_blob(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Blobs stay blobs."""
        return value

    def as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Bytes that are UTF-8 (the caller's to check) as text."""
        return sa.func.convert(value.op("USING")(sa.literal_column(CHARSET)), type_=sa.Text())

    def for_update(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """FOR UPDATE."""
        return query.with_for_update()

    def columns(self, link: Link, table: str) -> frozenset[str]:
        """Asks the schema."""
        query = "SELECT column_name FROM information_schema.columns WHERE table_schema = database() AND table_name = %s"
        return frozenset(row[0].decode() for row in link.all(query, (table,)))

    def indexes(self, link: Link) -> frozenset[str]:
        """Asks the schema."""
        query = "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = database()"
        return frozenset(row[0].decode() for row in link.all(query))

    def now_us(self, link: Link) -> int | None:
        """The server's clock."""
        row = link.one("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)")
        return None if row is None else int(row[0])

    def outcome(self, wire: Wire, lost: Lost) -> bool | None:
        """MySQL forgets transactions. It is only made sure that this one is over, as all are when the server has
        started since: then the number of the lost connection is a stranger's, or our own.
        """
        if lost.ident == wire.ident or _uptime_s(wire) + UPTIME_SLACK_S < SystemClock().monotonic() - lost.born:
            return None
        here = "SELECT count(*) FROM information_schema.processlist WHERE id = %s"
        for attempt in range(1000):
            if not wire.batch([(here, (lost.ident,))])[0].rows[0][0]:
                break
            if not attempt:
                _kill(wire, lost.ident)
            wire.batch([("SELECT sleep(0.01)", ())])
        return None


def _bound_waits(wire: Wire) -> None:
    """A server that knows other names than InnoDB's (OceanBase) keeps its own bounds."""
    try:
        wire.batch([(WAITS, (LOCK_WAIT_S, LOCK_WAIT_S))])
    except DatabaseError as error:
        if error.fault is not Fault.OTHER:
            raise


def _uptime_s(wire: Wire) -> float:
    """How long the server has been up; for ever where it does not say."""
    rows = wire.batch([("SHOW GLOBAL STATUS LIKE 'Uptime'", ())])[0].rows
    return float(rows[0][1]) if rows else math.inf


def _kill(wire: Wire, ident: int) -> None:
    try:
        wire.batch([("KILL %s", (ident,))])
    except DatabaseError as error:
        if error.fault is Fault.LOST:
            raise  # anything else: it has ended by itself


def _tls(place: MysqlPlace) -> dict[str, Any]:
    """The option `tls` as the official client's driver reads it."""
    tls = place.options.get("tls", "false").lower()
    if tls in {"false", "0"}:
        return {"ssl_disabled": True}
    if tls == "preferred":
        return {}
    if tls not in {"true", "1", "skip-verify"}:
        raise SettingError(f"{place.location}: tls={tls} is none of true, false, skip-verify, preferred")
    context = ssl.create_default_context()
    if tls == "skip-verify":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}
