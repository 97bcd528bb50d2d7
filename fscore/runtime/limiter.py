"""A token bucket: so many bytes a second, with a short burst."""

from __future__ import annotations

import threading

from fscore.runtime.clock import Clock, SystemClock


class Limiter:
    """Makes callers wait so that on average `rate` units a second pass; 0 = no limit. Thread-safe."""

    def __init__(self, rate: float, *, burst_s: float = 0.25, clock: Clock | None = None) -> None:
        self._rate = rate
        self._burst_s = burst_s
        self._burst = rate * burst_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._tokens = self._burst
        self._last = self._clock.monotonic()

    def change(self, rate: float) -> None:
        """Another rate from now on; who waits already waits as it was."""
        with self._lock:
            if rate != self._rate:
                self._rate, self._burst = rate, rate * self._burst_s
                self._tokens, self._last = self._burst, self._clock.monotonic()

    def take(self, units: int) -> None:
        """Take `units`, after waiting for those that were overdrawn. One call may exceed the burst."""
        if self._rate <= 0:
            return
        with self._lock:
            if self._rate <= 0:
                return
            now = self._clock.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate) - units
            self._last = now
            wait = -self._tokens / self._rate
        if wait > 0:
            self._clock.sleep(wait)
