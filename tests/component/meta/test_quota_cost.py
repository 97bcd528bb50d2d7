"""What quotas cost on Redis, in round trips: nothing where there are none, none an operation where there are some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fscore.domain.ids import ROOT
from fscore.domain.quota import QuotaKind
from fscore.domain.setting import Setting
from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.tree import mkdir, mkfile

pytestmark = pytest.mark.redis
COUNT = 50


@pytest.fixture
def engine(redis_url: str) -> RedisEngine:
    engine = open_engine(redis_url)
    assert isinstance(engine, RedisEngine)
    return engine


@pytest.fixture
def meta(engine: RedisEngine) -> Iterator[MetaService]:
    """A client whose clock stands still, so that what it has seen stays seen."""
    clock = FakeClock()
    MetaService.format(engine, Setting(name="costs", uuid="u", trash_days=0), clock)
    with MetaService.open(engine, clock, background=False) as opened:
        yield opened


def creates(meta: MetaService, engine: RedisEngine, parent: int) -> int:
    """Round trips of fifty creates and as many writes."""
    mkfile(meta, b"first", 1, parent)
    before = engine.round_trips
    for number in range(COUNT):
        mkfile(meta, b"%d" % number, 0, parent)
    return engine.round_trips - before


def test_a_volume_without_quotas_pays_nothing(meta: MetaService, engine: RedisEngine) -> None:
    assert creates(meta, engine, mkdir(meta, b"d")) == COUNT
    before = engine.round_trips
    meta.flush_quotas()
    assert engine.round_trips == before


def test_with_quotas_a_create_still_takes_one_trip(meta: MetaService, engine: RedisEngine) -> None:
    outer = mkdir(meta, b"outer")
    inner = mkdir(meta, b"inner", mkdir(meta, b"middle", outer))
    meta.set_quota(QuotaKind.DIRECTORY, outer, max_inodes=1000)
    meta.set_quota(QuotaKind.DIRECTORY, inner, max_inodes=1000)
    meta.set_quota(QuotaKind.USER, 5, max_inodes=1000)
    assert creates(meta, engine, inner) == COUNT
    before = engine.round_trips
    meta.flush_quotas()
    assert engine.round_trips - before <= 2
    quota = meta.quota(QuotaKind.DIRECTORY, outer)
    assert quota is not None
    assert quota.used_inodes == COUNT + 3


def test_far_ancestors_are_asked_for_once(meta: MetaService, redis_url: str) -> None:
    parent: int = ROOT
    for _ in range(20):
        parent = mkdir(meta, b"down", parent)
    meta.set_quota(QuotaKind.DIRECTORY, ROOT, max_inodes=1000)
    engine = open_engine(redis_url)
    assert isinstance(engine, RedisEngine)
    with MetaService.open(engine, FakeClock(), background=False) as other:
        assert creates(other, engine, parent) == COUNT, "the first create has walked up, the others know"
