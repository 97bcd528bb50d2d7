"""The reader of one inode: ranges in, bytes out, over a chunk view that all handles of the process share.

Rule 1  a view is what `meta.read` gave for a chunk; it is dropped when this process writes the file, and when the
        file's length or mtime turns out to be another one. Mutable files are looked at again after a second.
Rule 2  the length comes from the attributes alone; what a view paints past it is not read.
Rule 3  a block that is not there may have been compacted away or not be uploaded yet: the view is read again, with
        patience, before the error is told.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fscore.blocks.store import BlockStore
from fscore.domain.attr import Attr
from fscore.domain.errors import CorruptError, NotFound, StoreError
from fscore.domain.geometry import by_chunk
from fscore.domain.slices import SliceRecord, clip, overlay
from fscore.meta.service import MetaService
from fscore.runtime.buffer import Buffer
from fscore.runtime.clock import Clock
from fscore.runtime.threads import Pool

ATTR_TTL: Final = 1.0
"""Seconds for which the attributes of a mutable open file are believed, if nothing else was asked for."""

IMMUTABLE_TTL: Final = 10.0
"""The same for a file that carries the immutable flag."""

MAX_VIEWS: Final = 4096
"""Chunk views that one open file keeps (256 GiB of a file)."""

PARALLEL_FROM: Final = 256 << 10
"""Reads of several pieces at least this long fetch the pieces in parallel."""


class Local(Protocol):
    """The bytes of a file as it is now, in a local file that may still be filling. Ranges lie inside the file.

    OSError and StoreError mean: ask the blocks.
    """

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a range."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`."""

    def peek(self, offset: int, length: int) -> Buffer | None:
        """Bytes of a range, if no disk or store has to be waited for."""

    def prefetch(self, offset: int, length: int) -> None:
        """Bring a range here in the background."""


