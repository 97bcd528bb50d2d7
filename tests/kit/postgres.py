"""The PostgreSQL that tests talk to: a server of their own from the Debian package, a database a test."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.kit.databases import NUMBERED, TABLES, DatabaseServer, account, install, own, running

ROOT = Path("/usr/lib/postgresql")
QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "wal_level=minimal")
"""What makes a server of tests fast, and useless after a power cut. A kill it survives."""
SMALL = ("shared_buffers=64MB", "max_connections=200", "max_wal_senders=0", "deadlock_timeout=100ms")


def programs() -> Path | None:
    """The newest installed server's programs."""
    found = sorted(ROOT.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresServer(DatabaseServer):
    """A running server on a loopback port and a unix socket. Databases are lent out and emptied."""

    def __init__(self, place: Path, *settings: str) -> None:
        super().__init__(place, "postgres")
        found = programs()
        assert found is not None
        self._programs = found
        self._settings = (*SMALL, *settings)
        own(place, self.user)
        command = [str(found / "initdb"), "-D", str(place / "data"), "-A", "trust", "-U", "postgres"]
        command += ["--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, **account(self.user))  # type: ignore[call-overload]

    def command(self) -> list[str]:
        """The server in the foreground."""
        command = [str(self._programs / "postgres"), "-D", str(self.place / "data"), "-p", str(self.port)]
        command += ["-k", str(self.place), "-c", "listen_addresses=127.0.0.1"]
        return command + [part for setting in self._settings for part in ("-c", setting)]

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with self.client():
                return True
        except psycopg.OperationalError:
            return False

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGQUIT is a crash without a clean shutdown, and takes every process along."""
        super().stop(how)

    @contextmanager
    def client(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        """A plain client that commits each statement."""
        with psycopg.connect(
            host=str(self.place), port=self.port, user="postgres", dbname=database, autocommit=True
        ) as connection:
            yield connection

    def url(self, database: str) -> str:
        """META-URL of a database."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def make(self, name: str) -> None:
        """Make a database."""
        with self.client() as client:
            client.execute(f"CREATE DATABASE {name}")

    def drop(self, name: str) -> None:
        """Remove a database, whoever still looks at it."""
        with self.client() as client:
            client.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def emptied(self, name: str) -> bool:
        """Empty a database, unless somebody still uses it or it has other tables."""
        with self.client(name) as client:
            used = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            users = client.execute(used, (name,)).fetchone()
            found = client.execute("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'").fetchall()
            reusable = users == (0,) and {row[0] for row in found} == TABLES
            if reusable:
                client.execute(";".join(f"DELETE FROM {table}" for table in sorted(TABLES)))
                for table in NUMBERED:
                    client.execute(f"SELECT setval('{table}_id_seq', 1, false)")
        return reusable


def need_postgres() -> None:
    """Skip, or fail where REQUIRE_SERVICES=1, without a server program."""
    install(lambda: programs() is not None, "postgresql")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the session."""
    need_postgres()
    with running(PostgresServer, "fscore-pg-", *QUICK) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """META-URL of an empty database."""
    with postgres_server.lent() as name:
        yield postgres_server.url(name)


@pytest.fixture
def new_postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database that never held anything, for tests of its tables."""
    name = postgres_server.create()
    yield name
    postgres_server.drop(name)
