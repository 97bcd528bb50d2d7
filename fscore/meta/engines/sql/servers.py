"""Connections to a database server: statements in batches, faults sorted by what is to be done, fresh starts.

A batch of statements travels in one round trip (`Wire.batch`). A connection that is lost outside of a transaction is
replaced and asked again; inside of one the transaction runs again; at its commit the outcome is found out
(`ServerDialect.outcome`) or, where that cannot be known, left to the one who knows what was written.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from fscore.domain.errors import (
    ConflictError,
    CorruptError,
    Invalid,
    NoSpace,
    SettingError,
    StoreError,
    TooLarge,
    TransientError,
    UnavailableError,
)
from fscore.meta.engines.sql.connections import Connections
from fscore.meta.engines.sql.dialects import Dialect
from fscore.meta.engines.sql.links import Call, Connection, Row
from fscore.meta.engines.sql.places import Place
from fscore.runtime.clock import Clock

WRITERS: Final = 8
"""Transactions at the same time in one process; fewer when the URL says max_open_conns."""
READERS: Final = 16
"""Connections that read at the same time; when the URL says max_open_conns, what it leaves beside the writers."""
RECONNECT_S: Final = 30.0
TURN_S: Final = 30.0
"""How long a reader waits for one of these connections."""
FIRST_WAIT_S: Final = 0.02
LONGEST_WAIT_S: Final = 0.5
REPEATS: Final = 5
"""Times that reads are asked again, each on a new connection."""


class Fault(enum.Enum):
    """What is to be done about an error of a server."""

    RETRY = "run the transaction again"
    DUPLICATE = "a key exists: run the transaction again, it will see it"
    LOST = "the connection is gone"
    UNREACHABLE = "no connection to be had, perhaps not yet"
    BUSY = "the server is starting, or has no connection left"
    REFUSED = "credentials, permissions"
    NO_DATABASE = "no such database"
    NO_TABLE = "no such table or column"
    RANGE = "a number does not fit its column"
    TEXT = "bytes that are no text"
    LONG = "a value is too long for its column"
    FULL = "the server's disk is full"
    CORRUPT = "the server says that its data are damaged"
    OTHER = "none of these"


class DatabaseError(Exception):
    """A server's or driver's error, sorted."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.fault = fault


class LostError(TransientError):
    """The connection is gone; nothing of the transaction has happened."""


class DuplicateError(ConflictError):
    """A key that was to be inserted exists."""


class UnknownError(Exception):
    """The connection was lost at a commit, and the database cannot tell what became of it. Never leaves the engine."""


class Answer(NamedTuple):
    """Rows of a query; of a change the number of rows that it matched."""

    rows: list[Row]
    matched: int


class Wire:
    """A driver's connection, narrowed. Raises DatabaseError only."""

    @abstractmethod
    def batch(self, calls: Sequence[Call]) -> list[Answer]:
        """Run statements one after the other in one round trip, up to the first that fails, whose error is raised."""

    @abstractmethod
    def close(self) -> None:
        """Hang up."""

    @property
    @abstractmethod
    def ident(self) -> int:
        """The server's number of this connection."""

    life: object = None
    """Another one after the server has crashed or was replaced: then it may count transactions anew."""
    born: float = 0.0
    """When it connected, in seconds of this machine's monotonic clock; kept where the server has no lives to tell."""


class Lost(NamedTuple):
    """A commit whose answer did not come: the connection's number, its server's life, the transaction's number, and
    when the connection was made.
    """

    ident: int
    life: object
    number: int
    born: float


