"""Progress on stderr: bars on a terminal, a line now and then elsewhere, nothing when nobody asked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fscore.cli.output import human, note
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import NoProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import Task as RichTask

INTERVAL_S: Final = 5.0
BYTES: Final = ("B", "bytes")


class Lines:
    """One line per task and interval: for logs and pipes."""

    def __init__(self, clock: Clock, interval_s: float = INTERVAL_S) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._tasks: dict[int, _Task] = {}
        self._next = 0

    def start(self, label: str, total: int | None, unit: str) -> int:
        """Begin a task and say so."""
        with self._lock:
            self._next += 1
            self._tasks[self._next] = _Task(label, total, unit, self._clock.monotonic())
            note(f"{label} ...")
            return self._next

    def advance(self, task: int, n: int) -> None:
        """Count; speak when the last line is old enough."""
        with self._lock:
            state = self._tasks.get(task)
            if state is None:
                return
            state.done += n
            now = self._clock.monotonic()
            if now - state.said >= self._interval_s:
                state.said = now
                note(state.line())

    def finish(self, task: int) -> None:
        """The last line of a task."""
        with self._lock:
            state = self._tasks.pop(task, None)
            if state is not None:
                note(f"{state.line()}, done")


class _Task:
    def __init__(self, label: str, total: int | None, unit: str, said: float) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.said = said
        self.done = 0

    def line(self) -> str:
        """`label: 40 % (120.0 MiB of 300.0 MiB)`."""
        if not self.total:
            return f"{self.label}: {self._count(self.done)}"
        percent = 100 * self.done // self.total
        return f"{self.label}: {percent} % ({self._count(self.done)} of {self._count(self.total)})"

    def _count(self, n: int) -> str:
        return human(n) if self.unit in BYTES else f"{n} {self.unit}"


class Bars:
    """Rich bars; bytes are shown with their speed, other units as counts."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._units: dict[int, str] = {}

    def start(self, label: str, total: int | None, unit: str) -> int:
        """A new bar."""
        task = self._bars.add_task(label, total=total, state="")
        self._units[task] = unit
        return task

    def advance(self, task: int, n: int) -> None:
        """Move the bar."""
        row = self._row(task)
        self._bars.update(row.id, advance=n)
        if self._units[task] in BYTES:
            speed = f" {human(row.speed)}/s" if row.speed else ""
            self._bars.update(row.id, state=f"{human(row.completed)}{speed}")
        else:
            total = f"/{row.total:.0f}" if row.total else ""
            self._bars.update(row.id, state=f"{row.completed:.0f}{total} {self._units[task]}")

    def finish(self, task: int) -> None:
        """Fill the bar."""
        row = self._row(task)
        self._bars.update(row.id, total=row.completed, completed=row.completed)

    def _row(self, task: int) -> RichTask:
        return next(row for row in self._bars.tasks if row.id == task)


@contextmanager
def shown(wanted: bool | None, *, quiet: bool) -> Iterator[Progress]:
    """The progress of one command. `wanted` None means: on a terminal, and not when quiet."""
    terminal = sys.stderr.isatty()
    if quiet or not (terminal if wanted is None else wanted):
        yield NoProgress()
    elif not terminal:
        yield Lines(SystemClock())
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        layout = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        with RichProgress(*layout, console=Console(stderr=True)) as bars:
            yield Bars(bars)
