"""The deletion pipeline's records: data of deleted files, parked slices, the trash, and what crashes left behind
(volume-format.md 2.8, 2.9, 2.12). Objects are the caller's to delete: `dead` says which, `forget` ends it.

Rule 1  a job of the whole volume runs once an hour, by the client that wins its gate; gc runs it at once (`gated`).
Rule 2  what looks lost is looked at again in the transaction that removes it, and only when it is old.
"""

from __future__ import annotations

import datetime as dt
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from fscore.domain.attr import Attr, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import CorruptError, FsError
from fscore.domain.geometry import chunk_count
from fscore.domain.ids import TRASH
from fscore.meta.ops import remove
from fscore.meta.service.clones import Clones
from fscore.meta.service.core import LEAVE_S
from fscore.runtime import log

HOUR_S: Final = 3600
DAY_S: Final = 86_400
GATE_WINDOW_S: Final = 3240
"""How long a job's run keeps every other client from running it (volume-format.md 2.9 job gates)."""

BATCH: Final = 1000
PROBE: Final = 64
"""Chunks past the end looked at in one go: a file that was longer once left lists there."""

UNFINISHED: Final = re.compile(rb"\..*\.[0-9a-f]{12}\.tmp", re.DOTALL)
"""Names under which whole files are built before they are renamed into place (decision 009)."""

_ROOT: Final = Caller(uid=0, gid=0)
_log = log.get(__name__)


