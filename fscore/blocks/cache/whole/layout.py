"""What a file is made of, as one value: the ranges of slices under it, and a key that equal files share.

Rule 1  slices never change, so equal layouts are equal bytes. (Unequal ones may be, too: a compaction gives a file a
        new key.)
Rule 2  holes are left out, and ranges that continue each other are one, so that the key does not depend on how a list
        of records was cut.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from fscore.domain.geometry import CHUNK
from fscore.domain.slices import SliceRecord, clip

_PART: Final = struct.Struct(">QQIII")
_KEY_BYTES: Final = 20


class Part(NamedTuple):
    """`length` bytes from `off` of slice `id` (whose objects hold `size` bytes), at `pos` of the file."""

    pos: int
    id: int
    size: int
    off: int
    length: int

    @property
    def end(self) -> int:
        """First byte of the file after it."""
        return self.pos + self.length


class Layout:
    """The parts of a file of `length` bytes, ascending and disjoint; zeros between them."""

    __slots__ = ("_starts", "key", "length", "parts")

    def __init__(self, length: int, parts: Sequence[Part]) -> None:
        self.length: Final = length
        self.parts: Final = tuple(parts)
        self._starts = [part.pos for part in parts]
        digest = blake2b(struct.pack(">Q", length), digest_size=_KEY_BYTES)
        for part in parts:
            digest.update(_PART.pack(*part))
        self.key: Final = digest.hexdigest()

    def within(self, start: int, length: int) -> Iterator[Part]:
        """The parts inside [start, start + length), cut to it."""
        end = start + length
        for part in self.parts[max(bisect_right(self._starts, start) - 1, 0) :]:
            if part.pos >= end:
                return
            lo, hi = max(part.pos, start), min(part.end, end)
            if lo < hi:
                yield Part(lo, part.id, part.size, part.off + lo - part.pos, hi - lo)


def layout_of(length: int, views: Iterable[tuple[int, Sequence[SliceRecord]]]) -> Layout:
    """The layout of a file of `length` bytes from what readers see of its chunks, ascending by index."""
    parts: list[Part] = []
    for index, view in views:
        base = index * CHUNK
        for piece in clip(view, 0, min(CHUNK, length - base)):
            if piece.id:
                _add(parts, Part(base + piece.pos, piece.id, piece.size, piece.off, piece.length))
    return Layout(length, parts)


def _add(parts: list[Part], part: Part) -> None:
    if parts:
        last = parts[-1]
        if (last.id, last.size, last.end, last.off + last.length) == (part.id, part.size, part.pos, part.off):
            parts[-1] = last._replace(length=last.length + part.length)
            return
    parts.append(part)
