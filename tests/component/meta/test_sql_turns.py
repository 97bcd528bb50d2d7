"""A process takes no more connections of a database server than its share, however many threads it has."""

from __future__ import annotations

import threading
import time

import pytest

from fscore.domain.errors import UnavailableError
from fscore.meta.engines.sql import servers
from fscore.meta.engines.sql.server_engine import ServerEngine
from tests.kit.bodies import bump
from tests.kit.mariadb import MariadbServer
from tests.kit.postgres import PostgresServer
from tests.kit.sql_clients import opened

THREADS = 40


def connections(url: str, request: pytest.FixtureRequest) -> int:
    """How many the database has."""
    name = url.rpartition("/")[2].partition("?")[0]
    if url.startswith("postgres"):
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        with postgres.client() as client:
            row = client.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
            assert row is not None
            return int(row[0])
    mariadb: MariadbServer = request.getfixturevalue("mariadb_server")
    ((count,),) = mariadb.execute(f"SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'")
    return int(count)


def test_many_readers_share_a_few_connections(engine: ServerEngine, url: str, request: pytest.FixtureRequest) -> None:
    over, seen = threading.Event(), []

    def read() -> None:
        with engine.view() as view:
            over.wait(1)
            seen.append(view.node(1))

    threads = [threading.Thread(target=read) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    held = connections(url, request)
    engine.transact(bump)
    over.set()
    for thread in threads:
        thread.join()
    assert held <= servers.READERS + 1
    assert len(seen) == THREADS
    assert all(seen)


def test_a_view_inside_of_a_view_is_told_and_not_stuck(engine: ServerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "TURN_S", 0.2)
    views = [engine.view() for _ in range(servers.READERS)]
    for view in views:
        view.__enter__()
    with pytest.raises(UnavailableError, match="16 connections"), engine.view():
        pass
    with pytest.raises(UnavailableError, match="16 connections"):
        engine.load_setting()
    for view in views:
        view.__exit__(None, None, None)
    for _ in range(2 * servers.READERS):  # what was refused has kept no turn
        assert engine.load_setting() == b"{}"


@pytest.mark.parametrize(("allowed", "writers", "readers"), [(1, 1, 1), (5, 3, 2), (10, 5, 5), (40, 8, 32), (0, 8, 16)])
def test_what_the_url_allows_is_shared(
    engine: ServerEngine, url: str, allowed: int, writers: int, readers: int
) -> None:
    option = f"{'&' if '?' in url else '?'}max_open_conns={allowed}"
    few = opened(url + option)
    links = few._links
    assert isinstance(links, servers.ServerConnections)
    assert (links._most, links._most_readers) == (writers, readers)
    views = [few.view() for _ in range(readers)]
    for view in views:
        view.__enter__()
    few.transact(bump)
    for view in views:
        view.__exit__(None, None, None)
    few.close()
