"""The trailer of a cached block: one big-endian CRC-32C for every 32 KiB, the last piece shorter (format 5.5)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from crc32c import crc32c

PIECE: Final = 32 << 10
WIDTH: Final = 4


def trailer_size(size: int) -> int:
    """Bytes of the trailer of a block of `size` bytes."""
    return WIDTH * -(-size // PIECE)


def sums(parts: Sequence[memoryview]) -> tuple[int, ...]:
    """CRC-32C of every 32 KiB of the bytes that `parts` make up together, from the first on."""
    found: list[int] = []
    crc, room = 0, PIECE
    for part in parts:
        pos, end = 0, len(part)
        while pos < end:
            n = min(room, end - pos)
            crc = crc32c(part[pos : pos + n], crc)
            pos += n
            room -= n
            if not room:
                found.append(crc)
                crc, room = 0, PIECE
    if room != PIECE:
        found.append(crc)
    return tuple(found)


def trailer(block: memoryview) -> bytes:
    """The trailer of a whole block."""
    values = sums([block])
    return struct.pack(f">{len(values)}I", *values)
