"""Time: what the wall clock says, what passed, and waiting. Taken as an argument, so that tests own it."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, as peers see them."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait that long."""
        time.sleep(seconds)


class FakeClock:
    """A clock that moves only when told to, or when somebody sleeps on it. Thread-safe."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._lock = threading.Lock()
        self._start_ns = now_ns
        self._passed_ns = 0
        self.slept: list[float] = []

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        with self._lock:
            return self._start_ns + self._passed_ns

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        with self._lock:
            return self._passed_ns / 1e9

    def sleep(self, seconds: float) -> None:
        """Move on by `seconds` at once, and remember it in `slept`."""
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._passed_ns += int(seconds * 1e9)
