"""How many bytes that were written and are not stored yet one process holds, and who waits when that is too many."""

from __future__ import annotations

import threading
from typing import Final

_KEPT: Final = 16
"""Spare buffers: fresh pages cost more than filling them."""


class Budget:
    """Bounds what writers hold and what is on its way up, together; lends the buffers of the latter. Thread-safe.

    Rule 1  only blocks on their way are waited for, never bytes that a writer still holds: what is waited for always
            moves, so waiting ends.
    Rule 2  writers hold at most half of it, so that uploads have the other half whatever happens.
    """

    def __init__(self, limit: int, block_size: int) -> None:
        self._limit = limit
        self._block_size = block_size
        self._held = 0
        self._used = 0
        self._free = threading.Condition()
        self._spare: list[bytearray] = []
        self._kept = min(_KEPT, limit // block_size // 4)

    @property
    def held(self) -> int:
        """Bytes that writers hold now, and no upload has taken."""
        return self._held

    @property
    def used(self) -> int:
        """Bytes on their way now."""
        return self._used

    @property
    def exceeded(self) -> bool:
        """Whether writers hold so much that they should hand it to uploads."""
        return 2 * self._held > self._limit

    def hold(self, count: int) -> None:
        """Writers hold `count` more bytes, fewer when negative."""
        with self._free:
            self._held += count
            if count < 0:
                self._free.notify_all()

    def pause(self) -> None:
        """For a writer that took bytes: wait for uploads while all together is too much."""
        if not self._used or self._used + self._held <= self._limit:
            return
        with self._free:
            while self._used and self._used + self._held > self._limit:
                self._free.wait()

    def take(self, n: int) -> None:
        """Wait until `n` more bytes may be on their way; one block always may."""
        with self._free:
            while self._used and self._used + self._held + n > self._limit:
                self._free.wait()
            self._used += n

    def give(self, n: int) -> None:
        """`n` bytes are uploaded."""
        with self._free:
            self._used -= n
            self._free.notify_all()

    def borrow(self) -> bytearray:
        """A buffer of one block, with anything in it."""
        with self._free:
            if self._spare:
                return self._spare.pop()
        return bytearray(self._block_size)

    def hand_back(self, buffer: bytearray) -> None:
        """The buffer is no longer used."""
        with self._free:
            if len(self._spare) < self._kept:
                self._spare.append(buffer)
