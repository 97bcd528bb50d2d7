"""Slices through the block store: objects named by the format, read back by any range, fetched no more than needed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fscore.blocks.cache.api import BlockCache, NoCache
from fscore.blocks.cache.memory import MemoryCache
from fscore.blocks.store import BlockStore
from fscore.domain.errors import CorruptError, Invalid, NotFound, SettingError, TransientError
from fscore.domain.geometry import CHUNK
from fscore.domain.keys import slice_keys
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty, When
from fscore.objects.wrap.meter import Metered
from fscore.objects.wrap.wrapper import Wrapper
from fscore.runtime.buffer import Buffer
from fscore.runtime.metrics import Metrics

pytestmark = pytest.mark.usefixtures("no_thread_left")

BLOCK = 64 << 10
Make = Callable[..., BlockStore]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes block stores over memory, and closes them."""
    made: list[BlockStore] = []

    def new(objects: Wrapper | MemoryStore | None = None, **options: object) -> BlockStore:
        options.setdefault("cache", NoCache())
        store = BlockStore(objects or MemoryStore(), block_size=BLOCK, **options)  # type: ignore[arg-type]
        made.append(store)
        return store

    yield new
    for store in made:
        store.close()


def written(store: BlockStore, slice_id: int, data: bytes, step: int = 10_007) -> bytes:
    writer = store.new_writer(slice_id)
    for start in range(0, len(data), step):
        writer.write(bytearray(data[start : start + step]))
    assert writer.finish() == len(data)
    return data


def objects_of(store: BlockStore) -> list[str]:
    return [info.key for info in store.objects.scan()]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("hash_prefix", [False, True])
def test_objects_are_named_by_plain_length(make: Make, compression: str, *, hash_prefix: bool) -> None:
    store = make(compression=compression, hash_prefix=hash_prefix)
    data = written(store, 123456789, os.urandom(2 * BLOCK + 5))
    folder = "15/123" if hash_prefix else "123/123456"
    assert objects_of(store) == [
        f"chunks/{folder}/123456789_{index}_{size}" for index, size in enumerate([BLOCK, BLOCK, 5])
    ]
    assert store.read(123456789, len(data), 0, len(data)) == data
    assert store.exists(123456789, len(data)) == []


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("cache", [NoCache, lambda: MemoryCache(1 << 20)])
def test_any_range_reads_back(make: Make, compression: str, cache: Callable[[], BlockCache]) -> None:
    store = make(compression=compression, cache=cache())
    data = written(store, 7, os.urandom(5 * BLOCK + 1234))
    rng = random.Random(5)
    for _ in range(300):
        off = rng.randrange(len(data) + 10)
        length = rng.choice([0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, len(data)])
        assert store.read(7, len(data), off, length) == data[off : off + length]
        n = len(data[off : off + length])
        buffer = bytearray(n)
        store.read_into(7, len(data), off, memoryview(buffer))
        assert buffer == data[off : off + n]
    with pytest.raises(CorruptError):
        store.read_into(7, len(data), len(data) - 1, memoryview(bytearray(2)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3 * 1024), max_size=8), st.integers(1, 6))
def test_writes_of_any_size_make_the_same_blocks(make: Make, sizes: list[int], kind: int) -> None:
    store = BlockStore(MemoryStore(), block_size=1024)
    writer = store.new_writer(1)
    whole = b""
    for number, size in enumerate(sizes):
        data = os.urandom(size)
        whole += data
        form = (kind + number) % 3
        writer.write(data if form == 0 else bytearray(data) if form == 1 else memoryview(data))
    assert writer.finish() == len(whole)
    assert [info.key for info in store.objects.scan()] == sorted(slice_keys(1, len(whole), 1024))
    assert store.read(1, len(whole), 0, len(whole)) == whole
    store.close()


def test_a_buffer_may_be_changed_after_write(make: Make) -> None:
    store = make()
    writer = store.new_writer(1)
    buffer = bytearray(BLOCK)
    for value in range(8):
        buffer[:] = bytes([value]) * BLOCK
        writer.write(buffer)
    writer.finish()
    assert store.read(1, 8 * BLOCK, 0, 8 * BLOCK) == b"".join(bytes([value]) * BLOCK for value in range(8))


