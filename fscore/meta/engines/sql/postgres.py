"""PostgreSQL, through libpq as psycopg wraps it: prepared statements, sent in pipelines.

Transactions are READ COMMITTED: what a body read is compared under row locks at commit (`optimistic`), so that no
stronger level is needed, and a client that knows nothing of ours (the official one) is held off by the same locks.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from psycopg import OperationalError, pq
from psycopg.conninfo import make_conninfo
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.postgresql.base import PGDialect

from fscore.domain.errors import SettingError
from fscore.meta.engines.sql.dialects import Construct, Insert
from fscore.meta.engines.sql.links import Call, Link, Row
from fscore.meta.engines.sql.places import Place, PostgresPlace
from fscore.meta.engines.sql.servers import Answer, DatabaseError, Fault, Lost, ServerDialect, Wire

DRIVERS_OWN: Final = frozenset({"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity"})
"""Options of the official client's driver, without meaning here."""
DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "fscore",
}
LOCK_WAIT_S: Final = 10
"""How long a statement waits for a lock that others hold, unless the URL says lock_timeout."""
LIBPQ: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())

FAULTS: Final[Mapping[str, Fault]] = {
    "40001": Fault.RETRY,
    "40P01": Fault.RETRY,
    "55P03": Fault.RETRY,
    "25P02": Fault.RETRY,
    "23505": Fault.DUPLICATE,
    "57P01": Fault.LOST,
    "57P02": Fault.LOST,
    "57P05": Fault.LOST,
    "25P03": Fault.LOST,
    "57P03": Fault.BUSY,
    "53300": Fault.BUSY,
    "28000": Fault.REFUSED,
    "28P01": Fault.REFUSED,
    "42501": Fault.REFUSED,
    "25006": Fault.REFUSED,
    "3D000": Fault.NO_DATABASE,
    "3F000": Fault.NO_DATABASE,
    "42P01": Fault.NO_TABLE,
    "42703": Fault.NO_TABLE,
    "22003": Fault.RANGE,
    "22021": Fault.TEXT,
    "22P05": Fault.TEXT,
    "22001": Fault.LONG,
    "53100": Fault.FULL,
    "XX001": Fault.CORRUPT,
    "XX002": Fault.CORRUPT,
}
"""By SQLSTATE (PostgreSQL manual, appendix A)."""

LIFE: Final = "SELECT pg_postmaster_start_time()::text, (SELECT stats_reset::text FROM pg_stat_bgwriter)"
"""Statistics begin anew after a crash that the postmaster outlives."""
INT_TYPES: Final = frozenset({20, 21, 23})
"""OIDs of int8, int2 and int4 (pg_type.dat)."""
INT8: Final = 20
BINARY: Final = 1
TEXT: Final = 0