class Sweeps(Clones):
    """Called by the collector, by gc, or by whoever wants it now. Times are wall clock, by default this moment's."""

    def dead(self, limit: int = BATCH) -> list[tuple[int, int]]:
        """(slice id, size) of slices that nobody refers to; their objects are to be deleted, then `forget`."""
        self._check_writable()
        return self.engine.take_dead(limit)

    def forget(self, slices: list[tuple[int, int]]) -> None:
        """The objects of these slices are gone."""
        self.engine.forget_dead(slices)
        if self._rules.log is not None:
            for pair in slices:
                self._append_log("DELETESLICE(%d,%d)", *pair)

    def purge_deleted(self, now_ns: int | None = None, *, gated: bool = True) -> int:
        """Drop the slices of deleted files: this client's at once, others' after an hour. Returns the files.

        A file whose records cannot be read stays queued and keeps no other one. A client that is leaving drops its own
        only, as far as it comes in `LEAVE_S`.
        """
        self._check_writable()
        now_s = self._now_s(now_ns)
        with self._lock:
            doomed, self._doomed = self._doomed, []
        bad: set[tuple[int, int]] = set()
        began = self._clock.monotonic()
        done = self._drop_files(doomed, bad, lambda: self._out_of_time(began))
        if self._leaving.is_set() or (gated and not self._claim_job("lastCleanupFiles", now_s, GATE_WINDOW_S)):
            return done
        while files := [file for file in self.engine.delfiles(now_s - HOUR_S, BATCH) if file not in bad]:
            done += self._drop_files(files, bad, self._leaving.is_set)
            if self._leaving.is_set():
                break
        return done

    def _out_of_time(self, began: float) -> bool:
        return self._leaving.is_set() and self._clock.monotonic() > max(self._leave_by, began + LEAVE_S)

    def purge_delayed(self, now_ns: int | None = None, *, gated: bool = True) -> int:
        """Let go what compaction parked, once it is older than the trash keeps things. Returns the parked lists."""
        self._check_writable()
        now_s = self._now_s(now_ns)
        if self._leaving.is_set() or (gated and not self._claim_job("nextCleanupSlices", now_s, GATE_WINDOW_S)):
            return 0
        done = 0
        while parked := self.engine.delayed(now_s - DAY_S * self.setting.trash_days, BATCH):
            for new_id, at_s, _ in parked:
                if self._leaving.is_set():
                    return done
                self.engine.forget_delayed(new_id, at_s)
                self._append_log("CLEANUP_DELAYED_SLICES(%d,%d)", new_id, at_s)
                done += 1
        return done

    def purge_trash(self, now_ns: int | None = None, *, gated: bool = True) -> int:
        """Empty the hour directories that are older than the volume's trash days and remove them. Returns the hours.

        Once a day whoever wins the gate also removes files that were never finished.
        """
        self._check_writable()
        now_s = self._now_s(now_ns)
        if self._leaving.is_set() or (gated and not self._claim_job("lastCleanupTrash", now_s, GATE_WINDOW_S)):
            return 0
        limit = dt.datetime.fromtimestamp(now_s, dt.UTC) - dt.timedelta(hours=24 * self.setting.trash_days + 2)
        oldest = f"{limit:%Y-%m-%d-%H}".encode()
        hours = [entry for entry in self._entries(TRASH, attrs=False) if _is_hour(entry.name)]
        purged = 0
        for hour in sorted(hours, key=lambda entry: entry.ino):
            if hour.name < oldest:
                if not self.remove_tree(TRASH, hour.name, hour.ino):
                    return purged
                purged += 1
        if gated and now_s // HOUR_S % 24 == zlib.crc32(self.setting.uuid.encode()) % 24:
            self.purge_unfinished(now_ns)
        return purged

    def unfinished(self, now_ns: int | None = None) -> Iterator[tuple[int, bytes, int]]:
        """(directory, name, inode) of files that a killed process was building, and that nobody touched for a day."""
        before_ns = (self._now_s(now_ns) - DAY_S) * 1_000_000_000
        for parent, name, edge in self.engine.scan_edges():
            if edge.kind != Kind.FILE or parent >= TRASH or not UNFINISHED.fullmatch(name):
                continue
            with self.engine.view() as view:
                attr = view.node(edge.ino)
            if attr is not None and max(attr.mtime_ns, attr.ctime_ns) < before_ns:
                yield parent, name, edge.ino

    def purge_unfinished(self, now_ns: int | None = None) -> int:
        """Remove those files, into the trash where there is one. Returns how many."""
        removed = 0
        for parent, name, ino in list(self.unfinished(now_ns)):
            try:
                self.unlink(_ROOT, parent, name)
            except FsError as error:
                _log.debug("inode %d, which was never finished, stays: %s", ino, error)
            else:
                removed += 1
        return removed

    def drop_orphan(self, ino: int, before_ns: int) -> bool:
        """Remove a node that no directory names, with all below it, unless it was changed since. For gc."""
        with self.engine.view() as view:
            attr = view.node(ino)
        if attr is None or attr.ctime_ns >= before_ns:
            return False
        if attr.kind == Kind.DIRECTORY:
            self._discard(ino)
            return True
        return self._run(_ROOT, lambda work: remove.drop_orphan(work, ino, before_ns))

    def drop_detached(self, ino: int) -> None:
        """Remove a tree that was being cloned when its client died. For gc."""
        self._discard(ino)

    def drop_lost_chunk(self, ino: int, index: int) -> bool:
        """Remove the list of a chunk whose file is gone; False when the file is there after all. For gc."""
        with self.engine.view() as view:
            attr: Attr | None = view.node(ino)
        if attr is not None:
            return False
        self._drop_chunk(ino, index)
        return True

    def _drop_files(self, files: list[tuple[int, int]], bad: set[tuple[int, int]], stop: Callable[[], bool]) -> int:
        pending = list(dict.fromkeys(files))
        seen = done = 0
        try:
            for ino, length in pending:
                try:
                    if not self._drop_data(ino, length, stop):
                        break
                except CorruptError as error:
                    _log.error("the data of deleted inode %d stay, for its records are damaged: %s", ino, error)
                    bad.add((ino, length))
                else:
                    self.engine.forget_delfile(ino, length)
                    done += 1
                seen += 1
        finally:
            with self._lock:
                self._doomed += pending[seen:]  # those that this client did not come to
        return done

    def _drop_data(self, ino: int, length: int, stop: Callable[[], bool]) -> bool:
        """Drop every chunk of a deleted file; False when it was told to stop before: whoever goes on finds the rest.

        1 TiB are 16,384 transactions, and nobody waits for those when a client is to go.
        """
        first, end, beyond = 0, chunk_count(length) or PROBE, not length
        while not stop():
            with self.engine.view() as view:
                indexes = view.chunk_indexes(ino, first, end)
            if beyond and not indexes:
                return True
            for index in indexes:
                if stop():
                    return False
                self._drop_chunk(ino, index)
            first, end, beyond = end, end + PROBE, True
        return False

    def _drop_chunk(self, ino: int, index: int) -> None:
        self._run(_ROOT, lambda work: remove.drop_chunk(work, ino, index))

    def _now_s(self, now_ns: int | None) -> int:
        return (self._clock.now_ns() if now_ns is None else now_ns) // 1_000_000_000


def _is_hour(name: bytes) -> bool:
    return len(name) == 13 and name.count(b"-") == 3 and name.replace(b"-", b"").isdigit()