class FileReader:
    """Reads of one inode. Thread-safe."""

    def __init__(
        self,
        ino: int,
        attr: Attr,
        meta: MetaService,
        blocks: BlockStore,
        pool: Pool,
        clock: Clock,
        patience: Sequence[float],
        attr_ttl: float = ATTR_TTL,
    ) -> None:
        self._ino = ino
        self._meta = meta
        self._blocks = blocks
        self._pool = pool
        self._clock = clock
        self._patience = patience
        self._attr_ttl = attr_ttl
        self._views: OrderedDict[int, list[SliceRecord]] = OrderedDict()
        self._lock = threading.Lock()
        self._attr = attr
        self._fresh_until = 0.0  # until `update` says when it was read
        self._epoch = 0
        self._local: Local | None = None
        self._seen: Callable[[int, int, int, int], None] = lambda *_: None
        self._parted: Callable[[], None] = lambda: None

    def watch(self, seen: Callable[[int, int, int, int], None]) -> None:
        """Tell `seen` of every chunk that is looked up: (inode, index, records, pieces)."""
        self._seen = seen

    def watch_local(self, parted: Callable[[], None]) -> None:
        """Tell `parted` when a local file is read through no more, for its bytes are others or cannot be had."""
        self._parted = parted

    @property
    def attr(self) -> Attr:
        """The attributes as last seen."""
        return self._attr

    def update(self, attr: Attr, since: int) -> bool:
        """Take attributes that were read when `meta.changes` was `since`; views of a file that changed are dropped.

        False when this process changed the file meanwhile: what is known here may be newer. Who reads next asks.
        """
        with self._lock:
            if self._meta.changed_since(self._ino, since):
                self._fresh_until = 0.0
                return False
            self._take(attr)
            return True

    def look_again(self) -> Attr:
        """Ask for the attributes until no change of this process came in between."""
        while True:
            since = self._meta.changes
            attr = self._meta.getattr(self._ino)
            if self.update(attr, since):
                return attr

    def committed(self, attr: Attr) -> None:
        """This process changed the file, which now has these attributes: forget the views."""
        with self._lock:
            self._drop()
            self._take(attr)

    def compacted(self) -> None:
        """Records of the file were replaced by others that say the same: forget the views."""
        with self._lock:
            self._drop()

    def invalidate(self) -> None:
        """The file changed in a way nobody told: forget views and attributes."""
        with self._lock:
            self._drop()
            self._fresh_until = 0.0

    def length(self) -> int:
        """The file's length, at most a second old."""
        self._revalidate()
        return self._attr.length

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a range, fewer at the end of the file."""
        return bytes(self.view(offset, length))

    def view(self, offset: int, length: int) -> Buffer:
        """As read, for one who only looks at the bytes: where that can be, they are not copied out of their block."""
        self._revalidate()
        length = min(length, self._attr.length - offset)
        if length <= 0:
            return b""
        local = self._local
        if local is not None:
            try:
                return local.read(offset, length)
            except (OSError, StoreError):
                self._use_no_more(local)
        pieces = self.pieces(offset, length)
        if len(pieces) == 1 and pieces[0].id:
            piece = pieces[0]
            try:
                return self._blocks.view(piece.id, piece.size, piece.off, piece.length)
            except NotFound:
                pass
        buffer = bytearray(length)
        return memoryview(buffer)[: self.read_into(offset, memoryview(buffer))]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer at the end of the file."""
        self._revalidate()
        count = min(len(buffer), self._attr.length - offset)
        if count <= 0:
            return 0
        local = self._local
        if local is not None:
            try:
                local.read_into(offset, buffer[:count])
                return count
            except (OSError, StoreError):
                self._use_no_more(local)
        try:
            self._fill(offset, buffer[:count])
        except NotFound:
            self._fill_again(offset, buffer[:count])
        return count

    def peek(self, offset: int, length: int) -> Buffer | None:
        """As read, from what is in memory and fresh; None when anything would have to be asked for."""
        if self._clock.monotonic() >= self._fresh_until:
            return None
        length = min(length, self._attr.length - offset)
        if length <= 0:
            return b""
        local = self._local
        if local is not None:
            return local.peek(offset, length)
        parts: list[Buffer] = []
        for index, pos, part in by_chunk(offset, length):
            view = self._views.get(index)
            if view is None:
                return None
            for piece in clip(view, pos, part):
                found = self._peek_piece(piece)
                if found is None:
                    return None
                parts.append(found)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self, offset: int, length: int) -> list[SliceRecord]:
        """What lies under a range, `pos` counted from `offset`."""
        found: list[SliceRecord] = []
        at = 0
        for index, pos, part in by_chunk(offset, length):
            shift = at - pos
            found.extend(piece._replace(pos=piece.pos + shift) for piece in clip(self._view(index), pos, part))
            at += part
        return found

    def prefetch(self, offset: int, length: int) -> None:
        """Start fetching a range in the background, as far as the file goes."""
        length = min(length, self._attr.length - offset)
        if length <= 0:
            return
        local = self._local
        if local is not None:
            local.prefetch(offset, length)
            return
        for piece in self.pieces(offset, length):
            if piece.id:
                self._blocks.prefetch(piece.id, piece.size, piece.off, piece.length)

    def knows(self, offset: int, length: int) -> bool:
        """Whether what lies under a range is known here, so that nobody has to be asked for it."""
        length = min(length, self._attr.length - offset)
        return self._local is not None or all(index in self._views for index, _, _ in by_chunk(offset, max(length, 0)))

    def use(self, local: Local | None, attr: Attr) -> bool:
        """Read through a local file from now on, if the attributes it was made for still hold; whether they do."""
        with self._lock:
            if (attr.mtime_ns, attr.length) != (self._attr.mtime_ns, self._attr.length):
                return False
            self._local = local
            return True

    @property
    def local(self) -> Local | None:
        """What the bytes come from instead of blocks, if anything."""
        return self._local

    def _use_no_more(self, local: Local) -> None:
        with self._lock:
            if self._local is local:
                self._part()

    def _revalidate(self) -> None:
        if self._clock.monotonic() >= self._fresh_until:
            self.look_again()

    def _take(self, attr: Attr) -> None:
        old = self._attr
        if (attr.mtime_ns, attr.length) != (old.mtime_ns, old.length):
            self._drop()
        self._attr = attr
        ttl = IMMUTABLE_TTL if attr.immutable else self._attr_ttl
        self._fresh_until = self._clock.monotonic() + ttl

    def _drop(self) -> None:
        self._views.clear()
        self._epoch += 1
        if self._local is not None:
            self._part()

    def _part(self) -> None:
        self._local = None
        self._parted()

    def _view(self, index: int) -> list[SliceRecord]:
        view = self._views.get(index)
        if view is not None:
            return view
        epoch = self._epoch
        records = self._meta.records(self._ino, index)
        view = overlay(records)
        self._seen(self._ino, index, len(records), len(view))
        with self._lock:
            if epoch == self._epoch:
                self._views[index] = view
                while len(self._views) > MAX_VIEWS:
                    self._views.popitem(last=False)
        return view

    def _fill(self, offset: int, buffer: memoryview) -> None:
        pieces = self.pieces(offset, len(buffer))
        if len(pieces) == 1 or len(buffer) < PARALLEL_FROM:
            for piece in pieces:
                self._fill_piece(piece, buffer)
            return
        futures = [self._pool.submit(self._fill_piece, piece, buffer) for piece in pieces if piece.id]
        try:
            for piece in pieces:
                if not piece.id:
                    self._fill_piece(piece, buffer)
        finally:
            errors = [error for error in (future.exception() for future in futures) if error is not None]
        for error in errors:
            raise error

    def _fill_piece(self, piece: SliceRecord, buffer: memoryview) -> None:
        target = buffer[piece.pos : piece.end]
        if piece.id:
            self._blocks.read_into(piece.id, piece.size, piece.off, target)
        else:
            target[:] = bytes(piece.length)

    def _peek_piece(self, piece: SliceRecord) -> Buffer | None:
        if not piece.id:
            return bytes(piece.length)
        return self._blocks.peek(piece.id, piece.size, piece.off, piece.length)

    def _fill_again(self, offset: int, buffer: memoryview) -> None:
        """The patient way: views read again before every try."""
        last: NotFound | None = None
        for delay in self._patience:
            if delay:
                self._clock.sleep(delay)
            self.invalidate()
            self.look_again()
            try:
                self._fill(offset, buffer)
            except NotFound as error:
                last = error
            else:
                return
        raise CorruptError(f"inode {self._ino}: a block of [{offset}, {offset + len(buffer)}) is missing: {last}")
