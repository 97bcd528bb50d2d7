"""Directory statistics of this client: changes are gathered and flushed about every second (volume-format.md 2.10)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from fscore.domain.attr import Kind, space_of
from fscore.domain.ids import TRASH
from fscore.meta.engine import MetaEngine
from fscore.meta.records import DirStat

_NONE: Final = DirStat(0, 0, 0)


class DirStats:
    """Gathers changes by directory; a lost flush is drift, never damage. Thread-safe."""

    def __init__(self, engine: MetaEngine, log: Callable[..., None]) -> None:
        self._engine = engine
        self._log = log
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._changes: dict[int, DirStat] = {}
        self._negative: set[int] = set()

    def add(self, changes: Iterable[tuple[int, int, int, int]]) -> None:
        """Gather (directory, length, space, inodes)."""
        with self._lock:
            for ino, length, space, inodes in changes:
                have = self._changes.get(ino, _NONE)
                self._changes[ino] = DirStat(have.length + length, have.space + space, have.inodes + inodes)

    def flush(self, *, heal: bool = True) -> None:
        """Store what was gathered. Missing statistics are counted anew; negative ones only when they still are at
        the next flush that may `heal`, for a peer may be about to add what makes them whole.
        """
        with self._flushing:
            if heal:
                self._heal()
            with self._lock:
                changes, self._changes = self._changes, {}
            changes = {ino: stat for ino, stat in changes.items() if any(stat)}
            if not changes:
                return
            for ino in self._engine.add_dir_stats(changes):
                if self._engine.dir_stat(ino) is None:
                    self.recount(ino)
                else:
                    self._negative.add(ino)

    def settle(self) -> None:
        """Count anew what is negative now: no peer is left who could make it whole."""
        with self._flushing:
            self._heal()

    def _heal(self) -> None:
        suspects, self._negative = self._negative, set()
        for ino in suspects:
            stat = self._engine.dir_stat(ino)
            if stat is not None and min(stat) < 0:
                self.recount(ino)

    def recount(self, ino: int) -> DirStat | None:
        """Count a directory's entries and store the result; None when it is gone, or lies in the trash."""
        with self._engine.view() as view:
            attr = view.node(ino)
        if attr is None or attr.kind != Kind.DIRECTORY or attr.parent > TRASH:
            return None
        stat = count_entries(self._engine, ino)
        self._engine.set_dir_stat(ino, stat)
        self._log("DIRSTAT(%d,%d,%d,%d)", ino, *stat)
        return stat


def count_entries(engine: MetaEngine, ino: int) -> DirStat:
    """Statistics of a directory as its entries say: one charge per entry, whatever the links (2.5)."""
    length = space = inodes = 0
    for batch in engine.scan_dir(ino, attrs=True):
        for entry in batch:
            size = entry.attr.length if entry.attr is not None and entry.kind == Kind.FILE else 0
            length += size
            space += space_of(entry.kind, size)
            inodes += 1
    return DirStat(length, space, inodes)
