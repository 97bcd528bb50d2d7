"""The same transactions on every engine leave the same records: random intents, compared record for record."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fscore.domain.attr import Attr, Kind
from fscore.domain.locks import EOF, LockKind, LockRange
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import forget_memory, open_engine
from fscore.meta.records import DirStat, Edge, LockOwner
from fscore.meta.txn import MetaTxn
from tests.kit.engines import SERVERS, SQL_SERVERS
from tests.kit.redis_server import RedisServer

Step = Callable[[MetaTxn], None]
INOS = st.integers(1, 4)
FILES = st.integers(2, 3)
HOLDERS = st.builds(LockOwner, st.integers(1, 2), st.sampled_from([7, (1 << 64) - 1]))
RANGES = ((), (LockRange(LockKind.READ, 1, 0, 4), LockRange(LockKind.WRITE, 1, 5, EOF)))
INDEXES = st.sampled_from([0, 300])
NAMES = st.sampled_from([b"a", b"b\xff", b"\x00c"])
XATTRS = st.sampled_from([b"user.a", b"user.A", b"user.\xc3\xa9"])
"""Names that database servers can hold, too."""
SLICES = {1: 10, 2: 4096, 3: 1 << 20}
ROOT_ATTR = Attr(Kind.DIRECTORY, 0o777, nlink=2, length=4096, parent=1)

records = st.lists(
    st.sampled_from([SliceRecord(0, 0, 0, 0, 5), SliceRecord(2, 1, 10, 1, 9), SliceRecord(256, 2, 4096, 0, 4096)]),
    max_size=3,
)


class Op(msgspec.Struct, frozen=True):
    """One intent, with the reads that it needs before it."""

    name: str
    args: tuple[Any, ...]

    def reads(self, txn: MetaTxn) -> Any:
        """What the intent depends on."""
        if self.name == "put_node":
            return txn.node(self.args[0])
        if self.name == "replace_prefix":
            return len(txn.chunk(*self.args[:2]))
        if self.name == "put_flock":
            return txn.flocks(self.args[0])
        if self.name == "put_plock":
            return txn.plocks(self.args[0])
        return None

    def writes(self, txn: MetaTxn, seen: Any) -> None:
        """The intent."""
        if self.name == "put_node":
            ino, changes = self.args
            txn.put_node(ino, msgspec.structs.replace(seen or ROOT_ATTR, **changes))
        elif self.name == "replace_prefix":
            ino, index, count, new = self.args
            if seen:
                txn.replace_prefix(ino, index, min(count, seen), new)
        elif self.name == "append_existing":
            txn.append(*self.args, if_exists=True)
        else:
            getattr(txn, self.name)(*self.args)


def op(name: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    """Intents of a name."""
    return st.tuples(*args).map(lambda values: Op(name, values))


changes = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.integers(0, 0o7777),
        "nlink": st.integers(1, 9),
        "length": st.integers(0, 1 << 40),
        "mtime_ns": st.integers(0, 1 << 62),
        "access_acl": st.integers(0, 3),
        "tier": st.integers(0, 3),
    },
)
sizes = st.sampled_from(sorted(SLICES.items()))
ops = st.one_of(
    op("put_node", INOS, changes),
    op("del_node", st.integers(2, 4)),
    op("put_edge", INOS, NAMES, st.builds(Edge, st.sampled_from(Kind), INOS)),
    op("del_edge", INOS, NAMES),
    op("append", FILES, INDEXES, records),
    op("append_existing", FILES, INDEXES, records),
    op("append", FILES, INDEXES, records),
    op("replace_prefix", FILES, INDEXES, st.integers(1, 3), records),
    op("del_chunk", FILES, INDEXES),
    sizes.flatmap(lambda pair: op("add_refs", st.just(pair[0]), st.just(pair[1]), st.integers(-2, 2))),
    op("put_symlink", INOS, st.binary(min_size=1, max_size=8)),
    op("del_symlink", INOS),
    op("put_xattr", INOS, XATTRS, st.binary(max_size=8)),
    op("del_xattr", INOS, XATTRS),
    op("del_xattrs", INOS),
    op("add_usage", st.integers(-9, 9), st.integers(-9, 9)),
    op("put_delfile", INOS, st.just(100), st.integers(1, 99)),
    op("sustain", INOS, INOS),
    op("unsustain", INOS, INOS),
    op("put_dir_stat", INOS, st.builds(DirStat, *[st.integers(0, 9)] * 3)),
    op("del_dir_records", INOS),
    op("put_delayed", st.just(9), st.just(50), st.lists(sizes, min_size=1, max_size=3)),
    op("detach", INOS, st.integers(1, 99)),
    op("attach", INOS),
    op("put_flock", INOS, HOLDERS, st.sampled_from(LockKind)),
    op("put_plock", INOS, HOLDERS, st.sampled_from(RANGES)),
)


def same_target(first: Op, second: Op) -> bool:
    """Whether two intents of one transaction meet in a record: their order is then the engine's affair."""
    pairs = {first.name, second.name}
    if first.name == second.name and first.name in {"put_flock", "put_plock"}:
        return bool(first.args[0] == second.args[0])
    return (
        first.args[:1] == second.args[:1] and pairs & {"replace_prefix", "put_node", "del_node", "del_xattrs"} != set()
    )


