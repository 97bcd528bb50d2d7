"""When to read ahead, and how far: a pure decision for one handle."""

from __future__ import annotations

from typing import Final

START: Final = 1 << 20
_LARGE: Final = 64 << 10
_NEAR: Final = 4 << 20
"""Large requests of a sequence may overtake each other, and leave out, so much: a kernel sends several at once, and
does not ask for what it has."""


class ReadAhead:
    """Watches the requests of one handle. Sequential ones open a window that doubles up to `limit` bytes."""

    __slots__ = ("_ahead", "_limit", "_next", "_window", "run")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._next = -1
        self._ahead = 0
        self._window = 0
        self.run = 0
        """Bytes that were asked for in sequence, up to the last request."""

    def plan(self, offset: int, length: int) -> tuple[int, int] | None:
        """The (offset, length) to prefetch after this request, or None."""
        end = offset + length
        slack = _NEAR if length >= _LARGE and self._next >= 0 else 0
        sequential = abs(offset - self._next) <= slack
        if sequential:
            end = max(end, self._next)
        self._next = end
        self.run = self.run + length if sequential else length
        if not sequential or self._limit <= 0:
            self._window = 0
            self._ahead = end
            return None
        self._window = min(max(self._window * 2, START, length), self._limit)
        start = max(self._ahead, end)
        if start - end > self._window // 2:
            return None
        self._ahead = end + self._window
        return start, self._ahead - start
