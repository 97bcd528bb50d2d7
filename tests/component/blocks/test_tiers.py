"""Memory over disk: what is put is here at once and on disk soon, bounded in between; the memory cache by itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.blocks.cache.api import NoCache
from fscore.blocks.cache.disk import DiskCache
from fscore.blocks.cache.memory import MemoryCache
from fscore.blocks.cache.tiers import Tiers, open_cache
from fscore.runtime.buffer import Buffer
from fscore.runtime.metrics import Metrics

pytestmark = pytest.mark.usefixtures("no_thread_left")


class SlowDisk(DiskCache):
    """A disk whose writes wait for a gate."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory, "u", limit=1 << 30, free_ratio=0.0)
        self.gate = threading.Event()
        self.writers: list[str] = []

    def put(self, key: str, data: Buffer, *, wait: bool = False) -> None:
        self.writers.append(threading.current_thread().name)
        assert self.gate.wait(10)
        super().put(key, data, wait=wait)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SlowDisk]:
    disk = SlowDisk(f"{tmp_path}/cache")
    yield disk
    disk.gate.set()
    disk.close()


def block(number: int, size: int = 1000) -> tuple[str, bytes]:
    return f"chunks/0/0/{number}_0_{size}", bytes([number]) * size


def test_a_block_is_readable_while_it_waits_for_the_disk(disk: SlowDisk) -> None:
    tiers = Tiers(NoCache(), disk)
    key, data = block(1)
    tiers.put(key, data)
    assert not disk.contains(key)
    assert tiers.contains(key)
    assert tiers.get(key, 10, 5) == data[10:15]
    buffer = bytearray(7)
    assert tiers.get_into(key, 3, memoryview(buffer))
    assert buffer == data[3:10]
    disk.gate.set()
    tiers.flush()
    assert disk.get(key, 0, 1000) == data
    assert tiers.get(key, 0, 1000) == data
    tiers.close()


def test_who_insists_writes_himself_when_too_much_waits(disk: SlowDisk) -> None:
    tiers = Tiers(NoCache(), disk, behind=2500)
    for number in (1, 2):
        tiers.put(*block(number))
    thread = threading.Thread(target=lambda: tiers.put(*block(3), wait=True), name="the-caller")
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    disk.gate.set()
    thread.join(10)
    tiers.flush()
    assert "the-caller" in disk.writers
    assert all(disk.contains(block(number)[0]) for number in (1, 2, 3))
    tiers.close()


def test_a_disk_that_does_not_keep_up_holds_nobody_up(disk: SlowDisk) -> None:
    metrics = Metrics()
    tiers = Tiers(MemoryCache(1 << 20), disk, behind=2500, metrics=metrics)
    for number in (1, 2, 3):
        tiers.put(*block(number))
    assert metrics.get("cache.disk.skipped") == 1
    assert tiers.get(block(3)[0], 0, 1000) == block(3)[1], "memory has it"
    disk.gate.set()
    tiers.flush()
    assert [disk.contains(block(number)[0]) for number in (1, 2, 3)] == [True, True, False]
    tiers.put(*block(3))
    tiers.flush()
    assert disk.contains(block(3)[0])
    tiers.close()


def test_what_is_dropped_while_it_waits_stays_away(disk: SlowDisk) -> None:
    tiers = Tiers(MemoryCache(1 << 20), disk)
    for number in range(6):  # two are being written, four wait
        tiers.put(*block(number))
    for number in range(6):
        tiers.drop(block(number)[0])
    disk.gate.set()
    tiers.flush()
    assert not any(tiers.contains(block(number)[0]) for number in range(6))
    assert tiers._waiting_bytes == 0
    tiers.close()


def test_close_writes_what_waits(tmp_path: Path) -> None:
    cache, _ = open_cache(f"{tmp_path}/c", "u", memory_size=0, free_space_ratio=0.0)
    keys = [block(number, 50_000)[0] for number in range(20)]
    for number in range(20):
        cache.put(*block(number, 50_000))
    cache.close()
    again, _ = open_cache(f"{tmp_path}/c", "u", free_space_ratio=0.0)
    assert all(again.contains(key) for key in keys)
    assert again.used == 20 * (50_000 + 8)
    again.close()


def test_which_caches_are_opened(tmp_path: Path) -> None:
    assert isinstance(open_cache(None, "u")[0], MemoryCache)
    assert isinstance(open_cache(None, "u", memory_size=0)[0], NoCache)
    assert isinstance(open_cache(f"{tmp_path}", "u", cache_size=0)[0], MemoryCache)
    tiers, disk = open_cache(f"{tmp_path}", "u")
    assert isinstance(tiers, Tiers)
    assert disk is not None
    tiers.close()


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    cache = MemoryCache(10_000)
    for number in range(10):
        cache.put(*block(number))
    cache.get(block(0)[0], 0, 1)
    for number in (10, 11):
        cache.put(*block(number))
    assert [number for number in range(12) if cache.contains(block(number)[0])] == [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert cache.used == 10_000
    cache.put(*block(12, 10_001))  # more than fits
    assert not cache.contains(block(12, 10_001)[0])
    cache.put(block(5)[0], b"y" * 900)
    assert cache.used == 9900
    assert cache.get(block(5)[0], 0, 901) is None
    cache.drop(block(5)[0])
    cache.drop(block(5)[0])
    assert cache.used == 9000
    cache.close()
    assert cache.used == 0


def test_memory_keeps_bytes_without_a_copy_and_copies_the_rest() -> None:
    cache = MemoryCache(1 << 20)
    data = os.urandom(1000)
    cache.put("k", data)
    assert cache.get("k", 0, 1000) is data
    buffer = bytearray(data)
    cache.put("b", buffer)
    buffer[:] = bytes(1000)
    assert cache.get("b", 0, 1000) == data
