"""Long work seen from a task's log: a line at the start, one each few seconds, one at the end."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from fscore.runtime.clock import Clock, SystemClock


@dataclass
class _Task:
    label: str
    total: int | None
    unit: str
    began: float
    done: int = 0
    told: float = 0.0


class LogProgress:
    """Implements `fscore.runtime.progress.Progress` with log lines; any thread may report."""

    def __init__(self, log: logging.Logger, *, every_s: float = 5.0, clock: Clock | None = None) -> None:
        self._log = log
        self._every_s = every_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._tasks: dict[int, _Task] = {}
        self._next = 1

    def start(self, label: str, total: int | None, unit: str) -> int:
        """Begin a task; returns its number."""
        now = self._clock.monotonic()
        with self._lock:
            number = self._next
            self._next += 1
            self._tasks[number] = _Task(label, total, unit, began=now, told=now)
        self._log.info("%s: %s", label, "started" if total is None else f"{_amount(total, unit)} to go")
        return number

    def advance(self, task: int, n: int) -> None:
        """`n` more units are done."""
        now = self._clock.monotonic()
        with self._lock:
            state = self._tasks.get(task)
            if state is None:
                return
            state.done += n
            if now - state.told < self._every_s:
                return
            state.told = now
        self._log.info("%s: %s", state.label, _so_far(state))

    def finish(self, task: int) -> None:
        """The task is over."""
        now = self._clock.monotonic()
        with self._lock:
            state = self._tasks.pop(task, None)
        if state is not None:
            self._log.info("%s: %s in %.1f s", state.label, _amount(state.done, state.unit), now - state.began)


def _so_far(state: _Task) -> str:
    done = _amount(state.done, state.unit)
    if not state.total:
        return done
    return f"{done} of {_amount(state.total, state.unit)} ({100 * state.done // state.total} %)"


def _amount(count: int, unit: str) -> str:
    return f"{count / 1e6:,.1f} MB" if unit in {"B", "bytes"} else f"{count:,} {unit}"