class ServerDialect(Dialect):
    """What a kind of server adds."""

    writers = WRITERS
    begin: Sequence[Call]
    """Starts a transaction. When the last of these has a row, its first column is the transaction's number."""
    snapshot: Sequence[Call]
    """Starts a read-only transaction that sees one moment."""

    @abstractmethod
    def wire(self, place: Place, *, create: bool) -> Wire:
        """A new connection."""

    @abstractmethod
    def outcome(self, wire: Wire, lost: Lost) -> bool | None:
        """Whether the transaction was committed; None when the server cannot tell. It is over when this returns."""

    def connect(self, place: Place, *, create: bool) -> Connection:
        """A link over a new connection."""
        return ServerLink(self, place, self.wire(place, create=create))

    def exists(self, place: Place) -> bool:
        """A server makes no database by being asked."""
        return True

    def translate(self, error: Exception, place: Place) -> Exception:
        """By the fault."""
        if not isinstance(error, DatabaseError):
            return error
        where = f"{place.location}: {error}"
        made: dict[Fault, Exception] = {
            Fault.RETRY: ConflictError(where),
            Fault.DUPLICATE: DuplicateError(where),
            Fault.LOST: LostError(where),
            Fault.UNREACHABLE: TransientError(where),
            Fault.BUSY: TransientError(where),
            Fault.REFUSED: UnavailableError(where),
            Fault.NO_DATABASE: SettingError(f"{where}; create the database, then make a volume with `fscore format`"),
            Fault.NO_TABLE: SettingError(f"{where}; {NO_VOLUME}"),
            Fault.RANGE: Invalid(f"a number is too large for a column: {where}"),
            Fault.TEXT: Invalid(f"a name that is no text in the database's encoding: {where}"),
            Fault.LONG: TooLarge(f"a value is too long for its column: {where}"),
            Fault.FULL: NoSpace(f"the disk of {where}"),
            Fault.CORRUPT: CorruptError(where),
        }
        return made.get(error.fault) or StoreError(where)


NO_VOLUME: Final = "this is no volume, or one that the official client has to upgrade first"


