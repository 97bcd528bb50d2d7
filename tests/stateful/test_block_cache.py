"""Histories of a block cache against a dictionary: it may forget, it never lies, and its sizes add up."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fscore.blocks.cache.disk import DiskCache
from fscore.blocks.cache.memory import MemoryCache
from fscore.blocks.cache.sums import trailer_size
from fscore.blocks.cache.tiers import Tiers

numbers = st.integers(0, 7)
SIZES = (1, 500, 32768, 40_000, 70_000, 33_000, 9, 65_536)
LIMIT = 150_000


def key_of(number: int) -> str:
    return f"chunks/0/0/{number}_0_{SIZES[number]}"


def bytes_of(number: int) -> bytes:
    return bytes((number * 37 + at) % 251 for at in range(SIZES[number]))


BLOCKS = {number: bytes_of(number) for number in range(len(SIZES))}


class BlockCacheMachine(RuleBasedStateMachine):
    """Two caches on one directory, as two processes have them; files are damaged and removed behind their backs."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fscore-cache-"))
        self.caches = [self._open(), self._open()]

    def _open(self) -> Tiers:
        return Tiers(MemoryCache(50_000), DiskCache(str(self.home), "u", limit=LIMIT, free_ratio=0.0), behind=60_000)

    @rule(number=numbers, who=st.integers(0, 1))
    def put(self, number: int, who: int) -> None:
        self.caches[who].put(key_of(number), BLOCKS[number])

    @rule(number=numbers, who=st.integers(0, 1), data=st.data())
    def get(self, number: int, who: int, data: st.DataObject) -> None:
        size = SIZES[number]
        off = data.draw(st.integers(0, size - 1))
        length = data.draw(st.integers(1, size - off))
        want = BLOCKS[number][off : off + length]
        assert self.caches[who].get(key_of(number), off, length) in {None, want}
        buffer = bytearray(length)
        if self.caches[who].get_into(key_of(number), off, memoryview(buffer)):
            assert buffer == want

    @rule(number=numbers, who=st.integers(0, 1))
    def drop(self, number: int, who: int) -> None:
        self.caches[who].drop(key_of(number))
        self.caches[who].flush()
        self.caches[1 - who].flush()
        self.caches[who].drop(key_of(number))
        assert not self.caches[who].contains(key_of(number))

    @rule(number=numbers, at=st.integers(0, 80_000))
    def damage(self, number: int, at: int) -> None:
        for cache in self.caches:
            cache.flush()
        path = self.home / "u" / "raw" / key_of(number)
        if path.exists():
            stored = bytearray(path.read_bytes())
            stored[at % len(stored)] ^= 0x10
            path.write_bytes(stored)

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        (self.home / "u" / "raw" / key_of(number)).unlink(missing_ok=True)

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        self.caches[who].close()
        self.caches[who] = self._open()
        assert self.caches[who].used <= LIMIT

    @precondition(lambda self: hasattr(self, "caches"))
    @invariant()
    def sizes_add_up(self) -> None:
        for cache in self.caches:
            cache.flush()
            disk = cache._disk
            assert isinstance(disk, DiskCache)
            assert disk.shelf.used == sum(disk.shelf.sizes.values()) <= LIMIT
            for number, size in enumerate(SIZES):
                assert disk.shelf.sizes.get(f"raw/{key_of(number)}", size + trailer_size(size)) == size + trailer_size(
                    size
                )
            assert cache._waiting == {}
            assert cache._waiting_bytes == 0

    def teardown(self) -> None:
        for cache in getattr(self, "caches", []):
            cache.close()
        if hasattr(self, "home"):
            shutil.rmtree(self.home)


TestBlockCache = BlockCacheMachine.TestCase
TestBlockCache.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
