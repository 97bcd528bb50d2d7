"""Trying again: which errors, how often, how long to wait.

The wait before try k + 1 is d = min(cap, base * 2^(k-1)), spread over [d * 3/4, d] so that many clients
do not come back at once, and never shorter than what the server asked for. The defaults go on for 75 s at the
least (`rides_s`), so a store that answers 503 for a minute is ridden through.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from fscore.domain.errors import TransientError, UnavailableError
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock

T = TypeVar("T")

ATTEMPTS: Final = 14
BASE_S: Final = 0.1
CAP_S: Final = 15.0
LONGEST_ASKED_S: Final = 120.0
"""A server that asks for more than this is taken at this."""

_STEP_S: Final = 0.25
"""How soon somebody who waits for the next try learns that there will be none."""

logger = log.get(__name__)


class Retry:
    """Calls a function until it returns, fails for good, or `attempts` tries are used up. Thread-safe."""

    def __init__(
        self,
        attempts: int = ATTEMPTS,
        base_s: float = BASE_S,
        cap_s: float = CAP_S,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        leaving: threading.Event | None = None,
    ) -> None:
        """From when `leaving` is set nothing is tried again."""
        self.attempts = attempts
        self._base_s = base_s
        self._cap_s = cap_s
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311  spreads waits, guards nothing
        self._leaving = leaving

    def delay_s(self, tries: int) -> float:
        """The longest wait after `tries` failed tries when the server asks for nothing."""
        return min(self._cap_s, self._base_s * 2.0 ** min(tries - 1, 60))

    def rides_s(self) -> float:
        """The shortest time that an outage must last before this gives up."""
        return sum(self.delay_s(tries) * 0.75 for tries in range(1, self.attempts))

    def call(self, what: str, fn: Callable[[], T]) -> T:
        """`fn()`, again after each TransientError. UnavailableError, naming `what`, when the tries are used up."""
        tries = 0
        while True:
            try:
                return fn()
            except TransientError as error:
                tries += 1
                if tries >= self.attempts or self._leaves():
                    raise UnavailableError(f"{what} failed {tries} times, last: {error}") from error
                wait = self.delay_s(tries) * self._rng.uniform(0.75, 1.0)
                if error.retry_after is not None:
                    wait = max(wait, min(error.retry_after, LONGEST_ASKED_S))
                logger.info("%s: %s; try %d of %d in %.1f s", what, error, tries + 1, self.attempts, wait)
                self._sleep(wait)

    def _leaves(self) -> bool:
        return self._leaving is not None and self._leaving.is_set()

    def _sleep(self, seconds: float) -> None:
        if self._leaving is None:
            self._clock.sleep(seconds)
            return
        while seconds > 0 and not self._leaves():
            self._clock.sleep(min(seconds, _STEP_S))
            seconds -= _STEP_S
