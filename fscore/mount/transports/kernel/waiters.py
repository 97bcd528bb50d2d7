"""Locks that programs wait for: tried again, all by one thread, until they are free or the program is signalled."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from fscore.domain.errors import Interrupted, WouldBlock
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.worker import reply
from fscore.runtime.threads import Task

EARLY: Final = 256
"""Signals remembered for requests that another worker has read and not put aside yet."""


class LockWaiters:
    """Requests that wait; each is answered exactly once. Thread-safe."""

    def __init__(self, fd: int, number: Callable[[BaseException], int], first_s: float, longest_s: float) -> None:
        self._fd = fd
        self._number = number
        self._first_s = first_s
        self._longest_s = longest_s
        self._news = threading.Condition()
        self._attempts: dict[int, Callable[[], None]] = {}
        self._trying = 0
        self._given_up: set[int] = set()
        self._due: list[tuple[float, int, float]] = []
        self._early: deque[int] = deque(maxlen=EARLY)
        self._closed = False
        self._task: Task | None = None

    def add(self, unique: int, attempt: Callable[[], None]) -> None:
        """Answer this request when `attempt` raises WouldBlock no more."""
        with self._news:
            if unique not in self._early and not self._closed:
                self._attempts[unique] = attempt
                self._plan(unique, self._first_s)
                if self._task is None:
                    self._task = Task("locks", self._run)
                self._news.notify()
                return
        self._answer(unique, Interrupted("while waiting for a lock"))

    def interrupt(self, unique: int) -> None:
        """The program was signalled."""
        with self._news:
            if unique == self._trying:
                self._given_up.add(unique)  # the attempt that runs decides: a lock that it gets is told, and not lost
                return
            if self._attempts.pop(unique, None) is None:
                self._early.append(unique)
                return
        self._answer(unique, Interrupted("while waiting for a lock"))

    def close(self) -> None:
        """Nobody waits any more."""
        with self._news:
            self._closed = True
            self._attempts.clear()
            self._news.notify()
        if self._task is not None:
            self._task.join(1.0)

    def _plan(self, unique: int, wait_s: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + wait_s, unique, wait_s))

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._due and not self._closed:
                    self._news.wait()
                if self._closed:
                    return
                when, unique, wait_s = self._due[0]
                left = when - time.monotonic()
                if left > 0:
                    self._news.wait(left)
                    continue
                heapq.heappop(self._due)
                attempt = self._attempts.get(unique)
                self._trying = unique if attempt is not None else 0
            if attempt is not None:
                self._try(unique, attempt, wait_s)

    def _try(self, unique: int, attempt: Callable[[], None], wait_s: float) -> None:
        error: BaseException | None = None
        try:
            attempt()
        except Exception as failure:  # noqa: BLE001 - the program that waits gets it as its errno
            error = failure
        with self._news:
            self._trying = 0
            given_up = unique in self._given_up
            self._given_up.discard(unique)
            if isinstance(error, WouldBlock) and not given_up:
                self._plan(unique, min(wait_s * 1.5, self._longest_s))
                return
            self._attempts.pop(unique, None)
        if isinstance(error, WouldBlock):
            error = Interrupted("while waiting for a lock")
        self._answer(unique, error)

    def _answer(self, unique: int, error: BaseException | None) -> None:
        reply(self._fd, wire.error(unique, 0 if error is None else self._number(error)))
