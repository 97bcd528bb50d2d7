"""Making a file of ranges of others and of new bytes: references move, only new bytes are uploaded.

Rule 1  a piece of new bytes starts a slice of its own, and slices restart at the target's chunk borders.
Rule 2  each chunk of the target is committed by one transaction, after every block it needs is durable; the
        transaction resolves source ranges to records and takes the references (volume-format.md 2.17).
Rule 3  a few chunks upload ahead of the one that is committed, so that uploads overlap and stay bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from fscore.blocks.store import BlockStore
from fscore.blocks.upload import SliceWriter
from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, Invalid, StoreError
from fscore.domain.geometry import CHUNK, by_chunk
from fscore.meta.service import FreshSlice, Hole, MetaService, SliceRange
from fscore.runtime import log
from fscore.runtime.buffer import Buffer, as_view

AHEAD: Final = 4
"""Chunks whose blocks may be uploading while an earlier one is committed."""

_log = log.get(__name__)


class SharedPiece(NamedTuple):
    """A range of another inode."""

    ino: int
    offset: int
    length: int


class NewPiece(NamedTuple):
    """New bytes, streamed."""

    chunks: Callable[[], Iterator[Buffer]]
    length: int


class ZeroPiece(NamedTuple):
    """Zeros."""

    length: int


InodePiece = SharedPiece | NewPiece | ZeroPiece


class Composed(NamedTuple):
    """What a composition cost."""

    bytes_new: int
    bytes_shared: int
    records: int


class _Part:
    """One chunk of the target in the making."""

    __slots__ = ("offset", "pieces", "size", "writers")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.size = 0
        self.pieces: list[SliceRange | Hole | tuple[SliceWriter, int]] = []
        self.writers: list[SliceWriter] = []


class Composer:
    """Fills one new, empty inode from its first byte on."""

    def __init__(self, meta: MetaService, blocks: BlockStore, who: Caller, ino: int) -> None:
        self._meta = meta
        self._blocks = blocks
        self._who = who
        self._ino = ino
        self._tier = meta.tier_of(ino)
        self._waiting: deque[_Part] = deque()
        self._part = _Part(0)
        self._at = 0
        self._new = 0
        self._shared = 0

    def run(self, pieces: Iterable[InodePiece]) -> Composed:
        """Write all pieces; what was uploaded and not committed is deleted when one fails."""
        try:
            for piece in pieces:
                self._take(piece)
            self._seal()
            while self._waiting:
                self._commit()
        except BaseException:
            self._abort()
            raise
        chunks = -(-self._at // CHUNK)
        records = sum(len(self._meta.records(self._ino, index)) for index in range(chunks))
        return Composed(self._new, self._shared, records)

    def _take(self, piece: InodePiece) -> None:
        if isinstance(piece, NewPiece):
            self._upload(piece)
            return
        done = 0
        for _, _, part in by_chunk(self._at, piece.length):
            if isinstance(piece, SharedPiece):
                self._part.pieces.append(SliceRange(piece.ino, piece.offset + done, part))
                self._shared += part
            else:
                self._part.pieces.append(Hole(part))
            done += part
            self._advance(part)

    def _upload(self, piece: NewPiece) -> None:
        left = piece.length
        writer: SliceWriter | None = None
        slice_id = 0
        for chunk in piece.chunks():
            view = as_view(chunk)
            if len(view) > left:
                raise Invalid(f"a piece declared {piece.length} bytes and gives more")
            done = 0
            while done < len(view):
                if writer is None:
                    slice_id = self._meta.new_slice_id()
                    writer = self._blocks.new_writer(slice_id, self._tier)
                    self._part.writers.append(writer)
                    self._part.pieces.append((writer, slice_id))
                step = min(len(view) - done, CHUNK - self._part.size)
                writer.write(view[done : done + step], owned=isinstance(view.obj, bytes))
                done += step
                self._new += step
                before = self._part
                self._advance(step)
                if self._part is not before:
                    writer.seal()
                    writer = None
            left -= len(view)
        if writer is not None:
            writer.seal()
        if left:
            raise Invalid(f"a piece declared {piece.length} bytes and gives {left} fewer")

    def _advance(self, count: int) -> None:
        self._at += count
        self._part.size += count
        if self._part.size == CHUNK:
            self._seal()
            if len(self._waiting) > AHEAD:
                self._commit()

    def _seal(self) -> None:
        if self._part.pieces:
            self._waiting.append(self._part)
        self._part = _Part(self._at)

    def _commit(self) -> None:
        part = self._waiting[0]
        resolved: list[SliceRange | FreshSlice | Hole] = []
        for piece in part.pieces:
            if isinstance(piece, SliceRange | Hole):
                resolved.append(piece)
            else:
                writer, slice_id = piece
                size = writer.finish()
                resolved.append(FreshSlice(slice_id, size, 0, size))
        try:
            self._meta.compose(self._who, self._ino, part.offset, resolved)
        except StoreError:
            part.writers.clear()  # the outcome is unknown: the objects may be referred to
            raise
        self._waiting.popleft()

    def _abort(self) -> None:
        for part in (*self._waiting, self._part):
            for writer in part.writers:
                try:
                    writer.abort()
                except (FsError, StoreError) as error:
                    _log.warning("inode %d: objects of an unfinished piece stay behind: %s", self._ino, error)
