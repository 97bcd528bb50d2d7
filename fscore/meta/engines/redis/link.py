"""The connection to Redis: batches of commands in one round trip, a pool, and the one seam for its errors.

A batch is written at once and its answers read back, without the client's own pipeline: that costs a third. What is
safe to repeat is repeated on a new connection when the old one dies, and when a master falls, until there is a new one
(`masters`): callers see a pause. It ends after `PATIENCE_S` of a single server, a minute of a group.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from hiredis import pack_command
from redis import exceptions

from fscore.domain.errors import CorruptError, SettingError, StoreError, TransientError, UnavailableError
from fscore.meta.engines.redis.address import Address, Connection, Host
from fscore.meta.engines.redis.masters import Clustered, Master, master_of
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock

FIRST_WAIT_S: Final = 0.02
LONGEST_WAIT_S: Final = 0.5
REPLICAS_MS: Final = 1000
"""How long one try waits for replicas."""
IDLE: Final = 16

Command = Sequence[bytes | int | str]
Answer = Any
"""What Redis answers: bytes, int, None, or a list of these."""

_OPERATOR: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
)
_AGAIN: Final = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.AskError,
)
_LOST: Final = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
_PASSING: Final = ("NOREPLICAS", "UNBLOCKED", "BUSY ")
"""First words of errors that pass: too few replicas just now, a master that became none, a script that runs long."""
_FULL: Final = ("OOM", "MISCONF")

logger = log.get(__name__)


class LostError(TransientError):
    """The connection died in mid-flight: what was sent may have been done or not."""


class ClusterNodeError(SettingError):
    """The server is a node of a cluster, which has no databases but one."""


class _AskedError(TransientError):
    """The slot is just moving: another node answers this once."""

    def __init__(self, text: str, host: Host) -> None:
        super().__init__(text)
        self.host = host


class Link:
    """A pool of connections to the master. Thread-safe; a forked child makes its own."""

    def __init__(
        self,
        address: Address,
        master: Master | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.address = address
        self.master = master or master_of(address)
        self.trips = 0
        self.greeting: Callable[[], Sequence[Command]] = tuple
        """What to send first to a new master of a group."""
        self._greeted = self.master.generation
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self._closed = False
        self._pid = os.getpid()
        self._idle: deque[tuple[int, Connection]] = deque()
        self._digests: dict[str, str] = {}

    def ask(self, *command: bytes | int | str) -> Answer:
        """One command that is safe to repeat."""
        return self.batch((command,))[0]

    def batch(
        self, commands: Sequence[Command], *, again: bool = True, patience_s: float | None = None
    ) -> list[Answer]:
        """Commands in one round trip; the first error among the answers is raised.

        With `again` they are sent again after a lost connection; without it LostError says that their fate is unknown.
        """
        patience_s = self.master.patience_s if patience_s is None else patience_s
        waits = self._waits(patience_s)
        told = False
        while True:
            try:
                return self._trip(commands)
            except _AskedError as asked:
                error: TransientError = asked
                answers = self._trip_to(asked.host, commands, again=again)
                if answers is not None:
                    return answers
            except TransientError as found:
                error = found
                if isinstance(error, LostError) and not again:
                    raise
            wait = next(waits, None)
            if wait is None:
                raise UnavailableError(
                    f"{self.address.location} did not answer for {patience_s:.0f} s: {error}"
                ) from error
            if not told and wait:
                told = True
                logger.info("%s: %s; trying again", self.address.location, error)
            self._clock.sleep(wait)

    def script(
        self,
        text: str,
        keys: Sequence[bytes],
        args: Iterable[bytes | int | str],
        *,
        again: bool = True,
        durable: bool = False,
    ) -> Answer:
        """Run a script by its digest, or by its text where the server does not know it yet.

        With `durable` the answer comes when what it wrote lies in as many replicas as the address asks for.
        """
        digest = self._digests.get(text)
        if digest is None:
            digest = self._digests[text] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        rest = (len(keys), *keys, *args)
        replicas = self.address.wait_replicas if durable else 0
        after: tuple[Command, ...] = (("WAIT", replicas, REPLICAS_MS),) if replicas else ()
        try:
            return self.batch((("EVALSHA", digest, *rest), *after), again=again)[0]
        except exceptions.NoScriptError:
            return self.batch((("EVAL", text, *rest), *after), again=again)[0]

    def _waits(self, patience_s: float) -> Iterator[float]:
        end, wait = self._clock.monotonic() + patience_s, 0.0
        while self._clock.monotonic() < end:
            yield wait * self._rng.uniform(0.5, 1.0)
            wait = min(max(2 * wait, FIRST_WAIT_S), LONGEST_WAIT_S)

    def _trip(self, commands: Sequence[Command]) -> list[Answer]:
        generation, connection = self._take()
        greeting = self.greeting() if generation > self._greeted else ()
        answers = self._exchange(generation, connection, [*greeting, *commands])
        if greeting:
            welcome, answers = answers[: len(greeting)], answers[len(greeting) :]
            if not any(isinstance(answer, exceptions.ResponseError) for answer in welcome):
                self._greeted = generation
        doubted = next((answer for answer in answers if _passes(answer)), None)
        if doubted is not None:
            self.master.doubt(doubted, generation, _host(connection))
        self._give(generation, connection)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, exceptions.ResponseError):
                raise self._translate(answer)
            if command[0] == "WAIT" and answer < int(command[1]):
                raise TransientError(f"{answer} of {int(command[1])} replicas have what was written")
        return answers

    def _trip_to(self, host: Host, commands: Sequence[Command], *, again: bool) -> list[Answer] | None:
        """One trip to the node that a slot is moving to; None when it would rather not."""
        assert isinstance(self.master, Clustered)
        connection = self.master.at(host)
        try:
            asking = [part for command in commands for part in (("ASKING",), command)]
            answers = self._exchange(self.master.generation, connection, asking)[1::2]
        except LostError:
            if not again:
                raise
            return None
        finally:
            connection.disconnect()
        failed = next((answer for answer in answers if isinstance(answer, exceptions.ResponseError)), None)
        if _passes(failed):
            return None
        if failed is not None:
            raise self._translate(failed)
        return answers

    def _exchange(self, generation: int, connection: Connection, commands: Sequence[Command]) -> list[Answer]:
        """Send, and read an answer to each; errors that Redis answers are among them."""
        try:
            packed = b"".join([pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
            connection.send_packed_command((packed,), check_health=False)
            self.trips += 1
            return [_answer(connection) for _ in commands]
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            self.master.doubt(error, generation, _host(connection))
            raise self._translate(error) from error
        except BaseException:
            connection.disconnect()
            raise

    def _take(self) -> tuple[int, Connection]:
        if self._closed:
            raise UnavailableError(f"{self.address.location} is closed")
        if self._pid != os.getpid():
            self._pid, self._idle = os.getpid(), deque()
        while self._idle:
            try:
                generation, connection = self._idle.pop()
            except IndexError:
                break
            if generation == self.master.generation:
                return generation, connection
            connection.disconnect()
        generation = self.master.generation
        try:
            return generation, self.master.connect()
        except (exceptions.RedisError, OSError) as error:
            self.master.doubt(error, generation, "")
            raise self._unsent(error) from error

    def _give(self, generation: int, connection: Connection) -> None:
        if self._closed or generation != self.master.generation or len(self._idle) >= IDLE:
            connection.disconnect()
        else:
            self._idle.append((generation, connection))

    def _unsent(self, error: Exception) -> Exception:
        """As `_translate`, for what happened before anything was sent: its fate is known."""
        found = self._translate(error)
        return TransientError(str(found)) if isinstance(found, LostError) else found

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, exceptions.NoScriptError):
            return error  # an answer to `script`, which knows what to do
        text = f"{self.address.location}: {error}"
        if "cluster mode" in str(error):
            return ClusterNodeError(text)
        if isinstance(error, _OPERATOR) or "DB index" in str(error):
            return SettingError(text)
        if isinstance(error, exceptions.AskError) and not isinstance(error, exceptions.MovedError):
            return _AskedError(text, (error.host, error.port))
        if _passes(error):
            return TransientError(text)
        if isinstance(error, _LOST):
            return LostError(text)
        if "WRONGTYPE" in str(error):
            return CorruptError(text)
        if isinstance(error, exceptions.OutOfMemoryError) or any(word in str(error) for word in _FULL):
            return UnavailableError(text)
        return StoreError(text)

    def close(self) -> None:
        """Close the idle connections, and those in use when they come back."""
        self._closed = True
        if self._pid == os.getpid():
            while self._idle:
                self._idle.pop()[1].disconnect()


def _passes(answer: object) -> bool:
    """Whether an answer says: not done, try again soon, perhaps elsewhere."""
    return isinstance(answer, _AGAIN) or (
        isinstance(answer, exceptions.ResponseError) and str(answer).startswith(_PASSING)
    )


def _host(connection: Connection) -> str:
    return str(getattr(connection, "host", ""))


def _answer(connection: Connection) -> Answer:
    try:
        return connection.read_response()
    except exceptions.ResponseError as error:
        return error
