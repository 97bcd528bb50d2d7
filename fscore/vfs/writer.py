"""The buffered writer of one open file: bytes in, slices out, blocks first and the slice record after.

Rule 1  what is not committed lies in one `DirtyChunk` for each chunk (see `vfs.dirty`), and is overwritten there.
Rule 2  a chunk is committed by one transaction, after all its blocks are durable; lower chunks go first.
Rule 3  committed are: everything at flush; whole chunks, once three wait; a chunk of too many extents; everything,
        when this file has too many of them or all files together hold more than half of what may wait (blocks.budget).
Rule 4  a commit that was refused deletes its objects; one whose outcome is unknown leaves them when the records do
        not show it (a leak, never a lie).
Rule 5  the first error stays: every later write, flush and close of the file raises it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
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
from fscore.vfs.dirty import DirtyChunk

MAX_CHUNK_EXTENTS: Final = 1200
"""Extents that one chunk may hold: each becomes a record, and a transaction of more would be slow."""

MAX_EXTENTS: Final = 16_384
"""Extents that one file may hold, however small they are."""

MAX_FULL: Final = 2
"""Whole chunks that may wait, uploading, before the oldest is committed."""

LONGEST_S: Final = 30.0
"""Seconds that bytes of a file that is written all the time may wait: blocks must not get old without a record."""

SMALL: Final = 256 << 10
"""A file that buffers less than this is not asked to give memory back: it would only make tiny slices."""

_log = log.get(__name__)


class FileWriter:
    """Writes of one inode by all handles of this process. Thread-safe."""

    def __init__(
        self,
        ino: int,
        meta: MetaService,
        blocks: BlockStore,
        clock: Clock,
        committing: Callable[[int, int], None],
        committed: Callable[[Attr, int, int], None],
    ) -> None:
        self._ino = ino
        self._committing = committing
        self._committed = committed
        self._meta = meta
        self._blocks = blocks
        self._budget = blocks.budget
        self._clock = clock
        self.lock: Final = threading.RLock()
        self._chunks: dict[int, DirtyChunk] = {}
        self._buffered = 0
        self._extents = 0
        self._error: BaseException | None = None
        self._touched = 0.0
        self._since = 0.0
        self.length = 0
        self.mtime_ns = 0
        """When the last bytes were taken."""
        self.generation = 0
        """Grows when bytes leave this writer, for the tree or for nowhere."""

    def write(self, offset: int, data: Buffer) -> int:
        """Take bytes; returns their number. Raises what an earlier upload or commit of this file raised."""
        view = as_view(data)
        size = len(view)
        with self.lock:
            self._check()
            if not size:
                return 0  # write(2) of nothing does not make a file longer, wherever it lies
            self.mtime_ns = self._clock.now_ns()
            now = self._clock.monotonic()
            if not self._chunks:
                self._since = now
            try:
                index, pos = divmod(offset, CHUNK)
                if pos + size <= CHUNK:
                    self._write_part(index, pos, view)
                else:
                    done = 0
                    for at, start, part in by_chunk(offset, size):
                        self._write_part(at, start, view[done : done + part])
                        done += part
                self.length = max(self.length, offset + size)
                self._touched = now
                if self._extents > MAX_EXTENTS or (self._budget.exceeded and self._buffered > SMALL):
                    self._commit(sorted(self._chunks))
                else:
                    self._budget.pause()
            except (FsError, StoreError) as error:
                self._fail(error)
                raise
        return size

    def flush(self) -> None:
        """Make everything written durable and visible."""
        with self.lock:
            self._check()
            try:
                self._commit(sorted(self._chunks))
            except (FsError, StoreError) as error:
                self._fail(error)
                raise
            self.length = 0

    def flush_idle(self, before: float) -> None:
        """Flush if nothing was written since `before` (monotonic seconds), or if something waits for long already.

        Errors wait for the next caller.
        """
        if not self._chunks or (self._touched > before and self._since > before - LONGEST_S):
            return
        with contextlib.suppress(FsError, StoreError):
            self.flush()

    def overlaps(self, offset: int, length: int) -> bool:
        """Whether a read of this range would miss bytes that are not committed yet."""
        with self.lock:
            for index, pos, part in by_chunk(offset, length) if self._chunks else ():
                chunk = self._chunks.get(index)
                if chunk is not None and chunk.touches(pos, pos + part):
                    return True
            return False

    def patch(self, offset: int, target: memoryview, generation: int) -> bool:
        """Put bytes that are not committed yet over what was read since `generation`.

        False when some left this writer meanwhile, or are with an upload.
        """
        with self.lock:
            if generation != self.generation:
                return False
            parts = [(self._chunks.get(index), pos, part) for index, pos, part in by_chunk(offset, len(target))]
            if any(chunk is not None and not chunk.patches(pos, pos + part) for chunk, pos, part in parts):
                return False
            done = 0
            for chunk, pos, part in parts:
                if chunk is not None:
                    chunk.patch(pos, target[done : done + part])
                done += part
            return True

    @property
    def dirty(self) -> bool:
        """Whether anything waits to be committed."""
        return bool(self._chunks)

    @property
    def waiting(self) -> tuple[int, int] | None:
        """The length and the mtime (ns) that what waits to be committed gives the file; None when nothing waits."""
        found = self.length, self.mtime_ns  # first: a flush in between ends with a length of 0
        return found if self._chunks else None

    def discard(self) -> None:
        """Drop what is not committed and delete its objects."""
        with self.lock:
            self._abort()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # else it grows by a frame each time

    def _write_part(self, index: int, pos: int, data: memoryview) -> None:
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._chunks[index] = DirtyChunk(index, self._blocks.block_size, self._new_slice)
            before = self._chunks.get(index - 1)
            if not pos and before is not None and before.full:
                chunk.stream(pos)
        held, extents = chunk.buffered, chunk.extents
        chunk.write(pos, data)
        self._extents += chunk.extents - extents
        if chunk.buffered != held:
            self._account(chunk.buffered - held)
        if chunk.extents > MAX_CHUNK_EXTENTS:
            self._commit((index,))
        elif chunk.end == CHUNK and len(self._chunks) > MAX_FULL:
            full = sorted(at for at, other in self._chunks.items() if other.full)
            self._commit(full[:-MAX_FULL])

    def _new_slice(self) -> SliceWriter:
        return self._blocks.new_writer(self._meta.new_slice_id(), self._meta.tier_of(self._ino))

    def _account(self, count: int) -> None:
        self._buffered += count
        self._budget.hold(count)

    def _commit(self, indexes: Sequence[int]) -> None:
        """Upload and commit these chunks."""
        uploads = []
        for index in indexes:
            chunk = self._chunks[index]
            held, extents = chunk.buffered, chunk.extents
            uploads.append((chunk, chunk.send(alone=len(indexes) == 1)))
            self._account(-held)  # only now: what is packed lies here and in the uploads for a moment
            self._extents -= extents
        for chunk, writers in uploads:
            for writer in writers:
                writer.finish()
            self._commit_chunk(chunk)
            del self._chunks[chunk.index]
            self.generation += 1

    def _commit_chunk(self, chunk: DirtyChunk) -> None:
        index, records = chunk.index, chunk.records()
        length = index * CHUNK + chunk.end
        self._committing(index, len(records))
        try:
            attr = self._meta.write(self._ino, index, records, self.mtime_ns, new_length=length)
        except StoreError as error:
            chunk.release()  # the outcome is unknown: these objects may be referred to
            _log.warning("inode %d chunk %d: commit failed with unknown outcome: %s", self._ino, index, error)
            if not self._is_committed(index, records):
                raise
            attr = self._meta.getattr(self._ino, fresh=True)
        self._committed(attr, index, len(records))

    def _is_committed(self, index: int, records: Sequence[SliceRecord]) -> bool:
        try:
            present = set(self._meta.records(self._ino, index))
        except (FsError, StoreError):
            return False
        return present.issuperset(records)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._abort()

    def _abort(self) -> None:
        for chunk in self._chunks.values():
            chunk.abort()
        self._chunks.clear()
        self._extents = 0
        self._account(-self._buffered)
        self.generation += 1
