"""Memory for blocks, taken again once nobody looks at it: fresh memory costs a page fault every 4 KiB.

The number of references to a mapping tells whether a view of it is left, as CPython counts them (views of views hold
the mapping, too).
"""

from __future__ import annotations

import mmap
import sys
import threading
from typing import Final

IDLE: Final = 3
"""References to a mapping that has no view: the list's, the loop's, and the argument of the question."""


class Frames:
    """At most `keep` mappings of `size` bytes. Thread-safe."""

    def __init__(self, size: int, keep: int) -> None:
        self.size: Final = size
        self._keep = keep
        self._frames: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """`size` bytes that nobody else looks at, of any content. They are free again when the last view is gone."""
        with self._lock:
            for frame in self._frames:
                if sys.getrefcount(frame) == IDLE:
                    return memoryview(frame)
            frame = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if len(self._frames) < self._keep:
                self._frames.append(frame)
            return memoryview(frame)