def test_a_slice_ends_with_its_chunk(make: Make) -> None:
    store = BlockStore(MemoryStore(), block_size=16 << 20)
    writer = store.new_writer(1)
    with pytest.raises(Invalid, match="outgrow a chunk"):
        writer.write(bytes(CHUNK + 1))
    writer.abort()
    with pytest.raises(Invalid, match="finished"):
        writer.write(b"x")
    store.close()


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("when", list(When))
def test_a_failed_upload_surfaces_at_finish_and_abort_leaves_nothing(make: Make, at: int, when: When) -> None:
    plan = FaultPlan(at, when=when, calls=frozenset({"put"}))
    store = make(Faulty(MemoryStore(), plan))
    writer = store.new_writer(1)
    with pytest.raises(TransientError, match=f"fault {at}"):
        fill_and_finish(writer)
    writer.abort()
    assert objects_of(store) == []
    assert store.budget.used == 0


def fill_and_finish(writer: object) -> None:
    for _ in range(4):
        writer.write(bytearray(BLOCK))  # type: ignore[attr-defined]
    writer.finish()  # type: ignore[attr-defined]


def test_abort_survives_a_store_that_cannot_delete(make: Make) -> None:
    plan = FaultPlan(1, persistent=True, calls=frozenset({"delete"}))
    store = make(Faulty(MemoryStore(), plan))
    writer = store.new_writer(1)
    writer.write(bytes(2 * BLOCK + 1))
    writer.finish()
    writer.abort()
    assert plan.struck == 3
    assert len(objects_of(store)) == 3  # left for gc