class PostgresWire(Wire):
    """One connection, always in pipeline mode; a batch ends with a synchronisation."""

    def __init__(self, conninfo: str, *setup: Call) -> None:
        try:
            connection = pq.PGconn.connect(conninfo.encode())
        except OperationalError as error:
            raise DatabaseError(Fault.UNREACHABLE, str(error)) from error
        if connection.status != pq.ConnStatus.OK:
            message = _said(connection)
            connection.finish()
            raise DatabaseError(_connect_fault(message), message)
        connection.nonblocking = 1
        connection.enter_pipeline_mode()
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection.socket, select.POLLIN)
        self._names: dict[str, bytes] = {}
        self._decoders: dict[str, tuple[bool, ...]] = {}
        self._made = 0
        self.life = self.batch([*setup, (LIFE, ())])[-1].rows

    @property
    def ident(self) -> int:
        """The process of the server that serves this connection."""
        return int(self._connection.backend_pid)

    def batch(self, calls: Sequence[Call]) -> list[Answer]:
        """See `Wire`."""
        try:
            return self._answers(calls, self._send(calls))
        except OperationalError as error:
            raise DatabaseError(Fault.LOST, str(error) or _said(self._connection)) from error

    def _send(self, calls: Sequence[Call]) -> dict[int, tuple[str, bytes]]:
        """Send statements; by position in the batch those that had to be prepared, with the name they get."""
        connection, names = self._connection, self._names
        fresh: dict[int, tuple[str, bytes]] = {}
        making: dict[str, bytes] = {}
        for index, (sql, args) in enumerate(calls):
            name = names.get(sql) or making.get(sql)
            if name is None:
                self._made += 1
                name = making[sql] = b"s%d" % self._made
                fresh[index] = (sql, name)
                connection.send_prepare(name, sql.encode(), _types(args))
            connection.send_query_prepared(name, *_parameters(args), BINARY)
        connection.pipeline_sync()
        while connection.flush():
            self._poll.modify(connection.socket, select.POLLIN | select.POLLOUT)
            if any(event & select.POLLIN for _, event in self._poll.poll()):
                connection.consume_input()
            self._poll.modify(connection.socket, select.POLLIN)
        return fresh

    def _answers(self, calls: Sequence[Call], fresh: dict[int, tuple[str, bytes]]) -> list[Answer]:
        answers: list[Answer] = []
        failed: DatabaseError | None = None
        results = self._results()
        for index, (sql, _) in enumerate(calls):
            if index in fresh:
                prepared = next(results)
                if prepared.status == pq.ExecStatus.COMMAND_OK:
                    self._names[sql] = fresh[index][1]
                elif failed is None:
                    failed = _error(prepared)
            result = next(results)
            if result.status == pq.ExecStatus.TUPLES_OK:
                answers.append(Answer(self._rows(sql, result), result.ntuples))
            elif result.status == pq.ExecStatus.COMMAND_OK:
                answers.append(Answer([], result.command_tuples or 0))
            elif failed is None:
                failed = _error(result)
        for _ in results:
            pass
        if failed is not None:
            raise failed
        return answers

    def _results(self) -> Iterator[Any]:
        """Every result up to the synchronisation. Waiting lets other threads run."""
        connection, poll = self._connection, self._poll
        while True:
            while connection.is_busy():
                poll.poll()
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                if connection.status != pq.ConnStatus.OK:
                    raise DatabaseError(Fault.LOST, _said(connection))
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return
            yield result

    def _rows(self, sql: str, result: Any) -> list[Row]:  # noqa: ANN401 - psycopg has several classes of it
        decoders = self._decoders.get(sql)
        if decoders is None:
            decoders = tuple(result.ftype(column) in INT_TYPES for column in range(result.nfields))
            self._decoders[sql] = decoders
        get, columns = result.get_value, list(enumerate(decoders))
        rows: list[Row] = []
        for row in range(result.ntuples):
            values: list[object] = []
            for column, is_int in columns:
                value = get(row, column)
                values.append(int.from_bytes(value, "big", signed=True) if is_int and value is not None else value)
            rows.append(tuple(values))
        return rows

    def close(self) -> None:
        """See `Wire`."""
        self._connection.finish()


def _types(args: Sequence[object]) -> list[int]:
    """Numbers are int8, whatever column they meet; of what type anything else is, is the server's to find."""
    return [INT8 if isinstance(value, int) else 0 for value in args]


def _parameters(args: Sequence[object]) -> tuple[list[bytes | None], list[int]]:
    """Values and formats: numbers and texts as text, blobs as they are."""
    values: list[bytes | None] = []
    formats: list[int] = []
    for value in args:
        if isinstance(value, bytes):
            values.append(value)
            formats.append(BINARY)
        else:
            values.append(None if value is None else str(value).encode())
            formats.append(TEXT)
    return values, formats


def _error(result: Any) -> DatabaseError:  # noqa: ANN401 - psycopg has several classes of it
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode(errors="replace")
    fault = FAULTS.get(state)
    if fault is None:
        lost = not state or state.startswith("08") or (result.status == pq.ExecStatus.FATAL_ERROR and not state)
        fault = Fault.LOST if lost else Fault.OTHER
    return DatabaseError(fault, f"{message} ({state})" if state else message)


def _said(connection: Any) -> str:  # noqa: ANN401 - psycopg has several classes of it
    return str(connection.error_message.decode(errors="replace")).strip() or "the connection is lost"


def _connect_fault(message: str) -> Fault:
    """libpq gives no SQLSTATE of a connection that failed, only words."""
    words = {
        "starting up": Fault.BUSY,
        "shutting down": Fault.BUSY,
        "not yet accepting": Fault.BUSY,
        "too many clients": Fault.BUSY,
        "too many connections": Fault.BUSY,
        "remaining connection slots": Fault.BUSY,
        "does not exist": Fault.NO_DATABASE,
        "authentication": Fault.REFUSED,
        "no password": Fault.REFUSED,
        "permission denied": Fault.REFUSED,
        "pg_hba": Fault.REFUSED,
    }
    return next((fault for word, fault in words.items() if word in message), Fault.UNREACHABLE)


