"""Locks of files: whole (flock) and by byte ranges (fcntl), as pure values (volume-format.md 2.7).

The ranges of one owner are ascending and disjoint; neighbours that touch differ in kind or process.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from fscore.domain.errors import CorruptError

EOF: Final = 0x7FFFFFFFFFFFFFFF
"""The last byte of a range that goes on for ever."""

_RECORD: Final = struct.Struct(">IIQQ")


class LockKind(enum.IntEnum):
    """What a lock does, with the numbers that Linux clients store."""

    READ = 0
    WRITE = 1
    UNLOCK = 2


class LockRange(NamedTuple):
    """A range that a process locked; `end` is the last byte of it."""

    kind: LockKind
    pid: int
    start: int
    end: int


Ranges = tuple[LockRange, ...]
"""All ranges of one owner in one file."""


def parse(data: bytes) -> Ranges:
    """Ranges from their stored form, 24 bytes each.

    A kind that Linux has no number for was stored by another system's client: nobody shares such a lock.
    """
    if len(data) % _RECORD.size:
        raise CorruptError(f"record locks of {len(data)} bytes are no multiple of {_RECORD.size}")
    return tuple(
        LockRange(LockKind.READ if kind == LockKind.READ else LockKind.WRITE, pid, start, end)
        for kind, pid, start, end in _RECORD.iter_unpack(data)
    )


def render(ranges: Iterable[LockRange]) -> bytes:
    """The stored form."""
    return b"".join(_RECORD.pack(*one) for one in ranges)


def apply(ranges: Ranges, new: LockRange) -> Ranges:
    """The owner's ranges after it has set (or, of kind UNLOCK, dropped) `new`, which wins wherever they overlap."""
    pieces = [part for old in ranges for part in _outside(old, new)]
    if new.kind != LockKind.UNLOCK:
        pieces.append(new)
    pieces.sort(key=lambda one: one.start)
    merged: list[LockRange] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and last.end + 1 == piece.start and (last.kind, last.pid) == (piece.kind, piece.pid):
            merged[-1] = last._replace(end=piece.end)
        else:
            merged.append(piece)
    return tuple(merged)


def conflict(ranges: Iterable[LockRange], kind: LockKind, start: int, end: int) -> LockRange | None:
    """The first range of another owner that forbids this lock."""
    if kind == LockKind.UNLOCK:
        return None
    for one in ranges:
        exclusive = LockKind.WRITE in {kind, one.kind}
        if exclusive and one.start <= end and start <= one.end:
            return one
    return None


def _outside(old: LockRange, new: LockRange) -> Iterator[LockRange]:
    """What of `old` lies outside `new`."""
    if old.end < new.start or new.end < old.start:
        yield old
        return
    if old.start < new.start:
        yield old._replace(end=new.start - 1)
    if new.end < old.end:
        yield old._replace(start=new.end + 1)
