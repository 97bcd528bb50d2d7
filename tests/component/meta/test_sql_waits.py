"""Nobody waits without end for what others have locked on a database server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from fscore.domain.errors import UnavailableError
from fscore.meta.engines.sql import engine as sql_engine
from fscore.meta.engines.sql import mysql, postgres, servers
from fscore.meta.engines.sql.mysql import Mysql
from fscore.meta.engines.sql.postgres import Postgres
from fscore.meta.engines.sql.server_engine import ServerEngine
from tests.kit.bodies import ROOT_ATTR, bump
from tests.kit.engines import fresh_url
from tests.kit.mariadb import MariadbServer
from tests.kit.postgres import PostgresServer
from tests.kit.sql_clients import opened

Holding = Callable[[], AbstractContextManager[object]]


@pytest.fixture
def hasty(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerEngine]:
    """An engine with a new volume, whose patience is short."""
    monkeypatch.setattr(sql_engine, "PATIENCE_S", 0.2)
    monkeypatch.setattr(servers, "REPEATS", 2)
    monkeypatch.setattr(postgres, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(mysql, "LOCK_WAIT_S", 1)
    made = opened(url)
    made.init_volume(b"{}", {1: ROOT_ATTR})
    yield made
    made.close()


def held(url: str, request: pytest.FixtureRequest, *statements: str) -> Holding:
    """Holds what these statements lock, for as long as the block runs."""
    name = url.rpartition("/")[2].partition("?")[0]

    @contextmanager
    def postgres_holds() -> Iterator[object]:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.client(name) as client, client.transaction():
            for statement in statements:
                client.execute(statement)
            yield None

    @contextmanager
    def mariadb_holds() -> Iterator[object]:
        server: MariadbServer = request.getfixturevalue("mariadb_server")
        with server.client(name) as client, client.cursor() as cursor:
            cursor.execute("SET autocommit = 0")
            for statement in statements:
                cursor.execute(statement)
            yield None

    return postgres_holds if url.startswith("postgres") else mariadb_holds


@pytest.fixture
def row(url: str, request: pytest.FixtureRequest) -> Holding:
    """A stranger holds the row of the root."""
    return held(url, request, "SELECT * FROM jfs_node WHERE inode = 1 FOR UPDATE")


@pytest.fixture
def table(url: str, request: pytest.FixtureRequest) -> Holding:
    """A stranger alters the table of nodes."""
    alter = (
        "LOCK TABLE jfs_node IN ACCESS EXCLUSIVE MODE" if url.startswith("postgres") else "LOCK TABLES jfs_node WRITE"
    )
    return held(url, request, alter)


def outcome(work: Callable[[], object], holding: Holding, seconds: float) -> list[object]:
    """What `work` gave or raised while the lock was held; nothing when it still waited then."""
    told: list[object] = []

    def run() -> None:
        try:
            told.append(work())
        except Exception as error:  # noqa: BLE001 - told by the test
            told.append(error)

    with holding():
        worker = threading.Thread(target=run)
        worker.start()
        worker.join(seconds)
        found = list(told)
    worker.join()
    return found


def test_a_row_that_a_stranger_keeps_locked(hasty: ServerEngine, row: Holding) -> None:
    (told,) = outcome(lambda: hasty.transact(bump), row, 15)
    assert isinstance(told, UnavailableError)
    hasty.transact(bump)
    with hasty.view() as view:
        node = view.node(1)
    assert node is not None
    assert node.nlink == 3


def test_a_table_that_a_stranger_keeps_locked(hasty: ServerEngine, table: Holding) -> None:
    """Reads wait a while, and again; then they say so."""
    assert outcome(lambda: hasty.nodes([1]), table, 1.5) == []
    (told,) = outcome(lambda: hasty.nodes([1]), table, 15)
    assert isinstance(told, UnavailableError)
    assert hasty.nodes([1]) == [ROOT_ATTR]


@pytest.mark.mysql
def test_a_server_that_does_not_know_how_to_bound_waits(
    request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OceanBase has bounds by other names."""
    monkeypatch.setattr(mysql, "WAITS", "SET no_such_wait_timeout = %s, lock_wait_timeout = %s")
    place = Mysql().place(fresh_url("mysql", request, tmp_path))
    wire = Mysql().wire(place, create=False)
    assert wire.batch([("SELECT 1", ())])[0].rows == [(1,)]
    wire.close()


@pytest.mark.mysql
def test_waits_are_bounded_on_mysql(request: pytest.FixtureRequest, tmp_path: Any) -> None:
    wire = Mysql().wire(Mysql().place(fresh_url("mysql", request, tmp_path)), create=False)
    assert wire.batch([("SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout", ())])[0].rows == [(10, 10)]
    wire.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("option", "wanted"),
    [("", b"10s"), ("&lock_timeout=0", b"0"), ("&options=-c%20lock_timeout%3D700", b"700ms")],
)
def test_waits_are_bounded_on_postgres(
    request: pytest.FixtureRequest, tmp_path: Any, option: str, wanted: bytes
) -> None:
    wire = Postgres().wire(Postgres().place(fresh_url("postgres", request, tmp_path) + option), create=False)
    assert wire.batch([("SELECT current_setting('lock_timeout')", ())])[0].rows == [(wanted,)]
    wire.close()
