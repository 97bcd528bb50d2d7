"""Where a file has data and where it has holes: lseek(2) with SEEK_DATA and SEEK_HOLE, over chunk views.

A chunk without a list is a hole; those that have one are asked for in windows, so that a terabyte of nothing costs a
few round trips.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fscore.domain.errors import Invalid, PastEnd
from fscore.domain.geometry import CHUNK, chunk_count
from fscore.meta.service import MetaService

SEEK_DATA: Final = 3
SEEK_HOLE: Final = 4

WINDOW: Final = 4096
"""Chunk indexes asked about at once."""

FAR: Final = 64
"""Windows after which the rest is asked about in one go, whatever that costs the engine."""


def seek(meta: MetaService, ino: int, length: int, offset: int, whence: int) -> int:
    """The first byte of data, or of a hole, at or after `offset` of a file of `length` bytes.

    The end of the file is a hole. PastEnd when there is none.
    """
    if whence not in {SEEK_DATA, SEEK_HOLE}:
        raise Invalid(f"seek by {whence}: only data (3) and holes (4) are looked for")
    if not 0 <= offset < length:
        raise PastEnd(f"{offset} in a file of {length} bytes")
    at = offset
    for start, end in data_ranges(meta, ino, offset, length):
        if whence == SEEK_DATA:
            return start
        if start > at:
            return at
        at = end
    if whence == SEEK_DATA:
        raise PastEnd(f"no data after {offset} in a file of {length} bytes")
    return min(at, length)


def data_ranges(meta: MetaService, ino: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Ranges of [offset, length) that hold data, ascending, those that touch joined."""
    low = high = -1
    for index in _chunks(meta, ino, offset // CHUNK, chunk_count(length)):
        base = index * CHUNK
        for piece in meta.read(ino, index):
            start, end = max(base + piece.pos, offset), min(base + piece.end, length)
            if not piece.id or start >= end:
                continue
            if start == high:
                high = end
                continue
            if high > low:
                yield low, high
            low, high = start, end
    if high > low:
        yield low, high


def _chunks(meta: MetaService, ino: int, first: int, stop: int) -> Iterator[int]:
    for _ in range(FAR):
        if first >= stop:
            return
        end = min(first + WINDOW, stop)
        yield from meta.chunk_indexes(ino, first, end)
        first = end
    yield from meta.chunk_indexes(ino, first, stop)
