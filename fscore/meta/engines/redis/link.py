"""The connection to Redis: batches of commands in one round trip, a pool, and the one seam for its errors.

A batch is written at once and its answers read back, without the client's own pipeline: that costs a third. What is
safe to repeat is repeated on a new connection for `PATIENCE_S` when the old one dies.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import urllib.parse
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import redis
from redis import exceptions

from fscore.domain.errors import CorruptError, SettingError, StoreError, TransientError, UnavailableError
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock

PATIENCE_S: Final = 20.0
FIRST_WAIT_S: Final = 0.02
LONGEST_WAIT_S: Final = 1.0
TIMEOUT_S: Final = 10.0
CONNECT_S: Final = 5.0
IDLE: Final = 16

Command = Sequence[bytes | int | str]
Connection = Any
"""A connection of the redis package, whose methods carry no types."""
Answer = Any
"""What Redis answers: bytes, int, None, or a list of these."""

_OPERATOR: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
    exceptions.AskError,
)
_AGAIN: Final = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)
_LOST: Final = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
_FULL: Final = ("OOM", "MISCONF", "NOREPLICAS")

logger = log.get(__name__)


class LostError(TransientError):
    """The connection died in mid-flight: what was sent may have been done or not."""


class Address:
    """A META-URL of Redis, taken apart: `redis://[user:password@]host[:port]/db`, `rediss://`, `unix:///path?db=n`."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        options = dict(urllib.parse.parse_qsl(parts.query))
        self.scheme = parts.scheme
        if "," in parts.netloc:
            raise SettingError("a list of Redis addresses (Sentinel, Cluster) is not supported; name one server")
        self.kwargs: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": CONNECT_S,
            "username": urllib.parse.unquote(parts.username) if parts.username else None,
            "password": urllib.parse.unquote(parts.password) if parts.password else _password(),
        }
        if parts.scheme == "unix":
            self.kwargs["path"] = urllib.parse.unquote(parts.path)
            self.db = _number(options.get("db", "0"), url)
            self.location = f"unix://{parts.path}?db={self.db}"
        else:
            self.kwargs["host"] = parts.hostname or "localhost"
            self.kwargs["port"] = parts.port or 6379
            self.db = _number(parts.path.strip("/") or "0", url)
            self.location = f"{parts.scheme}://{self.kwargs['host']}:{self.kwargs['port']}/{self.db}"
        if parts.scheme == "rediss":
            self._secure(options)
        self.kwargs["db"] = self.db

    def _secure(self, options: dict[str, str]) -> None:
        """The TLS options that the official client takes in its URL."""
        if options.get("insecure-skip-verify", "false").lower() in {"1", "true", ""}:
            self.kwargs |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        names = {
            "tls-ca-cert-file": "ssl_ca_certs",
            "tls-cert-file": "ssl_certfile",
            "tls-key-file": "ssl_keyfile",
        }
        self.kwargs |= {own: options[theirs] for theirs, own in names.items() if theirs in options}

    def connection(self) -> Connection:
        """A new connection; it connects when first used."""
        kinds: dict[str, Any] = {"unix": redis.UnixDomainSocketConnection, "rediss": redis.SSLConnection}
        return kinds.get(self.scheme, redis.Connection)(**self.kwargs)


class Link:
    """A pool of connections to one server. Thread-safe; a forked child makes its own."""

    def __init__(self, address: Address, *, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        self.address = address
        self.trips = 0
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self._closed = False
        self._pid = os.getpid()
        self._idle: deque[Connection] = deque()
        self._digests: dict[str, str] = {}

    def ask(self, *command: bytes | int | str) -> Answer:
        """One command that is safe to repeat."""
        return self.batch((command,))[0]

    def batch(self, commands: Sequence[Command], *, again: bool = True, patience_s: float = PATIENCE_S) -> list[Answer]:
        """Commands in one round trip; the first error among the answers is raised.

        With `again` they are sent again after a lost connection; without it LostError says that their fate is unknown.
        """
        waits = self._waits(patience_s)
        while True:
            try:
                return self._trip(commands)
            except TransientError as error:
                if isinstance(error, LostError) and not again:
                    raise
                wait = next(waits, None)
                if wait is None:
                    raise UnavailableError(
                        f"{self.address.location} did not answer for {patience_s:.0f} s: {error}"
                    ) from error
                logger.info("%s: %s; trying again", self.address.location, error)
            self._clock.sleep(wait)

    def script(
        self, text: str, keys: Sequence[bytes], args: Iterable[bytes | int | str], *, again: bool = True
    ) -> Answer:
        """Run a script by its digest, or by its text where the server does not know it yet."""
        digest = self._digests.get(text)
        if digest is None:
            digest = self._digests[text] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        rest = (len(keys), *keys, *args)
        try:
            return self.batch((("EVALSHA", digest, *rest),), again=again)[0]
        except exceptions.NoScriptError:
            return self.batch((("EVAL", text, *rest),), again=again)[0]

    def _waits(self, patience_s: float) -> Iterator[float]:
        passed, wait = 0.0, 0.0
        while passed < patience_s:
            yield wait * self._rng.uniform(0.5, 1.0)
            passed += wait
            wait = min(max(2 * wait, FIRST_WAIT_S), LONGEST_WAIT_S)

    def _trip(self, commands: Sequence[Command]) -> list[Answer]:
        if self._closed:
            raise UnavailableError(f"{self.address.location} is closed")
        if self._pid != os.getpid():
            self._pid, self._idle = os.getpid(), deque()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.address.connection()
        try:
            packed = b"".join(itertools.chain.from_iterable(connection.pack_command(*command) for command in commands))
            connection.send_packed_command((packed,), check_health=False)
            self.trips += 1
            answers = [_answer(connection) for _ in commands]
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            raise self._translate(error) from error
        except BaseException:
            connection.disconnect()
            raise
        self._give(connection)
        for answer in answers:
            if isinstance(answer, exceptions.ResponseError):
                raise self._translate(answer)
        return answers

    def _give(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= IDLE:
            connection.disconnect()
        else:
            self._idle.append(connection)

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, exceptions.NoScriptError):
            return error  # an answer to `script`, which knows what to do
        text = f"{self.address.location}: {error}"
        if isinstance(error, _OPERATOR) or "DB index" in str(error):
            return SettingError(text)
        if isinstance(error, _AGAIN):
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
                self._idle.pop().disconnect()


def _answer(connection: Connection) -> Answer:
    try:
        return connection.read_response()
    except exceptions.ResponseError as error:
        return error


def _password() -> str | None:
    """Where the official client looks for a password that the URL does not carry."""
    for name in ("REDIS_PASSWORD", "META_PASSWORD"):
        if os.environ.get(name):
            return os.environ[name]
    path = os.environ.get("META_PASSWORD_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingError(f"META_PASSWORD_FILE: {error}") from error


def _number(text: str, url: str) -> int:
    if not text.isdecimal():
        raise SettingError(f"{url.rsplit('@', 1)[-1]} names no database number: write redis://host:port/1")
    return int(text)
