"""The MariaDB that tests talk to: a server of their own from the Debian package, one a session, a database a test."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.kit.databases import NUMBERED, TABLES, DatabaseServer, account, install, own, running

QUICK = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--innodb-flush-method=nosync", "--sync-frm=0")
"""What makes a server of tests fast, and useless after a power cut."""
SMALL = ("--skip-log-bin", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--performance-schema=0")


def program(name: str) -> str | None:
    """A program of the server's package."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")


class MariadbServer(DatabaseServer):
    """A running server on a loopback port and a unix socket."""

    def __init__(self, place: Path, *options: str) -> None:
        super().__init__(place, "mysql")
        self.socket = place / "s.sock"
        self._options = (*SMALL, *options)
        own(place, self.user)
        command = [str(program("mariadb-install-db")), "--no-defaults", f"--datadir={place / 'data'}"]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(command, check=True, capture_output=True, **account(self.user))  # type: ignore[call-overload]

    def command(self) -> list[str]:
        """The server in the foreground."""
        command = [str(program("mariadbd")), "--no-defaults", f"--datadir={self.place / 'data'}"]
        command += [f"--socket={self.socket}", f"--port={self.port}", "--bind-address=127.0.0.1"]
        return [*command, f"--pid-file={self.place / 'pid'}", *self._options]

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with self.client():
                return True
        except pymysql.MySQLError:
            return False

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, as a crash does."""
        super().stop(how)

    @contextmanager
    def client(self, database: str | None = None) -> Iterator[Any]:
        """A plain client that commits each statement."""
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True
        ) as connection:
            yield connection

    def execute(self, sql: str, database: str | None = None) -> list[Any]:
        """Run one statement."""
        with self.client(database) as client, client.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def url(self, database: str) -> str:
        """META-URL of a database."""
        return f"mysql://root:@(127.0.0.1:{self.port})/{database}"

    def make(self, name: str) -> None:
        """Make a database."""
        self.execute(f"CREATE DATABASE {name}")

    def drop(self, name: str) -> None:
        """Remove a database."""
        self.execute(f"DROP DATABASE {name}")

    def emptied(self, name: str) -> bool:
        """Empty a database, unless somebody still uses it or it has other tables."""
        users = self.execute(f"SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'")
        found = self.execute(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'")
        if users != [(0,)] or {row[0] for row in found} != TABLES:
            return False
        with self.client(name) as client, client.cursor() as cursor:
            for table in sorted(TABLES):
                cursor.execute(f"DELETE FROM {table}")
            for table in NUMBERED:
                cursor.execute(f"ALTER TABLE {table} AUTO_INCREMENT = 1")
        return True


def need_mariadb() -> None:
    """Skip, or fail where REQUIRE_SERVICES=1, without a server program."""
    install(lambda: bool(program("mariadbd") and program("mariadb-install-db")), "mariadb-server")


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """A server for the session."""
    need_mariadb()
    with running(MariadbServer, "fscore-my-", *QUICK) as server:
        yield server


@pytest.fixture
def mysql_url(mariadb_server: MariadbServer) -> Iterator[str]:
    """META-URL of an empty database."""
    with mariadb_server.lent() as name:
        yield mariadb_server.url(name)


@pytest.fixture
def new_mysql(mariadb_server: MariadbServer) -> Iterator[str]:
    """The name of a database that never held anything, for tests of its tables."""
    name = mariadb_server.create()
    yield name
    mariadb_server.drop(name)
