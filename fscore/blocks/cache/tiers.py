"""Memory in front of disk. A block is kept in memory at once and written to the disk behind the reader's back."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from fscore.blocks.cache.api import BlockCache, NoCache
from fscore.blocks.cache.disk import DiskCache
from fscore.blocks.cache.memory import MemoryCache
from fscore.runtime.buffer import Buffer, frozen
from fscore.runtime.metrics import Metrics
from fscore.runtime.threads import Pool

DEFAULT_CACHE: Final = 100 << 30
DEFAULT_MEMORY: Final = 128 << 20
_BEHIND: Final = 128 << 20  # bytes that may wait to be written; above, a block is not kept on the disk


class Tiers:
    """A small fast cache over a large slow one."""

    def __init__(
        self, memory: BlockCache, disk: BlockCache, *, behind: int = _BEHIND, metrics: Metrics | None = None
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._behind = behind
        self._metrics = metrics or Metrics()
        self._pool = Pool("cache-write", 2)
        self._lock = threading.Lock()
        self._waiting: dict[str, Buffer] = {}
        self._waiting_bytes = 0
        self._writes: set[Future[None]] = set()

    @property
    def used(self) -> int:
        """Bytes on the disk; memory only mirrors some of them."""
        return self._disk.used

    def get(self, key: str, off: int, length: int) -> Buffer | None:
        """From memory, from what waits to be written, or from the disk."""
        found = self._memory.get(key, off, length)
        if found is None:
            block = self._waiting.get(key)
            if block is not None:
                return block[off : off + length] if off + length <= len(block) else None
            found = self._disk.get(key, off, length)
        return found

    def get_into(self, key: str, off: int, buffer: memoryview) -> bool:
        """As get, into `buffer`."""
        if self._memory.get_into(key, off, buffer):
            return True
        block = self._waiting.get(key)
        if block is not None and off + len(buffer) <= len(block):
            buffer[:] = memoryview(block)[off : off + len(buffer)]
            return True
        return self._disk.get_into(key, off, buffer)

    def peek(self, key: str, off: int, length: int) -> Buffer | None:
        """From memory, from what waits to be written, or from the page cache."""
        found = self._memory.peek(key, off, length)
        if found is None:
            block = self._waiting.get(key)
            if block is None:
                return self._disk.peek(key, off, length)
            found = memoryview(block)[off : off + length] if off + length <= len(block) else None
        return found

    def put(self, key: str, data: Buffer, *, wait: bool = False) -> None:
        """In memory now, on the disk soon; in memory alone when too much waits for the disk already."""
        block = frozen(data)
        self._memory.put(key, block)
        with self._lock:
            if key in self._waiting:
                return
            room = self._waiting_bytes + len(block) <= self._behind
            if room:
                self._waiting[key] = block
                self._waiting_bytes += len(block)
        if not room:
            if wait:
                self._disk.put(key, block)
            else:
                self._metrics.add("cache.disk.skipped")
            return
        write = self._pool.submit(self._write, key, block)
        with self._lock:
            self._writes.add(write)
        write.add_done_callback(self._written)

    def keeps(self, size: int) -> bool:
        """Whether any tier does."""
        return self._memory.keeps(size) or self._disk.keeps(size)

    def contains(self, key: str) -> bool:
        """Whether any tier has it."""
        return self._memory.contains(key) or key in self._waiting or self._disk.contains(key)

    def drop(self, key: str) -> None:
        """Forget it in every tier."""
        self._memory.drop(key)
        with self._lock:
            block = self._waiting.pop(key, None)
            self._waiting_bytes -= len(block) if block is not None else 0
        self._disk.drop(key)

    def flush(self) -> None:
        """Wait until everything that was put is on the disk."""
        with self._lock:
            writes = list(self._writes)
        for write in writes:
            write.exception()

    def close(self) -> None:
        """Write what waits, join the threads, close the tiers."""
        self.flush()
        self._pool.close()
        self._memory.close()
        self._disk.close()

    def _write(self, key: str, block: Buffer) -> None:
        try:
            if key in self._waiting:  # else it was dropped
                self._disk.put(key, block)
        finally:
            with self._lock:
                if self._waiting.pop(key, None) is not None:
                    self._waiting_bytes -= len(block)
                    gone = False
                else:
                    gone = True
            if gone:  # dropped while it was being written
                self._disk.drop(key)

    def _written(self, write: Future[None]) -> None:
        with self._lock:
            self._writes.discard(write)


def open_cache(
    cache_dir: str | None,
    uuid: str,
    *,
    cache_size: int = DEFAULT_CACHE,
    memory_size: int = DEFAULT_MEMORY,
    free_space_ratio: float = 0.1,
    metrics: Metrics | None = None,
) -> tuple[BlockCache, DiskCache | None]:
    """The cache of one volume: memory over `cache_dir`, memory alone without it, none for `memory_size` 0 as well.

    With it the part that lies on the disk.
    """
    counted = metrics or Metrics()
    memory: BlockCache = MemoryCache(memory_size, counted) if memory_size else NoCache()
    if not cache_dir or not cache_size:
        return memory, None
    folder = str(Path(cache_dir).expanduser().absolute())
    disk = DiskCache(folder, uuid, limit=cache_size, free_ratio=free_space_ratio, metrics=counted)
    return Tiers(memory, disk, metrics=counted), disk
