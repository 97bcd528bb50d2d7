"""How a file is cut: chunks of 64 MiB by index, slices inside a chunk, blocks inside a slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CHUNK: Final = 64 << 20
"""Bytes of a chunk; fixed by the format."""

DEFAULT_BLOCK: Final = 4 << 20


def chunk_count(length: int) -> int:
    """Number of chunks of a file of `length` bytes."""
    return (length + CHUNK - 1) // CHUNK


def by_chunk(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Cut the byte range at chunk borders into (chunk index, position inside it, bytes)."""
    end = offset + length
    while offset < end:
        index, pos = divmod(offset, CHUNK)
        part = min(CHUNK - pos, end - offset)
        yield index, pos, part
        offset += part


def by_block(offset: int, length: int, block_size: int) -> Iterator[tuple[int, int, int]]:
    """Cut a byte range of a slice into (block index, position inside the block, bytes)."""
    end = offset + length
    while offset < end:
        index, pos = divmod(offset, block_size)
        part = min(block_size - pos, end - offset)
        yield index, pos, part
        offset += part


def block_length(slice_size: int, index: int, block_size: int) -> int:
    """Plain bytes of block `index` of a slice of `slice_size` bytes."""
    return min(block_size, slice_size - index * block_size)