class Postgres(ServerDialect):
    """Spelling for PostgreSQL 10 and later."""

    shared = " FOR SHARE"
    exclusive = " FOR UPDATE"
    begin: Sequence[Call] = (("BEGIN ISOLATION LEVEL READ COMMITTED", ()), ("SELECT txid_current()", ()))
    snapshot: Sequence[Call] = (("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ()),)

    def __init__(self) -> None:
        self.sqlalchemy = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call] # SQLAlchemy's own

    def place(self, url: str) -> PostgresPlace:
        """A database, and what libpq needs to know."""
        return PostgresPlace(url)

    def wire(self, place: Place, *, create: bool) -> Wire:
        """Connect; options that libpq does not know are settings of the session, as the official client has it."""
        assert isinstance(place, PostgresPlace)
        known = DEFAULTS | {name: value for name, value in place.parameters.items() if name in LIBPQ}
        session = {
            name: value
            for name, value in place.parameters.items()
            if name not in LIBPQ | DRIVERS_OWN and not name.startswith("pool_")
        }
        if place.schema:
            session["search_path"] = place.schema
        options = [known.get("options", ""), *(f"-c {name}={_escaped(value)}" for name, value in session.items())]
        known["options"] = " ".join(filter(None, options))
        known["client_encoding"] = "UTF8"
        bound: Call = (f"SET lock_timeout = '{LOCK_WAIT_S}s'", ())  # no option: poolers refuse these
        try:
            wire = PostgresWire(make_conninfo(**known), *(() if "lock_timeout" in known["options"] else (bound,)))
        except ValueError as error:
            raise SettingError(f"{place.location}: {error}") from error
        if create and place.schema:
            wire.batch([(f"CREATE SCHEMA IF NOT EXISTS {self.sqlalchemy.identifier_preparer.quote(place.schema)}", ())])
        return wire

    def insert(self, table: sa.Table) -> Insert:
        """The insert that knows ON CONFLICT, and asks for no number back."""
        return postgres_insert(table).inline()

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
        """The || operator."""
        return left.op("||", return_type=sa.LargeBinary())(right)

    def as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """UTF-8, or an error."""
        return sa.func.convert_from(sa.cast(value, sa.LargeBinary()), sa.literal_column("'UTF8'"), type_=sa.Text())

    def for_update(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """FOR UPDATE."""
        return query.with_for_update()

    def columns(self, link: Link, table: str) -> frozenset[str]:
        """Asks the schema that comes first in the search path."""
        query = (
            "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass("
            "quote_ident(current_schema()) || '.' || quote_ident($1::text)) AND attnum > 0 AND NOT attisdropped"
        )
        return frozenset(row[0].decode() for row in link.all(query, (table,)))

    def indexes(self, link: Link) -> frozenset[str]:
        """Asks the schema that comes first in the search path."""
        query = (
            "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'i'"
        )
        return frozenset(row[0].decode() for row in link.all(query))

    def now_us(self, link: Link) -> int | None:
        """The server's clock."""
        row = link.one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return None if row is None else int(row[0])

    def outcome(self, wire: Wire, lost: Lost) -> bool | None:
        """PostgreSQL remembers what became of a transaction.

        After a crash, numbers of which nothing had been written are given out anew: then "committed" may be said of
        somebody else's transaction, while anything else tells that ours was not.
        """
        status, same_life = _status(wire, lost.number), wire.life == lost.life
        if status == b"in progress" and same_life:  # the server has not noticed yet that nobody listens
            wire.batch([("SELECT pg_terminate_backend($1::int)", (lost.ident,))])
            gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1::int"
            for _ in range(1000):
                if not wire.batch([(gone, (lost.ident,)), ("SELECT pg_sleep(0.01)", ())])[0].rows[0][0]:
                    break
            status = _status(wire, lost.number)
        if status == b"committed":
            return True if same_life else None
        return None if status is None or (same_life and status == b"in progress") else False


def _status(wire: Wire, number: int) -> bytes | None:
    try:
        status: bytes | None = wire.batch([("SELECT txid_status($1::bigint)", (number,))])[0].rows[0][0]
    except DatabaseError as error:
        if "is in the future" in str(error):  # nothing of it was written before a crash
            return b"aborted"
        raise
    return status


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
