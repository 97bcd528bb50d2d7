"""Compaction in the background: a chunk whose list has grown long gets its oldest records replaced by one slice.

Rule 1  a reader that meets a list or a view of five or more, and a writer whose appends make a list long, ask for it
        and go on; at most a few chunks wait, the rest is asked for again. A writer of many records at once asks later,
        for it would only be asked again. A list near what the smallest engine can hold makes its writer wait.
        A chunk that is being written waits until its compaction pays, or its list is two thirds of that long.
Rule 2  files with the immutable flag, and files that this process composed, are left alone: a compaction would copy
        what they share. What a caller asks for by name is done, save for immutable files.
Rule 3  blocks first, the records after, and those only if the head of the list is what was compacted. Else the new
        slice is deleted; when the outcome of the commit is unknown and the records do not show it, it stays (a leak).
Rule 4  a block that is not there any more means that somebody else was faster: nothing is done.
(volume-format.md 4.4; thresholds are those of the official client, counted by what this process appended.)
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from fscore.blocks.store import BlockStore
from fscore.blocks.upload import SliceWriter
from fscore.domain.compaction import Plan, plan
from fscore.domain.errors import FsError, NotFound, StoreError
from fscore.domain.geometry import by_block
from fscore.domain.slices import SliceRecord
from fscore.meta.service import MetaService
from fscore.runtime import log
from fscore.runtime.clock import Clock
from fscore.runtime.threads import Pool

WAITING: Final = 10
"""Chunks that may wait for their turn."""

REMEMBERED: Final = 4096
"""Chunks whose list's length is remembered, and files that are left alone."""

CALM_S: Final = 30.0
"""A chunk that was neither written nor compacted here for so long is compacted for its readers, what it may cost."""

Chunk = tuple[int, int]
"""(inode, chunk index)."""

_log = log.get(__name__)


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From how many records on a chunk is compacted; 0 = never."""

    read: int = 5
    write: int = 100
    force: int = 2500


class _Known(NamedTuple):
    """Of a chunk's list: how long it is, how long it may get, and when this process touched it."""

    length: int
    due: int
    at: float


