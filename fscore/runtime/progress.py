"""How long work tells how far it is. The command line draws bars, operators write log lines."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A place to report to; every method may be called from any thread."""

    def start(self, label: str, total: int | None, unit: str) -> int:
        """Begin a task of `total` units (None = unknown); returns its number."""
        ...

    def advance(self, task: int, n: int) -> None:
        """`n` more units are done."""
        ...

    def finish(self, task: int) -> None:
        """The task is over."""
        ...


class NoProgress:
    """Reports to nobody."""

    def start(self, label: str, total: int | None, unit: str) -> int:
        """Begin nothing."""
        return 0

    def advance(self, task: int, n: int) -> None:
        """Say nothing."""

    def finish(self, task: int) -> None:
        """End nothing."""