def apart(transaction: list[Op]) -> list[Op]:
    """A transaction as operations make them: it does not write a record in two ways."""
    kept: list[Op] = []
    for candidate in transaction:
        if not any(same_target(candidate, other) for other in kept):
            kept.append(candidate)
    return kept


def run(engine: MetaEngine, transaction: list[Op]) -> None:
    """All reads, then all intents."""

    def body(txn: MetaTxn) -> None:
        seen = [each.reads(txn) for each in transaction]
        for each, value in zip(transaction, seen, strict=True):
            each.writes(txn, value)

    engine.transact(body)


def everything(engine: MetaEngine) -> dict[str, Any]:
    """Every record, in an order of its own."""
    assert engine.claim_job("nextCleanupSlices", 1, 0), "from now on it shows what others let go"
    with engine.view() as view:
        inos = range(1, 5)
        seen = {
            "nodes": {ino: view.node(ino) for ino in inos},
            "edges": {ino: sorted((e.name, e.ino, e.kind) for e in view.entries(ino)) for ino in inos},
            "listed": {ino: sorted(e.name for page in engine.scan_dir(ino, attrs=True) for e in page) for ino in inos},
            "has": {ino: view.has_entries(ino) for ino in inos},
            "chunks": {(ino, index): view.chunk(ino, index) for ino in inos for index in (0, 300)},
            "indexes": {ino: view.chunk_indexes(ino, 0, 1000) for ino in inos},
            "symlinks": {ino: view.symlink(ino) for ino in inos},
            "xattrs": {ino: view.xattrs(ino) for ino in inos},
            "flocks": {ino: view.flocks(ino) for ino in inos},
            "plocks": {ino: view.plocks(ino) for ino in inos},
            "usage": view.usage(),
        }
    return seen | {
        "all nodes": sorted(ino for ino, _ in engine.scan_nodes()),
        "all edges": sorted(engine.scan_edges()),
        "all chunks": sorted(engine.scan_chunks()),
        "refs": sorted(found for found in engine.scan_refs() if found[2] != 1),
        "dead": sorted(engine.take_dead()),
        "stats": sorted(engine.scan_dir_stats()),
        "delfiles": sorted(engine.scan_delfiles()),
        "delayed": sorted(engine.scan_delayed()),
        "detached": sorted(engine.scan_detached()),
        "sustained": sorted(engine.scan_sustained()),
    }


@contextlib.contextmanager
def engines(server: RedisServer) -> Iterator[list[MetaEngine]]:
    """A new volume on each engine, and a second client of the one on Redis."""
    name = uuid.uuid4().hex
    url = server.url(4000)
    with TemporaryDirectory() as place, server.client(4000) as client:
        client.flushdb()
        made = [open_engine(f"memory://{name}"), open_engine(f"sqlite3://{Path(place)}/meta.db"), open_engine(url)]
        for engine in made:
            engine.init_volume(b"{}", {1: ROOT_ATTR})
            for slice_id, size in SLICES.items():
                engine.transact(methodcaller("new_slice", slice_id, size))
        made.append(open_engine(url))
        try:
            yield made
        finally:
            for engine in made:
                engine.close()
            forget_memory(name)


@pytest.mark.redis
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.lists(ops, min_size=1, max_size=5).map(apart), st.booleans()), max_size=12))
def test_every_engine_keeps_the_same_records(redis_server: RedisServer, history: list[tuple[list[Op], bool]]) -> None:
    with engines(redis_server) as (memory, sqlite, first, second):
        for transaction, by_first in history:
            for engine in (memory, sqlite, first if by_first else second):
                run(engine, transaction)
        wanted = everything(memory)
        assert everything(sqlite) == wanted
        assert everything(first) == wanted


@pytest.mark.parametrize("kind", SQL_SERVERS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=max(settings().max_examples // 4, 10),
)
@given(st.data())
def test_servers_keep_the_same_records(kind: str, request: pytest.FixtureRequest, data: st.DataObject) -> None:
    history = data.draw(st.lists(st.lists(ops, min_size=1, max_size=5).map(apart), max_size=8))
    server = request.getfixturevalue(SERVERS[kind])
    database, name = server.lend(), uuid.uuid4().hex
    made = [open_engine(f"memory://{name}"), open_engine(server.url(database))]
    try:
        for engine in made:
            engine.init_volume(b"{}", {1: ROOT_ATTR})
            for slice_id, size in SLICES.items():
                engine.transact(methodcaller("new_slice", slice_id, size))
        for transaction in history:
            for engine in made:
                run(engine, transaction)
        memory, served = made
        assert everything(served) == everything(memory)
    finally:
        for engine in made:
            engine.close()
        forget_memory(name)
        server.take_back(database)
