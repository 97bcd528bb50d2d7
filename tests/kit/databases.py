"""What the database servers of the tests have in common: a place, a port, a process, and what to do without one."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fscore.meta.engines.sql.tables import Tables

START_S = 60.0
TABLES = frozenset(Tables().metadata.tables)
"""Tables of a volume without a prefix."""
NUMBERED = ("jfs_acl", "jfs_change_log")
"""Those whose numbers mean something to clients."""


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install(found: Callable[[], bool], *packages: str) -> None:
    """Skip the test, or fail it where REQUIRE_SERVICES=1, when a server is missing; as root it is installed first."""
    if not found() and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=False, capture_output=True, env=environment)
    if found():
        return
    reason = f"{packages[0]} is not installed (apt-get install {packages[0]})"
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def account(name: str) -> dict[str, object]:
    """How a server that refuses to be root is started by root: as the package's own user."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def own(place: Path, name: str) -> None:
    """Give a directory to the package's user."""
    place.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(place, name, name)


class Server(ABC):
    """A process that is started, asked whether it answers, and stopped by its handle."""

    def __init__(self, place: Path, user: str) -> None:
        self.place = place
        self.user = user
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What is run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client is served."""

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.place, **account(self.user)
            )  # type: ignore[call-overload] # the keywords of `account`
        deadline = time.monotonic() + START_S
        while not self.answers():
            assert self.process is not None
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                pytest.fail(f"{self.command()[0]} does not start: {(self.place / 'log').read_text()[-800:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process, and all that it started."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


class DatabaseServer(Server):
    """A server of databases, which are lent out and emptied."""

    def __init__(self, place: Path, user: str) -> None:
        super().__init__(place, user)
        self._numbers = itertools.count(1)
        self._idle: list[str] = []

    @abstractmethod
    def make(self, name: str) -> None:
        """Make a database."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove a database."""

    @abstractmethod
    def emptied(self, name: str) -> bool:
        """Empty a database, unless somebody still uses it or it has other tables than a volume's."""

    def create(self) -> str:
        """The name of a new database."""
        name = f"v{next(self._numbers)}"
        self.make(name)
        return name

    def lend(self) -> str:
        """The name of a database that holds nothing, or only empty tables of a volume."""
        return self._idle.pop() if self._idle else self.create()

    def take_back(self, name: str) -> None:
        """Empty a database for the next one, or remove it."""
        if self.emptied(name):
            self._idle.append(name)
        else:
            self.drop(name)

    @contextlib.contextmanager
    def lent(self) -> Iterator[str]:
        """A database for as long as the block runs."""
        name = self.lend()
        yield name
        self.take_back(name)


S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def running(make: Callable[..., S], prefix: str, *options: str) -> Iterator[S]:
    """A server in a directory of its own, for as long as the block runs. The prefix is short: sockets lie there."""
    with tempfile.TemporaryDirectory(prefix=prefix) as place:
        server = make(Path(place), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
