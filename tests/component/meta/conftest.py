"""A new volume on every kind of database server; modules that want another kind of engine define their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.meta.engines.sql.server_engine import ServerEngine
from tests.kit.bodies import ROOT_ATTR
from tests.kit.engines import SQL_SERVERS, fresh_url
from tests.kit.sql_clients import opened


@pytest.fixture(params=SQL_SERVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on every kind of server."""
    return fresh_url(request.param, request, tmp_path)


@pytest.fixture
def engine(url: str) -> Iterator[ServerEngine]:
    """An engine with a new volume."""
    made = opened(url)
    made.init_volume(b"{}", {1: ROOT_ATTR})
    yield made
    made.close()


@pytest.fixture
def other(engine: ServerEngine, url: str) -> Iterator[ServerEngine]:
    """Another client of the same volume."""
    made = opened(url)
    yield made
    made.close()
