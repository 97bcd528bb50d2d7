"""What this process itself last wrote or read of nodes and entries, as raw values.

A guess, never an answer: the commit script compares it with what Redis holds. It saves a transaction's reading trip.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Final, NamedTuple

MOST: Final = 16384
"""Values kept; the oldest quarter goes when there are more."""

LARGEST: Final = 256
"""Bytes of a value that is kept: attributes and entries are small, values of extended attributes may not be."""


class Read(NamedTuple):
    """One read of a record: S a string, H a field, L a list, M a whole hash, E whether a hash is empty."""

    op: str
    key: bytes
    field: bytes = b""


class Recall:
    """A bounded map of reads (S and H) to raw values, None for absent. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Read, bytes | None] = {}

    def get(self, read: Read) -> tuple[bool, bytes | None]:
        """Whether something is known of it, and what."""
        value = self._values.get(read, _UNKNOWN)
        return (False, None) if value is _UNKNOWN else (True, value)

    def learn(self, values: Iterable[tuple[Read, bytes | None]]) -> None:
        """Remember values; the oldest are forgotten."""
        with self._lock:
            self._values.update((read, value) for read, value in values if value is None or len(value) <= LARGEST)
            if len(self._values) > MOST:
                for read in list(itertools.islice(self._values, MOST // 4)):
                    del self._values[read]

    def forget(self, reads: Iterable[Read]) -> None:
        """Forget what turned out to be wrong."""
        with self._lock:
            for read in reads:
                self._values.pop(read, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


_UNKNOWN: Final = b"unknown"
"""Compared by identity."""
