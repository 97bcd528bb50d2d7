"""fallocate: room without bytes, holes and zeros in a file that exists (volume-format.md 2.16, 2.17 fallocate).

Rule 1  room is never reserved: without keep-size the file becomes longer, and what it gains reads as zeros already.
Rule 2  a punched or zeroed range gets zero records where a chunk has a list; a chunk without one is zeros anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from fscore.domain.attr import Attr, Flag, align4k
from fscore.domain.errors import Invalid, NotPermitted, TooLarge, Unsupported
from fscore.domain.geometry import CHUNK
from fscore.domain.slices import SliceRecord, hole
from fscore.meta.ops.change import MAX_LENGTH, NEAR, parents_of
from fscore.meta.ops.check import WRITE, check_access, check_thawed
from fscore.meta.ops.data import writable
from fscore.meta.ops.work import Work
from fscore.meta.records import want_file

KEEP_SIZE: Final = 1
PUNCH_HOLE: Final = 2
ZERO_RANGE: Final = 16
"""Bits of fallocate(2); 8 (collapse) and 32 (insert) would move bytes and are refused."""


def check_mode(mode: int, offset: int, length: int) -> None:
    """Invalid, TooLarge or Unsupported for what no file allows."""
    if offset < 0 or length <= 0:
        raise Invalid(f"a range of {length} bytes at {offset}")
    if mode & ~(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE):
        raise Unsupported(f"fallocate mode {mode}")
    if mode & PUNCH_HOLE and (not mode & KEEP_SIZE or mode & ZERO_RANGE):
        raise Unsupported(f"fallocate mode {mode}: a hole is punched with keep-size, and alone")
    if offset + length > MAX_LENGTH:
        raise TooLarge(f"{offset + length} bytes")


def fallocate(work: Work, ino: int, mode: int, offset: int, length: int, *, checked: bool = False) -> Attr:
    """Extend, punch or zero; times move as a write moves them."""
    check_mode(mode, offset, length)
    txn = work.txn
    txn.prefetch(want_file(ino))
    attr = writable(work, ino)
    if attr.flags & Flag.APPEND and mode & ~KEEP_SIZE:
        raise NotPermitted("it is append-only")
    if not checked:
        check_thawed(attr)
        check_access(txn, attr, work.who, WRITE)
    longer = attr.length if mode & KEEP_SIZE else max(attr.length, offset + length)
    space = align4k(longer) - align4k(attr.length)
    parents = parents_of(txn, ino, attr)
    work.need(space, 0, attr, parents)
    if mode & (PUNCH_HOLE | ZERO_RANGE):
        zeros = list(_zeros(work, ino, offset, min(offset + length, attr.length)))
        for index, record in zeros:
            txn.append(ino, index, [record], if_exists=True)
    changed = replace(attr, length=longer, mtime_ns=work.now_ns, ctime_ns=work.now_ns)
    work.put_node(ino, changed)
    work.charge(space, 0, attr)
    work.log("FALLOCATE(%d,%d,%d,%d)", ino, offset, length, mode)
    work.stat_growth(parents, longer - attr.length, space)
    return changed


def _zeros(work: Work, ino: int, start: int, end: int) -> Iterator[tuple[int, SliceRecord]]:
    if start >= end:
        return
    first, last = start // CHUNK, (end - 1) // CHUNK
    indexes = range(first, last + 1)
    near = last - first <= NEAR
    for index in indexes if near else work.txn.chunk_indexes(ino, first, last + 1):
        low = max(start, index * CHUNK)
        yield index, hole(low - index * CHUNK, min(end, (index + 1) * CHUNK) - low)
