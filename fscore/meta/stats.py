"""Directory statistics of this client: changes are gathered and flushed about every second (volume-format.md 2.10)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from fscore.domain.attr import Kind, space_of
from fscore.domain.errors import UnavailableError
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
        self._suspects: dict[int, bool] = {}
        """Directories that were negative (False), and those whose changes may have been stored or not (True)."""

    def add(self, changes: Iterable[tuple[int, int, int, int]]) -> None:
        """Gather (directory, length, space, inodes)."""
        with self._lock:
            for ino, length, space, inodes in changes:
                have = self._changes.get(ino, _NONE)
                self._changes[ino] = DirStat(have.length + length, have.space + space, have.inodes + inodes)

    def flush(self, *, heal: bool = True) -> None:
        """Store what was gathered. Missing statistics are counted anew; negative ones only when they still are at
        the next flush that may `heal`, for a peer may be about to add what makes them whole, and doubtful ones then.
        """
        with self._flushing:
            try:
                if heal:
                    self._heal()
            finally:  # what cannot be counted keeps nothing else back
                self._store()

    def settle(self) -> None:
        """Count anew what is negative or doubtful now: no peer is left who could make it whole."""
        with self._flushing:
            self._heal()

    def _store(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, {}
        changes = {ino: stat for ino, stat in changes.items() if any(stat)}
        if not changes:
            return
        try:
            wrong = self._engine.add_dir_stats(changes)
        except UnavailableError:  # nothing was stored
            self.add((ino, *stat) for ino, stat in changes.items())
            raise
        except BaseException:
            self._suspects.update(dict.fromkeys(changes, True))
            raise
        if wrong is None:
            self._suspects.update(dict.fromkeys(changes, True))
            return
        for ino in wrong:
            self._suspects.setdefault(ino, False)
        for ino in wrong:
            if self._engine.dir_stat(ino) is None:
                self.recount(ino)
                self._suspects.pop(ino)

    def _heal(self) -> None:
        for _ in range(len(self._suspects)):
            ino, doubtful = next(iter(self._suspects.items()))
            del self._suspects[ino]
            try:
                self._check(ino, doubtful=doubtful)
            except BaseException:
                self._suspects[ino] = doubtful  # behind the others
                raise

    def _check(self, ino: int, *, doubtful: bool) -> None:
        stat = self._engine.dir_stat(ino)
        if not doubtful and (stat is None or min(stat) >= 0):
            return
        with self._lock:
            gathered = self._changes.pop(ino, None)  # the entries have it already
        counted = None
        try:
            counted = self.recount(ino)
        finally:
            if counted is None and gathered is not None:
                self.add([(ino, *gathered)])

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