class ServerLink(Connection):
    """A connection to a server; see the module."""

    __slots__ = ("_begun", "_dialect", "_number", "_place", "_wire", "reopen", "trips")

    def __init__(self, dialect: ServerDialect, place: Place, wire: Wire) -> None:
        self._dialect = dialect
        self._place = place
        self._wire: Wire | None = wire
        self._begun: bool | None = None
        self._number = 0
        self.trips = 0
        self.reopen: Callable[[], Wire] = lambda: dialect.wire(place, create=False)

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """The first row, or None."""
        rows = self.ask([(sql, args)])[0].rows
        return rows[0] if rows else None

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Every row."""
        return self.ask([(sql, args)])[0].rows

    def run(self, sql: str, args: Sequence[object] = ()) -> int:
        """Rows that the statement matched. Never sent twice."""
        return self.ask([(sql, args)], repeat=False)[0].matched

    def ask(self, calls: Sequence[Call], *, repeat: bool = True) -> list[Answer]:
        """Run statements in one round trip."""
        if self._begun is None:
            return self._ask_freely(calls, repeats=REPEATS if repeat else 0)
        if self._begun:
            return self._send(calls)
        first = self._dialect.begin
        answers = self._ask_freely([*first, *calls], repeats=REPEATS)  # without a commit nothing has happened
        self._begun = True
        numbered = answers[len(first) - 1].rows
        self._number = numbered[0][0] if numbered else 0
        return answers[len(first) :]

    def glance(self, calls: Sequence[Call]) -> list[Answer]:
        """Run queries that see one moment, in one round trip. After an error the connection is given up: a transaction
        is open on it.
        """
        first = self._dialect.snapshot
        try:
            return self._send([*first, *calls, COMMIT])[len(first) : -1]
        except BaseException:
            self._give_up()
            raise

    def begin(self) -> None:
        """Start a transaction; it travels with its first statement."""
        self._begun = False

    def commit(self) -> None:
        """Commit."""
        if self._begun:
            self.finish(())
        self._begun = None

    def finish(self, calls: Sequence[Call]) -> None:
        """Run the transaction's last statements and commit, in one round trip.

        UnknownError when nobody can tell the outcome.
        """
        if not self._begun:
            self.ask(())
        lost = Lost(self.wire.ident, self.wire.life, self._number, self.wire.born)
        try:
            self._send([*calls, COMMIT])
            self._begun = None
        except DatabaseError as error:
            if error.fault is not Fault.LOST:
                raise
            self._begun = None
            self._find_out(lost, error)

    def _find_out(self, lost: Lost, error: DatabaseError) -> None:
        """Return when the lost commit has happened."""
        outcome: bool | None = None
        for _ in range(REPEATS):
            try:
                outcome = self._dialect.outcome(self.wire, lost)
                break
            except StoreError:  # no connection to be had, for all the patience there is
                break
            except BaseException as again:  # as in `_send`; lost again, it is still the outcome that is asked for
                self._give_up()
                if not isinstance(again, DatabaseError):
                    raise
        if outcome is None:
            raise UnknownError(str(error)) from error
        if not outcome:
            raise error

    def rollback(self) -> None:
        """Undo; a connection that cannot is given up."""
        begun, self._begun = self._begun, None
        if begun is None or self._wire is None:
            return
        try:
            self._wire.batch([ROLLBACK])
        except DatabaseError:
            self._give_up()
        except BaseException:
            self._give_up()  # as in `_send`
            raise

    @property
    def wire(self) -> Wire:
        """The connection, a new one when the last is lost."""
        if self._wire is None:
            self._wire = self.reopen()
        return self._wire

    @property
    def usable(self) -> bool:
        """Whether no transaction is open and the connection stands."""
        return self._begun is None and self._wire is not None

    def close(self) -> None:
        """Hang up."""
        self._give_up()

    def steal(self) -> Wire:
        """The connection of a link that is given up for it."""
        wire, self._wire = self.wire, None
        return wire

    def _ask_freely(self, calls: Sequence[Call], repeats: int) -> list[Answer]:
        again = {Fault.LOST, Fault.RETRY} if self._begun is None else {Fault.LOST}  # no transaction is left open
        while True:
            try:
                return self._send(calls)
            except DatabaseError as error:
                if error.fault not in again or not repeats:
                    raise
                repeats -= 1

    def _send(self, calls: Sequence[Call]) -> list[Answer]:
        self.trips += 1
        wire = self.wire
        try:
            return wire.batch(calls)
        except BaseException as error:  # whoever was interrupted has left answers unread
            if not isinstance(error, DatabaseError) or error.fault is Fault.LOST:
                self._give_up()
            raise

    def _give_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


COMMIT: Final[Call] = ("COMMIT", ())
ROLLBACK: Final[Call] = ("ROLLBACK", ())


class ServerConnections(Connections):
    """As `Connections`, but a server has not many to give: who reads waits for a turn, too. Once the server has
    answered, a while without one is waited for.

    Writers and readers wait in two lines: a transaction's body may open a view, nothing is opened inside of a view. A
    thread that breaks this rule is told after a while, and not stuck.
    """

    def __init__(self, dialect: ServerDialect, place: Place, clock: Clock) -> None:
        self._most_readers = READERS
        super().__init__(dialect, place)
        self._clock = clock
        self._met = False

    def _start(self) -> None:
        if allowed := self.place.connections:
            self._most = min((allowed + 1) // 2, self.dialect.writers)
            self._most_readers = max(allowed - self._most, 1)
        super()._start()
        self._readers = self._writers  # a connection to a server does for both
        self._reading = threading.BoundedSemaphore(self._most_readers)

    def take(self) -> Connection:
        """A link for reads, when it is its turn."""
        self._check()
        reading = self._reading
        if not reading.acquire(timeout=TURN_S):
            raise UnavailableError(
                f"{self.place.location}: none of {self._most_readers} connections for reading came free for "
                f"{TURN_S:.0f} s; is the server slow, or max_open_conns too small?"
            )
        try:
            return super().take()
        except BaseException:
            reading.release()
            raise

    def give(self, link: Connection) -> None:
        """Take back what `take` gave, maybe before a fork."""
        try:
            super().give(link)
        finally:
            with contextlib.suppress(ValueError):
                self._reading.release()

    def _connect(self, *, create: bool = False) -> Connection:
        deadline = self._clock.monotonic() + RECONNECT_S
        wait = FIRST_WAIT_S
        while True:
            try:
                return self._met_by(self.dialect.connect(self.place, create=create))
            except DatabaseError as error:
                cause = self.dialect.translate(error, self.place)
                temporary = error.fault is Fault.BUSY or (self._met and isinstance(cause, TransientError))
                if not temporary or self._clock.monotonic() + wait > deadline:
                    raise _final(cause) from error
            self._clock.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _met_by(self, link: Connection) -> Connection:
        assert isinstance(link, ServerLink)
        link.reopen = self._reopen
        self._met = True
        return link

    def _reopen(self) -> Wire:
        link = self._connect()
        assert isinstance(link, ServerLink)
        return link.steal()


def _final(cause: Exception) -> Exception:
    return UnavailableError(str(cause)) if isinstance(cause, TransientError) else cause
