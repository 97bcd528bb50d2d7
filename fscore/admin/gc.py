"""What nobody needs any more: found by looking at everything, removed when asked (volume-format.md 2.9, gc).

Rule 1  the deletion pipeline comes first, then what it cannot know of: nodes and chunk lists that nothing leads to,
        trees of dead clones, files that a killed process was building, objects that no record names.
Rule 2  what is younger than an hour may be about to be named: it is counted and left alone.
Rule 3  an object is removed only if its slice was unknown to two passes over all records, the second one after the
        objects were listed: a reference that moves from one chunk to another may hide from one pass.
Holds eight bytes for each slice record, each entry, and each object without a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from fscore.domain.errors import NotFound, ReadOnly
from fscore.domain.geometry import block_length
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.keys import parse_block_key
from fscore.objects.api import ObjectInfo
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.intset import IntMap
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool
from fscore.volume import Volume

HOUR_NS: Final = 3600 * 1_000_000_000
DAY_S: Final = 86_400
NANO: Final = 1_000_000_000


class GcReport(msgspec.Struct, frozen=True):
    """What was found; with `deleted` it is gone, save what was skipped because it is younger than an hour.

    `pending` counts what the deletion pipeline still has before it: slices without a reference, files whose data
    wait, lists that compaction parked for the days of the trash.
    """

    deleted: bool
    objects: int = 0
    object_bytes: int = 0
    slices: int = 0
    pending_slices: int = 0
    pending_files: int = 0
    parked_slices: int = 0
    leaked_objects: int = 0
    leaked_bytes: int = 0
    skipped_objects: int = 0
    skipped_bytes: int = 0
    lost_nodes: int = 0
    lost_chunks: int = 0
    detached_trees: int = 0
    unfinished_files: int = 0
    abandoned_uploads: int = 0
    """Of models; counted by whoever knows them."""

    @property
    def clean(self) -> bool:
        """Whether there is nothing that only gc would find."""
        found = (self.leaked_objects, self.lost_nodes, self.lost_chunks, self.detached_trees, self.unfinished_files)
        return not any(found)


def gc(
    volume: Volume,
    *,
    delete: bool = False,
    threads: int = 8,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> GcReport:
    """Look for what nobody needs; remove it with `delete`. Others may use the volume meanwhile."""
    if delete and volume.options.read_only:
        raise ReadOnly("this client has opened the volume read-only")
    if not volume.options.read_only:
        volume.sync()
    return _Run(volume, clock or SystemClock(), threads, delete=delete).run(progress or NoProgress())


class _Run:
    def __init__(self, volume: Volume, clock: Clock, threads: int, *, delete: bool) -> None:
        self._volume = volume
        self._meta = volume.meta
        self._engine = volume.meta.engine
        self._setting = volume.setting
        self._now_ns = clock.now_ns()
        self._threads = threads
        self._delete = delete
        self._counts: dict[str, int] = {}

    def run(self, progress: Progress) -> GcReport:
        task = progress.start("gc", 4, "steps")
        if self._delete:
            self._volume.vfs.collect_all()
        self._unfinished()
        self._detached()
        progress.advance(task, 1)
        self._nodes()
        self._chunks()
        progress.advance(task, 1)
        if self._delete:
            self._volume.vfs.collect_all()
        self._pipeline()
        progress.advance(task, 1)
        self._objects()
        progress.finish(task)
        return GcReport(deleted=self._delete, **self._counts)

    def _count(self, name: str, more: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + more

    def _unfinished(self) -> None:
        found = sum(1 for _ in self._meta.unfinished(self._now_ns))
        self._count("unfinished_files", self._meta.purge_unfinished(self._now_ns) if self._delete else found)

    def _detached(self) -> None:
        before_s = self._now_ns // NANO - DAY_S
        for ino, at_s in list(self._engine.scan_detached()):
            if at_s < before_s:
                self._count("detached_trees")
                if self._delete:
                    self._meta.drop_detached(ino)

    def _nodes(self) -> None:
        """Nodes that no entry names. One that moves while we look has a young ctime."""
        kept = {int(ROOT), int(TRASH)} | self._apart()
        named = IntMap()
        named.update(edge.ino for _, _, edge in self._engine.scan_edges())
        kept |= self._apart()
        before_ns = self._now_ns - HOUR_NS
        lost = [
            ino
            for ino, attr in self._engine.scan_nodes()
            if attr.ctime_ns < before_ns and ino not in kept and ino not in named
        ]
        for ino in lost:
            if not self._delete or self._meta.drop_orphan(ino, before_ns):
                self._count("lost_nodes")

    def _apart(self) -> set[int]:
        """Nodes that need no entry: trees being cloned, files deleted and still open."""
        return {ino for ino, _ in self._engine.scan_detached()} | {ino for _, ino in self._engine.scan_sustained()}

    def _chunks(self) -> None:
        """Lists of files that are not there and do not wait for their deletion."""
        there = IntMap()
        there.update(ino for ino, _ in self._engine.scan_nodes())
        suspects = [(ino, index) for ino, index, _ in self._engine.scan_chunks() if ino not in there]
        waiting = {ino for ino, _ in self._engine.scan_delfiles()} if suspects else set()
        for ino, index in suspects:
            if ino not in waiting and self._is_lost(ino, index):
                self._count("lost_chunks")

    def _is_lost(self, ino: int, index: int) -> bool:
        if self._delete:
            return self._meta.drop_lost_chunk(ino, index)
        try:
            self._meta.getattr(ino, fresh=True)
        except NotFound:
            return True
        return False

    def _pipeline(self) -> None:
        self._count("pending_files", sum(1 for _ in self._engine.scan_delfiles()))
        self._count("parked_slices", sum(1 for _ in self._engine.scan_delayed()))

    def _known(self) -> IntMap:
        """Slices that a record, a parked list or a reference count knows, with their sizes."""
        known = IntMap()
        for _, _, records in self._engine.scan_chunks():
            for record in records:
                if record.id:
                    known.add(record.id, record.size)
        for slice_id, size in self._engine.scan_delayed():
            known.add(slice_id, size)
        for slice_id, size, _ in self._engine.scan_refs():
            known.add(slice_id, size)
        return known

    def _objects(self) -> None:
        known = self._known()
        self._count("slices", len(known))
        self._count("pending_slices", sum(refs <= 0 for _, _, refs in self._engine.scan_refs()))
        suspects = IntMap()
        for found in self._volume.objects.scan("chunks/"):
            self._count("objects")
            self._count("object_bytes", found.size)
            slice_id = self._leaks(found, known)
            if slice_id is None:
                continue
            if found.mtime_ns > self._now_ns - HOUR_NS:
                self._count("skipped_objects")
                self._count("skipped_bytes", found.size)
            elif self._delete:
                suspects.add(slice_id)
            else:
                self._count("leaked_objects")
                self._count("leaked_bytes", found.size)
        if len(suspects):
            self._remove(suspects)

    def _remove(self, suspects: IntMap) -> None:
        """The second pass: what is unknown now, too, goes."""
        known = self._known()

        def leaked() -> Iterator[ObjectInfo]:
            for found in self._volume.objects.scan("chunks/"):
                slice_id = self._leaks(found, known)
                if slice_id in suspects and found.mtime_ns <= self._now_ns - HOUR_NS:
                    yield found

        with Pool("gc", self._threads) as pool:
            for size in pool.map_bounded(self._drop, leaked()):
                self._count("leaked_objects")
                self._count("leaked_bytes", size)

    def _leaks(self, found: ObjectInfo, known: IntMap) -> int | None:
        """The slice that an object is a block of, if no record knows that slice with such a block."""
        parsed = parse_block_key(found.key)
        if parsed is None:
            return None  # nothing that a client of this format wrote
        slice_id, index, length = parsed
        size = known.get(slice_id)
        if size is not None and 0 < length == block_length(size, index, self._setting.block_size):
            return None
        return slice_id

    def _drop(self, found: ObjectInfo) -> int:
        self._volume.blocks.cache.drop(found.key)
        self._volume.objects.delete(found.key)
        return found.size
