"""The buffered writer of one open file: bytes in, slices out, blocks first and the slice record after.

Rule 1  a run is one slice to be: contiguous bytes inside one chunk. What is still in its buffer may be overwritten;
        what went to the slice writer may not.
Rule 2  a write goes into a run only if no younger run covers the same bytes; else it starts a younger run.
Rule 3  runs are committed oldest first, those of one chunk in one transaction; the newest wins, as the format says.
Rule 4  small runs of one chunk that were not handed to an upload yet share a slice, one record each.
Rule 5  a commit that was refused deletes its objects; one whose outcome is unknown leaves them when the records do
        not show it (a leak, never a lie).
Rule 6  the first error stays: every later write, flush and close of the file raises it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from fscore.blocks.store import BlockStore
from fscore.blocks.upload import SliceWriter
from fscore.domain.attr import Attr
from fscore.domain.errors import FsError, StoreError
from fscore.domain.geometry import CHUNK, by_chunk
from fscore.domain.slices import SliceRecord
from fscore.meta.service import MetaService
from fscore.runtime import log
from fscore.runtime.buffer import Buffer, as_view
from fscore.runtime.clock import Clock
from fscore.vfs.budget import Budget

MAX_RUNS: Final = 256
"""Runs that one file may hold before they are committed: bounds memory and transactions under random writes."""

MAX_SEALED: Final = 2
"""Whole chunks that may wait, uploading, before the oldest is committed."""

SMALL: Final = 256 << 10
"""A file that buffers less than this is not asked to give memory back: it would only make tiny slices."""

_log = log.get(__name__)


class Run:
    """One slice in the making: [start, end) of chunk `index`; `buffer` holds its last bytes."""

    __slots__ = ("buffer", "index", "mtime_ns", "off", "pushed", "slice_id", "start", "writer")

    def __init__(self, index: int, start: int) -> None:
        self.index = index
        self.start = start
        self.pushed = 0
        self.buffer = bytearray()
        self.slice_id = 0
        self.off = 0
        self.writer: SliceWriter | None = None
        self.mtime_ns = 0

    @property
    def end(self) -> int:
        """Position in the chunk after the last byte."""
        return self.start + self.pushed + len(self.buffer)


class FileWriter:
    """Writes of one inode by all handles of this process. Thread-safe."""

    def __init__(
        self,
        ino: int,
        meta: MetaService,
        blocks: BlockStore,
        budget: Budget,
        clock: Clock,
        committed: Callable[[Attr, int, int], None],
    ) -> None:
        self._ino = ino
        self._committed = committed
        self._meta = meta
        self._blocks = blocks
        self._budget = budget
        self._clock = clock
        self.lock: Final = threading.RLock()
        self._runs: list[Run] = []
        self._buffered = 0
        self._error: BaseException | None = None
        self._touched = 0.0
        self.length = 0

    def write(self, offset: int, data: Buffer) -> int:
        """Take bytes; returns their number. Raises what an earlier upload or commit of this file raised."""
        view = as_view(data)
        now = self._clock.now_ns()
        with self.lock:
            self._check()
            done = 0
            if not len(view):
                return 0  # write(2) of nothing does not make a file longer, wherever it lies
            try:
                for index, pos, part in by_chunk(offset, len(view)):
                    self._write_part(index, pos, view[done : done + part], now)
                    done += part
                self.length = max(self.length, offset + done)
                self._touched = self._clock.monotonic()
                self._relieve()
            except (FsError, StoreError) as error:
                self._fail(error)
                raise
        return done

    def flush(self) -> None:
        """Make everything written durable and visible."""
        with self.lock:
            self._check()
            try:
                self._commit(len(self._runs))
            except (FsError, StoreError) as error:
                self._fail(error)
                raise
            self.length = 0

    def flush_idle(self, before: float) -> None:
        """Flush if nothing was written since `before` (monotonic seconds); errors wait for the next caller."""
        if not self._runs or self._touched > before:
            return
        with contextlib.suppress(FsError, StoreError):
            self.flush()

    def overlaps(self, offset: int, length: int) -> bool:
        """Whether a read of this range would miss bytes that are not committed yet."""
        with self.lock:
            for run in self._runs:
                base = run.index * CHUNK
                if base + run.start < offset + length and offset < base + run.end:
                    return True
            return False

    @property
    def dirty(self) -> bool:
        """Whether anything waits to be committed."""
        return bool(self._runs)

    def discard(self) -> None:
        """Drop what is not committed and delete its objects."""
        with self.lock:
            self._abort(self._runs)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _write_part(self, index: int, pos: int, data: memoryview, now: int) -> None:
        run = self._find(index, pos, len(data))
        if run is None:
            run = Run(index, pos)
            self._runs.append(run)
        run.mtime_ns = now
        at = pos - run.start - run.pushed
        block = self._blocks.block_size
        if at == len(run.buffer):
            self._append(run, data, block)
            return
        overlap = min(len(run.buffer) - at, len(data))
        run.buffer[at : at + overlap] = data[:overlap]
        if overlap < len(data):
            self._append(run, data[overlap:], block)

    def _find(self, index: int, pos: int, length: int) -> Run | None:
        """The run that can take these bytes: they touch its buffer, and no younger run covers them."""
        for run in reversed(self._runs):
            if run.index != index:
                continue
            if run.start + run.pushed <= pos <= run.end:
                return run
            if pos < run.end and run.start < pos + length:
                return None
        return None

    def _append(self, run: Run, data: memoryview, block: int) -> None:
        """Add bytes behind a run's last, handing whole blocks to the upload."""
        room = block - len(run.buffer) - run.pushed % block
        if len(data) < room:
            run.buffer += data
            self._account(len(data))
            return
        if run.buffer:
            run.buffer += data[:room]
            self._account(room)
            self._push(run)
            data = data[room:]
        whole = len(data) - len(data) % block
        if whole:
            self._slice(run).write(data[:whole], owned=isinstance(data.obj, bytes))
            run.pushed += whole
        if whole < len(data):
            run.buffer += data[whole:]
            self._account(len(data) - whole)

    def _slice(self, run: Run) -> SliceWriter:
        if run.writer is None:
            run.slice_id = self._meta.new_slice_id()
            run.writer = self._blocks.new_writer(run.slice_id)
        return run.writer

    def _push(self, run: Run) -> None:
        buffer, run.buffer = run.buffer, bytearray()
        self._account(-len(buffer))
        self._slice(run).write(buffer, owned=True)
        run.pushed += len(buffer)

    def _account(self, count: int) -> None:
        self._buffered += count
        self._budget.add(count)

    def _relieve(self) -> None:
        """Commit what should not wait: whole chunks behind the newest, too many runs, too much memory."""
        if len(self._runs) > MAX_RUNS or (self._budget.exceeded and self._buffered > SMALL):
            self._commit(len(self._runs))
            return
        full = sum(run.end == CHUNK for run in self._runs) if len(self._runs) > MAX_SEALED else 0
        if full > MAX_SEALED:
            self._commit(len(self._runs) - MAX_SEALED)

    def _commit(self, count: int) -> None:
        """Upload and commit the oldest `count` runs."""
        groups = [list(group) for _, group in groupby(self._runs[:count], key=lambda run: run.index)]
        for group in groups:
            self._send(group)
        for group in groups:
            for run in group:
                if run.writer is not None:
                    run.writer.finish()
            self._commit_chunk(group)
            del self._runs[: len(group)]

    def _send(self, runs: Sequence[Run]) -> None:
        """Hand the last bytes of one chunk's runs to uploads, several small runs to one."""
        pack: SliceWriter | None = None
        pack_id = 0
        for run in runs:
            if run.writer is None and pack is not None and pack.size + len(run.buffer) <= self._blocks.block_size:
                run.slice_id, run.off = pack_id, pack.size
                writer = run.writer = pack
            else:
                if pack is not None:
                    pack.seal()
                whole = run.writer is not None
                writer = self._slice(run)
                pack, pack_id = (None, 0) if whole else (writer, run.slice_id)
            if run.buffer:
                self._push(run)
            if writer is not pack:
                writer.seal()
        if pack is not None:
            pack.seal()

    def _commit_chunk(self, runs: Sequence[Run]) -> None:
        index = runs[0].index
        records = [
            SliceRecord(run.start, run.slice_id, run.writer.size, run.off, run.pushed)
            for run in runs
            if run.writer is not None
        ]
        length = index * CHUNK + max(run.end for run in runs)
        try:
            attr = self._meta.write(self._ino, index, records, runs[-1].mtime_ns, new_length=length)
        except StoreError as error:
            for run in runs:  # the outcome is unknown: these objects may be referred to
                run.writer = None
            _log.warning("inode %d chunk %d: commit failed with unknown outcome: %s", self._ino, index, error)
            if not self._is_committed(index, records):
                raise
            attr = self._meta.getattr(self._ino)
        self._committed(attr, index, len(records))

    def _is_committed(self, index: int, records: Sequence[SliceRecord]) -> bool:
        try:
            present = set(self._meta.records(self._ino, index))
        except (FsError, StoreError):
            return False
        return present.issuperset(records)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._abort(self._runs)

    def _abort(self, runs: list[Run]) -> None:
        for writer in {id(run.writer): run.writer for run in runs}.values():
            if writer is not None:
                writer.abort()
        runs.clear()
        self._account(-self._buffered)
