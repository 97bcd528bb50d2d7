"""Directories of very many entries: listed in a stream, each name once, in memory that does not grow with them."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from fscore.domain.attr import Attr, Kind
from fscore.domain.ids import ROOT
from fscore.meta.cache import CAPACITY
from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.records import Counter, Edge
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from tests.kit.engines import SQL_SERVERS, MakeMeta
from tests.kit.tree import SUPER, mkdir

FIRST = 1000
"""Inodes from here on are the test's."""

PEAK = 24 << 20
"""Bytes that a listing may hold at once: a few batches of 4,096 entries with attributes."""


REMEMBERED = 700
"""Bytes of an entry and its attributes in the cache of what was seen a moment ago, which has an end."""


NAME = 100
"""Bytes of a name in the set that a listing of Redis keeps: a hash that grows meanwhile may give a name twice."""


def fill(meta: MetaService, parent: int, count: int) -> None:
    """So many empty files, a thousand in a transaction."""
    now = time.time_ns()
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))

        def add(txn: MetaTxn, numbers: range = numbers) -> None:
            for number in numbers:
                attr = Attr(
                    kind=Kind.FILE, mode=0o644, mtime_ns=now, ctime_ns=now, atime_ns=now, nlink=1, parent=parent
                )
                txn.put_node(FIRST + number, attr)
                txn.put_edge(parent, b"entry-%07d" % number, Edge(Kind.FILE, FIRST + number))
            txn.add_usage(4096 * len(numbers), len(numbers))

        meta.engine.transact(add)


def check(meta: MetaService, count: int) -> float:
    """List it with attributes and without; returns the seconds until the first entry was there."""
    parent = mkdir(meta, b"large")
    fill(meta, parent, count)
    tracemalloc.start()
    try:
        began = time.monotonic()
        first = 0.0
        seen = bytearray(count)
        for entry in meta.readdir(SUPER, parent, attrs=True):
            first = first or time.monotonic() - began
            assert entry.attr is not None
            assert entry.attr.nlink == 1
            seen[entry.ino - FIRST] += 1
        assert seen == b"\x01" * count
        assert sum(1 for _ in meta.readdir(SUPER, parent, attrs=False)) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    known = min(count, CAPACITY) * REMEMBERED
    seen_names = count * NAME if isinstance(meta.engine, RedisEngine) else 0
    assert peak < PEAK + known + seen_names + count  # one byte each is this test's own
    return first


def settle(meta: MetaService, count: int) -> None:
    """What was put past the service: numbers that are taken, statistics that were not kept."""
    while max(meta.engine.reserve(Counter.INODE, count)) < FIRST + count:
        continue
    parent = meta.lookup(SUPER, ROOT, b"large")[0]
    meta.flush()
    meta._stats.recount(parent)


LARGE: list[Any] = [20_000, pytest.param(1_000_000, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])]
KINDS: list[Any] = ["sqlite", pytest.param("redis", marks=pytest.mark.redis), *SQL_SERVERS]


@pytest.mark.parametrize("count", LARGE)
@pytest.mark.parametrize("engine_url", KINDS, indirect=True)
def test_a_large_directory_is_listed_in_a_stream(make_meta: MakeMeta, count: int) -> None:
    meta = make_meta()
    first = check(meta, count)
    settle(meta, count)
    assert first < 5.0