class Gate(Wrapper):
    """Puts and gets that wait for a gate."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.open = threading.Event()
        self.waiting = 0
        self.gets: list[tuple[str, int, int | None]] = []
        self.lock = threading.Lock()

    def put(self, key: str, data: object) -> None:
        with self.lock:
            self.waiting += 1
        assert self.open.wait(10)
        self.inner.put(key, data)  # type: ignore[arg-type]

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        with self.lock:
            self.gets.append((key, offset, length))
        assert self.open.wait(10)
        return self.inner.get(key, offset, length)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        with self.lock:
            self.gets.append((key, 0, None))
        assert self.open.wait(10)
        return self.inner.fill(key, buffer)

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        with self.lock:
            self.gets.append((key, offset, len(buffer)))
        return self.inner.get_into(key, buffer, offset)


def test_uploads_push_back_and_writers_never_block_each_other(make: Make) -> None:
    gate = Gate(MemoryStore())
    store = make(gate, upload_threads=2, buffer_bytes=4 * BLOCK)
    partial = [store.new_writer(number) for number in range(10, 30)]
    for writer in partial:
        writer.write(bytearray(BLOCK - 1))  # open and idle: they must not use up the budget
    done = threading.Event()

    def write() -> None:
        writer = store.new_writer(1)
        for _ in range(12):
            writer.write(bytearray(BLOCK))
        writer.finish()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not done.wait(0.05)
    assert store.budget.used == 4 * BLOCK
    gate.open.set()
    thread.join(10)
    assert done.is_set()
    for writer in partial:
        assert writer.finish() == BLOCK - 1
    assert store.budget.used == 0


def test_one_fetch_for_many_readers(make: Make) -> None:
    driver = MemoryStore()
    data = written(make(driver), 1, os.urandom(BLOCK))
    gate = Gate(driver)
    store = make(gate, cache=MemoryCache(1 << 20))
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(store.read(1, BLOCK, 0, BLOCK))) for _ in range(8)]
    for thread in threads:
        thread.start()
    while not gate.gets:
        pass
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert found == [data] * 8
    assert len(gate.gets) == 1


def test_small_random_reads_are_ranges_and_sequences_are_whole_blocks(make: Make) -> None:
    driver = MemoryStore()
    data = written(make(driver), 1, os.urandom(4 * BLOCK))
    gate = Gate(driver)
    gate.open.set()
    store = make(gate, cache=MemoryCache(8 << 20))
    assert store.read(1, len(data), 30_000, 100) == data[30_000:30_100]
    assert gate.gets[-1][1:] == (30_000, 100)
    assert store.read(1, len(data), 30_100, 100) == data[30_100:30_200]  # goes on: the block is worth having
    assert gate.gets[-1][1:] == (0, None)
    seen = len(gate.gets)
    store.read(1, len(data), 50_000, 100)
    assert len(gate.gets) == seen  # cached by then
    assert store.read(1, len(data), BLOCK, 100) == data[BLOCK : BLOCK + 100]  # the beginning of a block
    assert gate.gets[-1][1:] == (0, None)
    for off in (40_000, 20_000, 60_000, 10_000):
        store.read(1, len(data), 2 * BLOCK + off, 10)
    assert [get[1:] for get in gate.gets[-4:]] == [(40_000, 10), (20_000, 10), (60_000, 10), (0, None)]
    store.read(1, len(data), 3 * BLOCK + 100, BLOCK // 2)  # large: the whole block
    assert gate.gets[-1][1:] == (0, None)


def test_compressed_blocks_are_never_read_in_part(make: Make) -> None:
    driver = MemoryStore()
    data = written(make(driver, compression="zstd"), 1, os.urandom(BLOCK))
    gate = Gate(driver)
    gate.open.set()
    store = make(gate, compression="zstd")
    assert store.read(1, BLOCK, 30_000, 10) == data[30_000:30_010]
    assert gate.gets == [(f"chunks/0/0/1_0_{BLOCK}", 0, None)]


def test_without_a_cache_bytes_go_straight_into_the_buffer(make: Make) -> None:
    driver = MemoryStore()
    data = written(make(driver), 1, os.urandom(2 * BLOCK))
    gate = Gate(driver)
    store = make(gate)
    buffer = bytearray(BLOCK)
    store.read_into(1, len(data), BLOCK // 2, memoryview(buffer))
    assert buffer == data[BLOCK // 2 : BLOCK // 2 + BLOCK]
    assert sorted(get[1:] for get in gate.gets) == [(0, BLOCK // 2), (BLOCK // 2, BLOCK // 2)]


@pytest.mark.parametrize("cache", [NoCache(), MemoryCache(BLOCK - 1)])
def test_a_cache_that_keeps_no_block_causes_no_whole_fetch(make: Make, cache: BlockCache) -> None:
    driver = MemoryStore()
    data = written(make(driver), 1, os.urandom(BLOCK))
    gate = Gate(driver)
    gate.open.set()
    store = make(gate, cache=cache)
    for off in range(0, BLOCK, 8192):
        assert store.read(1, BLOCK, off, 8192) == data[off : off + 8192]
    store.prefetch(1, BLOCK, 0, BLOCK)
    with pytest.raises(SettingError, match="no block cache to warm"):
        store.warm([(1, BLOCK, 0, BLOCK)])
    store.close()
    assert [get[1:] for get in gate.gets] == [(off, 8192) for off in range(0, BLOCK, 8192)]


def test_a_missing_block_is_not_found(make: Make) -> None:
    store = make()
    written(store, 1, bytes(3 * BLOCK))
    key = f"chunks/0/0/1_1_{BLOCK}"
    store.objects.delete(key)
    with pytest.raises(NotFound):
        store.read(1, 3 * BLOCK, 0, 3 * BLOCK)
    with pytest.raises(NotFound):
        store.read(1, 3 * BLOCK, BLOCK + 5, 10)
    assert store.exists(1, 3 * BLOCK) == [key]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("cache", [NoCache, lambda: MemoryCache(1 << 20)])
def test_a_damaged_block_is_corrupt_and_not_cached(
    make: Make, compression: str, cache: Callable[[], BlockCache]
) -> None:
    metrics = Metrics()
    store = make(compression=compression, cache=cache(), metrics=metrics)
    written(store, 1, os.urandom(BLOCK))
    key = f"chunks/0/0/1_0_{BLOCK}"
    store.objects.put(key, store.objects.get(key)[: BLOCK // 2])
    for _ in range(2):
        with pytest.raises(CorruptError, match="1_0_"):
            store.read_into(1, BLOCK, 0, memoryview(bytearray(BLOCK)))
    with pytest.raises(CorruptError, match="1_0_"):
        store.read(1, BLOCK, BLOCK - 10, 10)
    assert metrics.get("blocks.corrupt") >= 3
    assert not store.cache.contains(key)


def test_prefetch_fills_the_cache_once_and_within_bounds(make: Make) -> None:
    driver = MemoryStore()
    data = written(make(driver), 1, os.urandom(12 * BLOCK))
    gate = Gate(driver)
    store = make(gate, cache=MemoryCache(16 << 20), fetch_threads=4, prefetch_blocks=3)
    for _ in range(3):
        store.prefetch(1, len(data), 0, len(data))
    gate.open.set()
    reader = store.read(1, len(data), 0, 3 * BLOCK)
    assert reader == data[: 3 * BLOCK]
    assert len(gate.gets) == 3
    store.prefetch(1, len(data), 11 * BLOCK, 10 * BLOCK)
    while not store.cache.contains(f"chunks/0/0/1_11_{BLOCK}"):
        pass
    assert store.cached_bytes([(1, len(data), 0, len(data))]) == 4 * BLOCK


def test_prefetch_of_what_is_gone_is_quiet(make: Make) -> None:
    store = make(cache=MemoryCache(1 << 20))
    store.prefetch(99, BLOCK, 0, BLOCK)
    store.close()
    store.prefetch(98, BLOCK, 0, BLOCK)


class Steps:
    """Progress that adds up."""

    def __init__(self) -> None:
        self.total: int | None = 0
        self.done = 0
        self.finished = False

    def start(self, label: str, total: int | None, unit: str) -> int:
        self.total = total
        return 1

    def advance(self, task: int, n: int) -> None:
        self.done += n

    def finish(self, task: int) -> None:
        self.finished = True


def test_warm_reports_what_it_did(make: Make) -> None:
    driver = MemoryStore()
    first = make(driver)
    for slice_id in (1, 2):
        written(first, slice_id, os.urandom(3 * BLOCK + 7))
    driver.delete(f"chunks/0/0/2_1_{BLOCK}")
    store = make(driver, cache=MemoryCache(16 << 20))
    size = 3 * BLOCK + 7
    slices = [(1, size, 0, size), (2, size, 0, 2 * BLOCK), (2, size, BLOCK, size - BLOCK)]
    store.read(1, 3 * BLOCK + 7, 0, BLOCK)
    steps = Steps()
    report = store.warm(slices, steps)
    assert (report.cached, report.fetched, report.failed) == (BLOCK, 4 * BLOCK + 14, BLOCK)
    assert (steps.total, steps.done, steps.finished) == (6 * BLOCK + 14, 6 * BLOCK + 14, True)
    assert store.cached_bytes(slices) == 5 * BLOCK + 14
    again = store.warm(slices[:1])
    assert (again.cached, again.fetched) == (3 * BLOCK + 7, 0)


def test_delete_removes_objects_and_cached_blocks(make: Make) -> None:
    store = make(cache=MemoryCache(16 << 20))
    data = written(store, 1, os.urandom(3 * BLOCK))
    store.read(1, len(data), 0, len(data))
    store.delete(1, len(data))
    assert objects_of(store) == []
    assert store.cached_bytes([(1, len(data), 0, len(data))]) == 0
    store.delete(1, len(data))


def test_metrics(make: Make) -> None:
    metrics = Metrics()
    store = make(
        Metered(MemoryStore(), metrics), metrics=metrics, compression="lz4", cache=MemoryCache(1 << 20, metrics)
    )
    written(store, 1, bytes(2 * BLOCK))
    store.read(1, 2 * BLOCK, 0, 2 * BLOCK)
    store.read(1, 2 * BLOCK, 0, 2 * BLOCK)
    shot = metrics.snapshot()
    assert shot["blocks.put.bytes"] == 2 * BLOCK
    assert shot["blocks.fetch.bytes"] == 2 * BLOCK
    assert shot["blocks.fetch.count"] == 2
    assert 0 < int(str(shot["objects.put.bytes"])) < BLOCK  # what was stored, compressed
    assert shot["cache.memory.hit"] == 2