class Compactor:
    """Compacts chunks of one volume. Thread-safe; `changed` learns of each chunk whose records were replaced."""

    def __init__(
        self,
        meta: MetaService,
        blocks: BlockStore,
        clock: Clock,
        thresholds: Thresholds,
        changed: Callable[[int], None],
        *,
        background: bool,
    ) -> None:
        self._meta = meta
        self._blocks = blocks
        self._clock = clock
        self._thresholds = thresholds
        self._changed = changed
        self._pool = Pool("compact", 2) if background else None
        self._turn = threading.Condition()
        self._waiting: set[Chunk] = set()
        self._busy: set[Chunk] = set()
        self._lengths: OrderedDict[Chunk, _Known] = OrderedDict()
        self._costly: dict[Chunk, int] = {}
        self._barren: OrderedDict[Chunk, int] = OrderedDict()
        self._spared: OrderedDict[int, None] = OrderedDict()

    def spare(self, ino: int) -> None:
        """This file was composed here: its ranges are shared on purpose."""
        with self._turn:
            self._spared[ino] = None
            while len(self._spared) > REMEMBERED:
                self._spared.popitem(last=False)

    def seen(self, ino: int, index: int, records: int, pieces: int) -> None:
        """A reader met so many records, which show as so many pieces."""
        if 0 < self._thresholds.read <= max(records, pieces) and self._barren.get((ino, index)) != records:
            if records < self._costly.get((ino, index), 0) and self._recent((ino, index)):
                return
            self._ask((ino, index), self._thresholds.read)

    def wrote(self, ino: int, index: int, count: int, *, fresh: bool) -> None:
        """A writer appended so many records; `fresh`: the chunk had none before this process wrote it."""
        limits = self._thresholds
        key = (ino, index)
        with self._turn:
            length, due, _ = self._lengths.pop(key, (0 if fresh else limits.write, limits.write, 0.0))
            length += count
            self._remember(key, length, due)
        if limits.write and length >= (due if count < limits.write else max(due, self._longest)):
            self._ask(key, limits.write)

    def make_room(self, ino: int, index: int, count: int) -> None:
        """Before so many records are appended: a list that could get too long for an engine is compacted first."""
        limits = self._thresholds
        with self._turn:
            known = self._lengths.get((ino, index))
        if known is None and count <= limits.write:
            return  # what others leave is shorter than that
        length = limits.force if known is None else known[0]
        if limits.force and length + count > limits.force:
            self._begin((ino, index))
            self._run((ino, index), limits.write, forced=True)

    def compact(self, ino: int, index: int) -> int:
        """Compact a chunk now, as far as it goes; returns the bytes written. Immutable files are left alone."""
        key = (ino, index)
        self._begin(key)
        written = 0
        try:
            while not self._meta.getattr(ino).immutable:
                more = self._once(ino, index, self._meta.records(ino, index))
                if more is None:
                    break
                written += more
        finally:
            self._end(key)
        return written

    def drain(self) -> None:
        """Wait until nothing waits and nothing runs."""
        with self._turn:
            while self._waiting or self._busy:
                self._turn.wait()

    def close(self) -> None:
        """What waits is not done, what runs is waited for."""
        if self._pool is not None:
            self._pool.close()
        with self._turn:
            self._waiting.clear()
            self._turn.notify_all()

    def _ask(self, key: Chunk, least: int) -> None:
        if self._pool is None:
            return
        with self._turn:
            if key in self._waiting or key in self._busy or len(self._waiting) >= WAITING:
                return
            if key[0] in self._spared:
                return
            self._waiting.add(key)
        try:
            self._pool.submit(self._serve, key, least)
        except RuntimeError:  # closed meanwhile
            with self._turn:
                self._waiting.discard(key)

    def _serve(self, key: Chunk, least: int) -> None:
        self._begin(key)
        self._run(key, least)

    def _run(self, key: Chunk, least: int, *, forced: bool = False) -> None:
        """Compact a chunk once if its list is as long as was said; errors are for the next one who asks."""
        try:
            records = self._meta.records(*key)
            if not forced and self._costs(key, records, least):
                self._wait(key, len(records))
                return
            if self._wanted(key[0], records, least) and self._once(*key, records) is not None:
                records = self._meta.records(*key)
            else:
                self._leave(key, len(records))
            self._learn(key, len(records))
        except FsError as error:
            _log.debug("inode %d chunk %d: not compacted: %s", *key, error)
        except StoreError as error:
            _log.warning("inode %d chunk %d: compaction failed, it is tried again later: %s", *key, error)
        finally:
            self._end(key)

    def _wanted(self, ino: int, records: list[SliceRecord], least: int) -> bool:
        with self._turn:
            if ino in self._spared:
                return False
        if len(records) < least and least != self._thresholds.read:
            return False
        return not self._meta.getattr(ino).immutable

    def _costs(self, key: Chunk, records: list[SliceRecord], least: int) -> bool:
        """Whether to wait for more: for a writer always, for a reader while the chunk is being written."""
        if len(records) >= self._longest or (least == self._thresholds.read and not self._recent(key)):
            return False
        found = plan(records, whole=self._meta.setting.change_log)
        return found is not None and not found.pays

    def _wait(self, key: Chunk, length: int) -> None:
        """Not before the list is half as long again."""
        due = max(self._thresholds.write, min(length + length // 2, self._longest))
        with self._turn:
            self._remember(key, length, due)
            self._costly[key] = due

    def _recent(self, key: Chunk) -> bool:
        known = self._lengths.get(key)
        return known is not None and self._clock.monotonic() < known.at + CALM_S

    @property
    def _longest(self) -> int:
        """From how many records on it does not matter what a compaction costs."""
        return 2 * (self._thresholds.force or Thresholds().force) // 3

    def _learn(self, key: Chunk, length: int) -> None:
        write = self._thresholds.write
        with self._turn:
            self._remember(key, length, max(write, length + write // 2))
            self._costly.pop(key, None)

    def _remember(self, key: Chunk, length: int, due: int) -> None:
        self._lengths[key] = _Known(length, due, self._clock.monotonic())
        if len(self._lengths) > REMEMBERED:
            self._costly.pop(self._lengths.popitem(last=False)[0], None)

    def _leave(self, key: Chunk, length: int) -> None:
        """Nothing is to be gained: readers need not ask again until the list is another one."""
        with self._turn:
            self._barren[key] = length
            while len(self._barren) > REMEMBERED:
                self._barren.popitem(last=False)

    def _begin(self, key: Chunk) -> None:
        with self._turn:
            while key in self._busy:
                self._turn.wait()
            self._waiting.discard(key)
            self._busy.add(key)

    def _end(self, key: Chunk) -> None:
        with self._turn:
            self._busy.discard(key)
            self._turn.notify_all()

    def _once(self, ino: int, index: int, records: list[SliceRecord]) -> int | None:
        """One compaction; the bytes written, None when there is nothing to gain or somebody else was faster."""
        found = plan(records, whole=self._meta.setting.change_log)
        if found is None:
            return None
        slice_id = self._meta.new_slice_id()
        writer = self._blocks.new_writer(slice_id, self._meta.tier_of(ino))
        try:
            self._copy(found, writer)
            writer.finish()
            self._blocks.sync()  # what it replaces may have been safe from a power cut, and goes at once
        except BaseException as error:
            writer.abort()
            if isinstance(error, NotFound):
                return None
            raise
        if not self._commit(ino, index, found, slice_id, writer):
            return None
        self._changed(ino)
        return found.size

    def _copy(self, found: Plan, writer: SliceWriter) -> None:
        step = self._blocks.block_size
        for piece in found.pieces:
            for at, pos, part in by_block(piece.off, piece.length, step):
                if piece.id:
                    writer.write(self._blocks.read(piece.id, piece.size, at * step + pos, part), owned=True)
                else:
                    writer.write(bytes(part), owned=True)

    def _commit(self, ino: int, index: int, found: Plan, slice_id: int, writer: SliceWriter) -> bool:
        try:
            done = self._meta.compact(ino, index, found, slice_id)
        except FsError:
            writer.abort()
            raise
        except StoreError:
            if not found.size or set(found.records(slice_id)).isdisjoint(self._meta.records(ino, index)):
                raise  # the outcome is unknown: the new slice may be referred to, and stays
            return True
        if not done:
            writer.abort()
        return done
