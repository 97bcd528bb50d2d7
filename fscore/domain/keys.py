"""Object keys of blocks and the shard that holds a key (volume-format.md 5.1)."""

from __future__ import annotations

from collections.abc import Iterator

from fscore.domain.geometry import block_length


def block_key(slice_id: int, index: int, length: int, *, hash_prefix: bool = False) -> str:
    """Key of one block, without the volume's name. `length` is the block's plain length in bytes."""
    if hash_prefix:
        return f"chunks/{slice_id % 256:02X}/{slice_id // 1_000_000}/{slice_id}_{index}_{length}"
    return f"chunks/{slice_id // 1_000_000}/{slice_id // 1000}/{slice_id}_{index}_{length}"


def slice_keys(slice_id: int, size: int, block_size: int, *, hash_prefix: bool = False) -> Iterator[str]:
    """Keys of every block of a slice of `size` bytes."""
    for index in range((size + block_size - 1) // block_size):
        yield block_key(slice_id, index, block_length(size, index, block_size), hash_prefix=hash_prefix)


def parse_block_key(key: str) -> tuple[int, int, int] | None:
    """(slice id, block index, plain length) of a key under `chunks/`, or None if it is no block."""
    parts = key.rsplit("/", 1)[-1].split("_")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


def shard_of(full_key: str, shards: int) -> int:
    """Index of the bucket for a key that includes the volume's name: FNV-1a-32 modulo `shards`."""
    digest = 0x811C9DC5
    for byte in full_key.encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return digest % shards
