"""Fixtures of bare metadata: every engine in turn, a service on it, and an audit at the end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from fscore.domain.setting import Setting
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import forget_memory, open_engine
from fscore.meta.service import MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.invariants import check_engine

UUID = "6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13"
REDIS_GROUPS: list[Any] = [
    pytest.param("redis-sentinel", marks=[pytest.mark.redis, pytest.mark.xdist_group("redis-sentinel")]),
    pytest.param("redis-cluster", marks=[pytest.mark.redis, pytest.mark.xdist_group("redis-cluster")]),
]
"""Redis in groups; tests of one group run on one worker, so that it is started once."""
SQL_SERVERS: list[Any] = [
    pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("mysql", marks=pytest.mark.mysql),
]
SERVERS = {"postgres": "postgres_server", "mysql": "mariadb_server"}
"""Fixtures of their servers, which lend databases and take them back."""
META_ENGINES: list[Any] = [
    "memory",
    "sqlite",
    pytest.param("redis", marks=pytest.mark.redis),
    *REDIS_GROUPS,
    *SQL_SERVERS,
]
"""Engines that every suite of metadata runs on."""


def fresh_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """META-URL of an empty place for a volume."""
    if kind == "memory":
        name = uuid.uuid4().hex
        request.addfinalizer(lambda: forget_memory(name))
        return f"memory://{name}"
    if kind == "sqlite":
        return f"sqlite3://{tmp_path / f'{uuid.uuid4().hex}.db'}"
    if kind in {"redis-sentinel", "redis-cluster"}:
        return str(request.getfixturevalue(f"{kind.removeprefix('redis-')}_url"))
    return str(request.getfixturevalue(f"{kind}_url"))


def fresh_urls(kind: str, request: pytest.FixtureRequest, folder: Path) -> Callable[[], str]:
    """Makes META-URLs of empty places, one after the other: the one before may be emptied for the next."""
    lent: list[str] = []

    def from_server() -> str:
        server = request.getfixturevalue(SERVERS[kind])
        while lent:
            server.take_back(lent.pop())
        lent.append(server.lend())
        return str(server.url(lent[-1]))

    def from_redis() -> str:
        url = fresh_url(kind, request, folder)
        if kind == "redis":
            with request.getfixturevalue("redis_server").client_of(url) as client:
                client.flushdb()
        else:
            request.getfixturevalue(f"{kind.removeprefix('redis-')}_group").wipe(url)
        return url

    if kind in SERVERS:
        return from_server
    return from_redis if kind.startswith("redis") else lambda: fresh_url(kind, request, folder)


@pytest.fixture(params=META_ENGINES)
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """META-URL of an empty place, on every engine in turn."""
    return fresh_url(request.param, request, tmp_path)


@pytest.fixture
def meta_engine(engine_url: str) -> Iterator[MetaEngine]:
    """An open engine without a volume."""
    engine = open_engine(engine_url)
    yield engine
    engine.close()


class MakeMeta(Protocol):
    """Opens a service on the volume at `engine_url`, formatted at the first call with `setting`."""

    def __call__(self, *, setting: dict[str, Any] | None = ..., **options: Any) -> MetaService: ...


@pytest.fixture
def meta_clock() -> FakeClock:
    """The clock of every service of a test; 2023-11-14 22:13:20 UTC."""
    return FakeClock()


@pytest.fixture
def make_meta(engine_url: str, meta_clock: FakeClock) -> Iterator[MakeMeta]:
    """A factory of clients of one volume. At the end all are closed and the records audited."""
    opened: list[MetaService] = []

    def make(*, setting: dict[str, Any] | None = None, **options: Any) -> MetaService:
        engine = open_engine(engine_url)
        if not opened:
            chosen: dict[str, Any] = {"name": "test-volume", "uuid": UUID, "trash_days": 0} | (setting or {})
            MetaService.format(engine, Setting(**chosen), meta_clock)
        defaults: dict[str, Any] = {"background": False, "skip_dir_mtime_s": 0.0}
        service = MetaService.open(engine, meta_clock, **(defaults | options))
        opened.append(service)
        return service

    yield make
    for service in reversed(opened):
        service.close()
    if opened:
        engine = open_engine(engine_url)
        try:
            assert check_engine(engine) == []
            assert not [session for session in engine.sessions() if session.sid in {one.sid for one in opened}]
        finally:
            engine.close()


@pytest.fixture
def meta(make_meta: MakeMeta) -> MetaService:
    """A client of a fresh volume: no trash, directory times always written, no background threads."""
    return make_meta()
