"""How many bytes of unwritten data all open files together may hold in memory."""

from __future__ import annotations

import threading


class Budget:
    """A counter with a soft limit: writers ask whether they should flush. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Account for `count` more bytes, fewer when negative."""
        with self._lock:
            self._used += count

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    @property
    def exceeded(self) -> bool:
        """Whether writers should give memory back."""
        return self._used > self.limit
