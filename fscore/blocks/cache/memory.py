"""Blocks in this process's memory, least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fscore.runtime.buffer import Buffer, frozen
from fscore.runtime.metrics import Metrics


class MemoryCache:
    """At most `limit` bytes of blocks. A block larger than that is not kept."""

    def __init__(self, limit: int, metrics: Metrics | None = None) -> None:
        self._limit = limit
        self._metrics = metrics or Metrics()
        self._lock = threading.Lock()
        self._blocks: OrderedDict[str, Buffer] = OrderedDict()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self._used

    def get(self, key: str, off: int, length: int) -> Buffer | None:
        """Part of a block; a whole one without a copy."""
        block = self._find(key)
        if block is None or off + length > len(block):
            return None
        return block if length == len(block) else block[off : off + length]

    def get_into(self, key: str, off: int, buffer: memoryview) -> bool:
        """Part of a block into `buffer`."""
        block = self._find(key)
        if block is None or off + len(buffer) > len(block):
            return False
        buffer[:] = memoryview(block)[off : off + len(buffer)]
        return True

    def peek(self, key: str, off: int, length: int) -> Buffer | None:
        """Part of a block, as a view of it."""
        block = self._find(key)
        if block is None or off + length > len(block):
            return None
        return memoryview(block)[off : off + length]

    def put(self, key: str, data: Buffer, *, wait: bool = False) -> None:
        """Keep a block; one that may change is copied."""
        if not self.keeps(len(data)):
            return
        block = frozen(data)
        with self._lock:
            old = self._blocks.pop(key, None)
            self._used += len(block) - (len(old) if old is not None else 0)
            self._blocks[key] = block
            while self._used > self._limit:
                _, evicted = self._blocks.popitem(last=False)
                self._used -= len(evicted)

    def keeps(self, size: int) -> bool:
        """Whether it fits."""
        return size <= self._limit

    def contains(self, key: str) -> bool:
        """Whether it is here."""
        return key in self._blocks

    def drop(self, key: str) -> None:
        """Forget it."""
        with self._lock:
            old = self._blocks.pop(key, None)
            if old is not None:
                self._used -= len(old)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks.clear()
            self._used = 0

    def _find(self, key: str) -> Buffer | None:
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
        self._metrics.add("cache.memory.hit" if block is not None else "cache.memory.miss")
        return block
