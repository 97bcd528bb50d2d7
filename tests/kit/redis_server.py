"""The Redis that tests talk to: a server of their own from the Debian package, one a session, one database a test."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
import redis

from fscore.meta.engines.redis.address import Address
from fscore.meta.engines.redis.engine import RedisEngine, open_redis
from fscore.meta.engines.redis.link import Answer, Command, Link, LostError
from fscore.runtime.clock import FakeClock
from tests.kit.bodies import ROOT_ATTR
from tests.kit.databases import install

BINARY = "/usr/bin/redis-server"
DATABASES = 4096
START_S = 10.0


class RedisServer:
    """A running server on a unix socket in a directory of its own, without persistence unless asked for."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        self.socket = place / "redis.sock"
        self._options = options
        self._databases = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = [BINARY, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.place)]
        command += ["--save", "", "--appendonly", "no", "--databases", str(DATABASES), *self._options]
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    pytest.fail(f"redis-server does not start: {(self.place / 'log').read_text()[-500:]}")
                time.sleep(0.01)

    def stop(self) -> None:
        """End the process, by its handle."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self, database: int) -> str:
        """META-URL of one database."""
        return f"unix://{self.socket}?db={database}"

    def fresh_url(self) -> str:
        """META-URL of a database that nobody used."""
        return self.url(next(self._databases))

    def client(self, database: int = 0) -> redis.Redis:
        """A plain client, for looking and for preparing."""
        return redis.Redis(unix_socket_path=str(self.socket), db=database, protocol=2)

    def client_of(self, url: str) -> redis.Redis:
        """A plain client of the database of a URL made here."""
        return self.client(int(url.rpartition("=")[2]))


class CutLink(Link):
    """A real link whose connection is lost at a chosen trip: before the server did what was sent, or after it."""

    def __init__(self, url: str) -> None:
        super().__init__(Address(url), clock=FakeClock())
        self.cut_at = 0
        self.when: Literal["before", "after"] = "before"
        self.meanwhile: Callable[[], object] = lambda: None
        self.made = 0

    def cut_next(self, when: Literal["before", "after"], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Lose the next trip; `meanwhile` happens before the client notices."""
        self.cut_at, self.when, self.meanwhile = self.made + 1, when, meanwhile

    def _trip(self, commands: Sequence[Command]) -> list[Answer]:
        self.made += 1
        if self.made != self.cut_at:
            return super()._trip(commands)
        if self.when == "after":
            super()._trip(commands)
        self.meanwhile()
        self.master.doubt(ConnectionError(), self.master.generation, "")
        raise LostError(f"cut {self.when} trip {self.made}")


def need_redis() -> None:
    """Skip the test, or fail it where REQUIRE_SERVICES=1, when there is no server program."""
    install(lambda: Path(BINARY).exists(), "redis-server")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server for the session. Its directory has a short name, because a socket's path may have 107 bytes only."""
    need_redis()
    with tempfile.TemporaryDirectory(prefix="fscore-redis-") as place:
        server = RedisServer(Path(place))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """META-URL of an empty database, emptied again afterwards."""
    url = redis_server.fresh_url()
    yield url
    with redis_server.client_of(url) as client:
        client.flushdb()


@pytest.fixture
def redis_engine(redis_url: str) -> Iterator[RedisEngine]:
    """A bare engine with a new volume that holds only its root."""
    opened = open_redis(redis_url)
    opened.init_volume(b"{}", {1: ROOT_ATTR})
    yield opened
    opened.close()


@pytest.fixture
def peer(redis_engine: RedisEngine, redis_url: str) -> Iterator[RedisEngine]:
    """Another client of the same volume."""
    opened = open_redis(redis_url)
    yield opened
    opened.close()


def trips(engine: RedisEngine, action: Callable[[], object]) -> int:
    """Round trips that an action takes."""
    before = engine.round_trips
    action()
    return engine.round_trips - before
