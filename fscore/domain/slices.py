"""Slice records and the overlay that turns a chunk's list of them into what a reader sees.

Rule 1  records are painted oldest first; the newest wins.
Rule 2  a piece cut on the left by k bytes has its `off` grown by k; `size` never changes.
Rule 3  gaps and slice 0 read as zeros; the list may end before or after the file does.
(volume-format.md 4.2, 4.3; the 24 stored bytes are the same on every engine.)
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from fscore.domain.errors import CorruptError

_pos = attrgetter("pos")

RECORD: Final = struct.Struct(">IQIII")


class SliceRecord(NamedTuple):
    """`length` bytes from `off` of slice `id` (whose objects hold `size` bytes), at `pos` of a chunk.

    `id` 0 is a hole.
    """

    pos: int
    id: int
    size: int
    off: int
    length: int

    @property
    def end(self) -> int:
        """First byte of the chunk after this record."""
        return self.pos + self.length


def hole(pos: int, length: int) -> SliceRecord:
    """The record that makes [pos, pos + length) read as zeros."""
    return SliceRecord(pos, 0, 0, 0, length)


def pack(records: Iterable[SliceRecord]) -> bytes:
    """The stored form of records: 24 bytes each."""
    return b"".join(RECORD.pack(*record) for record in records)


def unpack(data: bytes) -> list[SliceRecord]:
    """Records from their stored form. CorruptError when the length is not a multiple of 24."""
    if len(data) % RECORD.size:
        raise CorruptError(f"a slice list of {len(data)} bytes is no multiple of {RECORD.size}")
    return [SliceRecord(*fields) for fields in RECORD.iter_unpack(data)]


def overlay(records: Sequence[SliceRecord]) -> list[SliceRecord]:
    """What a reader sees: ascending, disjoint pieces from 0 to the last painted byte, holes explicit."""
    if len(records) == 1 and records[0].pos == 0:
        return [records[0]]
    starts: list[int] = []
    pieces: list[SliceRecord] = []
    for record in records:
        pos, end = record.pos, record.end
        low = bisect_right(starts, pos)
        if low and pieces[low - 1].end > pos:
            low -= 1
        high = bisect_left(starts, end, low)
        painted = [record]
        if low < high:
            first, last = pieces[low], pieces[high - 1]
            if first.pos < pos:
                painted.insert(0, _cut(first, first.pos, pos))
            if last.end > end:
                painted.append(_cut(last, end, last.end))
        pieces[low:high] = painted
        starts[low:high] = [piece.pos for piece in painted]
    return _with_gaps(pieces)


def _with_gaps(pieces: Sequence[SliceRecord]) -> list[SliceRecord]:
    view: list[SliceRecord] = []
    at = 0
    for piece in pieces:
        if piece.pos > at:
            view.append(hole(at, piece.pos - at))
        view.append(piece)
        at = piece.end
    return view


def clip(view: Sequence[SliceRecord], pos: int, length: int) -> list[SliceRecord]:
    """The pieces of an overlay inside [pos, pos + length), with a hole after the view's end."""
    end, covered = pos + length, pos
    pieces: list[SliceRecord] = []
    for at in range(max(bisect_right(view, pos, key=_pos) - 1, 0), len(view)):
        piece = view[at]
        if piece.pos >= end:
            break
        if piece.end > pos:
            pieces.append(_cut(piece, max(piece.pos, pos), min(piece.end, end)))
            covered = pieces[-1].end
    if covered < end:
        pieces.append(hole(covered, end - covered))
    return pieces


def _cut(record: SliceRecord, lo: int, hi: int) -> SliceRecord:
    if record.id == 0:
        return hole(lo, hi - lo)
    return SliceRecord(lo, record.id, record.size, record.off + lo - record.pos, hi - lo)
