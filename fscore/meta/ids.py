"""Numbers reserved ahead, so that a new node or slice costs no round trip of its own (volume-format.md 2.3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fscore.domain.errors import TooLarge
from fscore.meta.records import Counter

INODE_BATCH: Final = 1024
SLICE_BATCH: Final = 4096
LARGEST: Final = (1 << 52) - 1
"""Ids above it would cost JuiceFS its fast lookups; no volume gets there."""

Reserve = Callable[[Counter, int], range]
"""How numbers are taken: `MetaEngine.reserve`."""


class Ids:
    """Hands out numbers of one counter. What is left at the end is lost, as the format allows. Thread-safe."""

    def __init__(self, reserve: Reserve, counter: Counter, batch: int) -> None:
        self._reserve = reserve
        self._counter = counter
        self._batch = batch
        self._lock = threading.Lock()
        self._left = iter(range(0))

    def take(self) -> int:
        """One fresh number."""
        with self._lock:
            number = next(self._left, 0)
            if not number:
                self._left = iter(self._reserve(self._counter, self._batch))
                number = next(self._left)
        if number > LARGEST:
            raise TooLarge(f"the volume's {self._counter.value} is used up")
        return number
