"""Dead slices on Redis: known to the client that let them go, found by the hourly sweep otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
import pytest

from fscore.domain.attr import Attr, Kind
from fscore.meta.engines.redis.engine import RedisEngine, open_redis
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.txn import MetaTxn
from tests.kit.redis_server import CutLink

pytestmark = pytest.mark.redis

ROOT_ATTR = Attr(Kind.DIRECTORY, 0o777, nlink=2, length=4096, parent=1)
FILE = Attr(Kind.FILE, 0o644, parent=1)


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    """An engine with a new volume."""
    opened = open_redis(redis_url)
    opened.init_volume(b"{}", {1: ROOT_ATTR})
    yield opened
    opened.close()


@pytest.fixture
def other(engine: RedisEngine, redis_url: str) -> Iterator[RedisEngine]:
    """Another client of the same volume."""
    opened = open_redis(redis_url)
    yield opened
    opened.close()


def trips(engine: RedisEngine, action: Callable[[], object]) -> int:
    """Round trips that an action takes."""
    before = engine.round_trips
    action()
    return engine.round_trips - before


def drop(*ids: int) -> Callable[[MetaTxn], None]:
    """Drop a reference of slices of ten bytes."""

    def body(txn: MetaTxn) -> None:
        for slice_id in ids:
            txn.add_refs(slice_id, 10, -1)

    return body


def test_dead_slices_are_known_without_a_scan(engine: RedisEngine) -> None:
    engine.transact(lambda t: t.add_refs(8, 10, 1))
    assert trips(engine, engine.take_dead) == 0
    engine.transact(drop(7, 8))
    assert trips(engine, engine.take_dead) == 1
    assert engine.take_dead() == [(7, 10)]
    engine.transact(drop(8))
    assert engine.take_dead() == [(7, 10), (8, 10)]
    engine.transact(lambda t: t.add_refs(7, 10, 1))
    assert engine.take_dead() == [(8, 10)], "a slice that somebody refers to again"
    engine.forget_dead([(8, 10)])
    assert trips(engine, engine.take_dead) <= 1
    assert trips(engine, engine.take_dead) == 0


def test_what_others_let_go_is_found_by_the_winner_of_the_gate(engine: RedisEngine, other: RedisEngine) -> None:
    engine.transact(drop(*range(1, 31)))
    assert other.take_dead() == []
    assert other.claim_job("nextCleanupSlices", 10_000, 3240)
    assert not engine.claim_job("nextCleanupSlices", 10_000, 3240)
    seen: set[tuple[int, int]] = set()
    while part := other.take_dead(limit=7):
        assert len(part) <= 7
        seen.update(part)
        other.forget_dead(part)
    assert seen == {(n, 10) for n in range(1, 31)}
    assert engine.take_dead() == [], "gone already"


def test_more_dead_slices_than_are_remembered(engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fscore.meta.engines.redis.dead.MOST_SUSPECTS", 4)
    engine.transact(drop(*range(1, 31)))
    seen: set[tuple[int, int]] = set()
    while part := engine.take_dead():
        seen.update(part)
        engine.forget_dead(part)
    assert seen == {(n, 10) for n in range(1, 31)}
    assert list(engine.scan_refs()) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_slices_of_a_commit_that_was_cut_are_known(
    engine: RedisEngine, redis_url: str, when: Literal["before", "after"]
) -> None:
    engine.transact(lambda t: t.put_node(50, FILE))
    link = CutLink(redis_url)
    client = RedisEngine(link, Keys())
    client.transact(drop(6))

    def body(txn: MetaTxn) -> None:
        attr = txn.node(50)
        assert attr
        txn.put_node(50, msgspec.structs.replace(attr, uid=attr.uid + 1))
        txn.add_refs(7, 10, -1)

    link.cut_next(when)
    client.transact(body)
    assert client.take_dead() == [(6, 10), (7, 10)]
    client.close()
