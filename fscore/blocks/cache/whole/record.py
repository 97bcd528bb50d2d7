"""The proof beside a whole file: its length, the CRC-32C of every cell, and how the file looked when it was finished.

Stored big-endian: magic, length u64, cell size u32, inode u64, mtime and ctime in ns i64, one u32 a cell, and at the
end the CRC-32C of all that. The record is written after the bytes are on the disk: where it lies, they do.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

from crc32c import crc32c

from fscore.domain.errors import CorruptError

CELL: Final = 4 << 20
"""Bytes of a whole file that are filled, and checked, as one."""

_MAGIC: Final = b"FSWHOLE1"
_HEAD: Final = struct.Struct(">8sQIQqq")
_SUM: Final = struct.Struct(">I")


class Look(NamedTuple):
    """What changes when anybody writes to a file, replaces it or plays with its times."""

    ino: int
    mtime_ns: int
    ctime_ns: int


class Record(NamedTuple):
    """See the module."""

    length: int
    look: Look
    sums: tuple[int, ...]

    def pack(self) -> bytes:
        """Its stored form."""
        head = _HEAD.pack(_MAGIC, self.length, CELL, *self.look)
        body = head + struct.pack(f">{len(self.sums)}I", *self.sums)
        return body + _SUM.pack(crc32c(body))


def unpack(data: bytes) -> Record:
    """A record from its stored form. CorruptError for anything that `pack` did not make."""
    body, tail = data[: -_SUM.size], data[-_SUM.size :]
    if len(body) < _HEAD.size or _SUM.unpack(tail)[0] != crc32c(body):
        raise CorruptError("the record of a whole file is damaged")
    magic, length, cell, ino, mtime_ns, ctime_ns = _HEAD.unpack(body[: _HEAD.size])
    count = cells(length)
    if magic != _MAGIC or cell != CELL or len(body) != _HEAD.size + _SUM.size * count:
        raise CorruptError("the record of a whole file is of another kind")
    return Record(length, Look(ino, mtime_ns, ctime_ns), struct.unpack(f">{count}I", body[_HEAD.size :]))


def look_of(fd: int) -> Look:
    """How an open file looks now."""
    found = os.fstat(fd)
    return Look(found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def cells(length: int) -> int:
    """Number of cells of a file of `length` bytes."""
    return -(-length // CELL)
