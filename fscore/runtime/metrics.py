"""Counters and latency histograms of one process: cheap to count, read as a whole. Knows no exporter."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

BOUNDS_S: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency buckets; one more bucket holds what is above."""


class Histogram:
    """How often, how long in total, and how it spread over BOUNDS_S."""

    __slots__ = ("buckets", "count", "total_s")

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self.buckets = [0] * (len(BOUNDS_S) + 1)


class Metrics:
    """Named counters and histograms. Names are dotted paths: `objects.put.bytes`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, int] = {}
        self._histograms: dict[str, Histogram] = {}

    def add(self, name: str, n: int = 1) -> None:
        """Count `n` more of `name`."""
        with self._lock:
            self._counters[name] = self._counters.get(name, 0) + n

    def get(self, name: str) -> int:
        """A counter's value; 0 if it never moved."""
        return self._counters.get(name, 0)

    def observe(self, name: str, seconds: float) -> None:
        """One more `name` that took `seconds`."""
        with self._lock:
            histogram = self._histograms.get(name)
            if histogram is None:
                histogram = self._histograms[name] = Histogram()
            histogram.count += 1
            histogram.total_s += seconds
            histogram.buckets[bisect_left(BOUNDS_S, seconds)] += 1

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observe how long the body takes, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(name, time.perf_counter() - start)

    def snapshot(self) -> dict[str, int | float | list[int]]:
        """Everything now: counters by name; histograms as `<name>.count`, `.seconds` and `.buckets`."""
        with self._lock:
            found: dict[str, int | float | list[int]] = dict(self._counters)
            for name, histogram in self._histograms.items():
                found[f"{name}.count"] = histogram.count
                found[f"{name}.seconds"] = histogram.total_s
                found[f"{name}.buckets"] = list(histogram.buckets)
        return dict(sorted(found.items()))
