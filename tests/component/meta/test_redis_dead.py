"""Dead slices on Redis: known to the client that let them go, found by the hourly sweep otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import pytest

from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.txn import MetaTxn
from tests.kit.bodies import FILE
from tests.kit.redis_server import CutLink, trips

pytestmark = pytest.mark.redis


def drop(*ids: int) -> Callable[[MetaTxn], None]:
    """Drop a reference of slices of ten bytes."""

    def body(txn: MetaTxn) -> None:
        for slice_id in ids:
            txn.add_refs(slice_id, 10, -1)

    return body


def test_dead_slices_are_known_without_a_scan(redis_engine: RedisEngine) -> None:
    redis_engine.transact(lambda t: t.add_refs(8, 10, 1))
    assert trips(redis_engine, redis_engine.take_dead) == 0
    redis_engine.transact(drop(7, 8))
    assert trips(redis_engine, redis_engine.take_dead) == 1
    assert redis_engine.take_dead() == [(7, 10)]
    redis_engine.transact(drop(8))
    assert redis_engine.take_dead() == [(7, 10), (8, 10)]
    redis_engine.transact(lambda t: t.add_refs(7, 10, 1))
    assert redis_engine.take_dead() == [(8, 10)], "a slice that somebody refers to again"
    redis_engine.forget_dead([(8, 10)])
    assert trips(redis_engine, redis_engine.take_dead) <= 1
    assert trips(redis_engine, redis_engine.take_dead) == 0


def test_what_others_let_go_is_found_by_the_winner_of_the_gate(redis_engine: RedisEngine, peer: RedisEngine) -> None:
    redis_engine.transact(drop(*range(1, 31)))
    assert peer.take_dead() == []
    assert peer.claim_job("nextCleanupSlices", 10_000, 3240)
    assert not redis_engine.claim_job("nextCleanupSlices", 10_000, 3240)
    seen: set[tuple[int, int]] = set()
    while part := peer.take_dead(limit=7):
        assert len(part) <= 7
        seen.update(part)
        peer.forget_dead(part)
    assert seen == {(n, 10) for n in range(1, 31)}
    assert redis_engine.take_dead() == [], "gone already"


def test_more_dead_slices_than_are_remembered(redis_engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fscore.meta.engines.redis.dead.MOST_SUSPECTS", 4)
    redis_engine.transact(drop(*range(1, 31)))
    seen: set[tuple[int, int]] = set()
    while part := redis_engine.take_dead():
        seen.update(part)
        redis_engine.forget_dead(part)
    assert seen == {(n, 10) for n in range(1, 31)}
    assert list(redis_engine.scan_refs()) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_slices_of_a_commit_that_was_cut_are_known(
    redis_engine: RedisEngine, redis_url: str, when: Literal["before", "after"]
) -> None:
    redis_engine.transact(lambda t: t.put_node(50, FILE))
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
