"""The budget of a cache directory: files by name, least recently used out first. Knows no contents.

Rule 1  all that lies in the directory together stays below the limit, and the disk keeps its share of free space.
Rule 2  what is pinned (open here, or being filled) is not evicted: removing it would free nothing.
Rule 3  a removal that finds nothing was made by another process: nobody is harmed, nothing is counted.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from fscore.runtime.clock import Clock
from fscore.runtime.metrics import Metrics

_LOOK_EVERY_S: Final = 1.0  # between two looks at the disk's free space

Remove = Callable[[str], bool]
"""Removes the file of a name; whether it was there."""


class Kept(NamedTuple):
    """Bytes of a file, and who removes it."""

    size: int
    remove: Remove


class Shelf:
    """At most `limit` bytes of files, and at least `free_ratio` of the disk left free. Thread-safe."""

    def __init__(self, home: str, *, limit: int, free_ratio: float, clock: Clock, metrics: Metrics) -> None:
        self.limit = limit
        self._home = home
        self._free_ratio = free_ratio
        self._clock = clock
        self._metrics = metrics
        self._lock = threading.RLock()  # a finalizer may unpin while this thread is inside
        self._index: OrderedDict[str, Kept] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._used = 0
        self._low = False
        self._look_due = float("-inf")

    @property
    def used(self) -> int:
        """Bytes of the files, as far as this process knows."""
        return self._used

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by name, the one to go first in front."""
        with self._lock:
            return {name: kept.size for name, kept in self._index.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def touch(self, name: str, size: int, remove: Remove) -> None:
        """The file is there and was just used."""
        with self._lock:
            old = self._index.pop(name, None)
            self._index[name] = Kept(size, remove)
            self._used += size - (old.size if old is not None else 0)

    def learn(self, found: Iterable[tuple[str, int]], remove: Remove) -> None:
        """Files that lie there, the one used last first: what we did not know counts as older than what we used."""
        with self._lock:
            for name, size in found:
                if name not in self._index:
                    self._index[name] = Kept(size, remove)
                    self._index.move_to_end(name, last=False)
                    self._used += size

    def forget(self, name: str) -> None:
        """The file is gone."""
        with self._lock:
            old = self._index.pop(name, None)
            self._used -= old.size if old is not None else 0

    def pin(self, name: str) -> None:
        """Keep it, once more."""
        with self._lock:
            self._pins[name] += 1

    def unpin(self, name: str) -> None:
        """One reason less to keep it."""
        with self._lock:
            self._pins[name] -= 1
            if self._pins[name] <= 0:
                del self._pins[name]

    def room(self, size: int) -> bool:
        """Whether a file may be written: it fits the budget, and the disk is not low with nothing left to evict."""
        if size > self.limit:
            return False
        now = self._clock.monotonic()
        if now >= self._look_due:
            self._look_due = now + _LOOK_EVERY_S
            self._low = self._short_of(0) > 0
            if self._low:
                self.evict(self._used * 9 // 10)
                self._low = self._short_of(0) > 0
        return not self._low

    def reserve(self, name: str, size: int, remove: Remove) -> bool:
        """Make room for a large file and pin its name; False, with nothing changed, when there is none to be had."""
        with self._lock:
            held = sum(kept.size for other, kept in self._index.items() if other in self._pins)
        if size + held > self.limit:
            return False
        short = self._short_of(size)
        if short > self._used - held:
            return False
        self.touch(name, size, remove)
        self.pin(name)
        self.evict(min(self.limit, self._used - short if short > 0 else self._used))
        if self._short_of(size) > 0:
            self.unpin(name)
            self.forget(name)
            return False
        return True

    def evict(self, goal: int | None = None) -> None:
        """Remove files, the longest unused first, until what is left fits."""
        goal = self.limit if goal is None else goal
        while self._used > goal:
            with self._lock:
                name = next((name for name in self._index if name not in self._pins), None)
                if name is None:
                    return
                kept = self._index.pop(name)
                self._used -= kept.size
            if kept.remove(name):
                self._metrics.add("cache.disk.evicted")

    def _short_of(self, size: int) -> int:
        """Bytes that would be missing to the free share of the disk after `size` more were written."""
        try:
            disk = os.statvfs(self._home)
        except OSError:
            return 0
        return int(disk.f_blocks * self._free_ratio * disk.f_frsize) + size - disk.f_bavail * disk.f_frsize
