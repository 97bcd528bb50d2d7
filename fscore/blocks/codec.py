"""How a block is stored: none, LZ4 (one raw block) or Zstandard (one frame with its content size).

Formats of volume-format.md 5.2; the objects are what a JuiceFS client writes and reads.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from fscore.domain.errors import CorruptError, SettingError
from fscore.runtime.buffer import Buffer

_ZSTD_LEVEL: Final = 1


class Codec(Protocol):
    """Plain block to stored bytes and back. Thread-safe."""

    name: str

    def encode(self, block: Buffer) -> Buffer:
        """Stored bytes of a plain block."""
        ...

    def decode(self, data: Buffer, size: int) -> Buffer:
        """The plain block of `size` bytes. CorruptError if `data` does not yield them."""
        ...


class Plain:
    """Stored as it is."""

    name = "none"

    def encode(self, block: Buffer) -> Buffer:
        """The block itself."""
        return block

    def decode(self, data: Buffer, size: int) -> Buffer:
        """The first `size` bytes."""
        if len(data) < size:
            raise CorruptError(f"a block of {size} bytes is stored as only {len(data)}")
        return data if len(data) == size else data[:size]


class Lz4:
    """One raw LZ4 block: no frame, no length in front."""

    name = "lz4"

    def encode(self, block: Buffer) -> Buffer:
        """Compress."""
        import lz4.block

        packed: bytes = lz4.block.compress(block, store_size=False)
        return packed

    def decode(self, data: Buffer, size: int) -> Buffer:
        """Decompress."""
        import lz4.block

        try:
            plain: bytes = lz4.block.decompress(data, uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise CorruptError(f"no LZ4 block of {size} bytes: {error}") from error
        return _whole(plain, size)


class Zstd:
    """One Zstandard frame of level 1. Its header must hold the content size: JuiceFS needs it."""

    name = "zstd"

    def __init__(self) -> None:
        self._local = threading.local()  # contexts of the library are not thread-safe

    def encode(self, block: Buffer) -> Buffer:
        """Compress."""
        import zstandard

        context = getattr(self._local, "compressor", None)
        if context is None:
            context = self._local.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True)
        packed: bytes = context.compress(block)
        return packed

    def decode(self, data: Buffer, size: int) -> Buffer:
        """Decompress, also a frame without content size."""
        import zstandard

        context = getattr(self._local, "decompressor", None)
        if context is None:
            context = self._local.decompressor = zstandard.ZstdDecompressor()
        try:
            plain: bytes = context.decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise CorruptError(f"no Zstandard frame of {size} bytes: {error}") from error
        return _whole(plain, size)


def _whole(plain: bytes, size: int) -> bytes:
    if len(plain) < size:
        raise CorruptError(f"a block of {size} bytes decodes to only {len(plain)}")
    return plain if len(plain) == size else plain[:size]


def codec_for(compression: str) -> Codec:
    """The codec that a volume's setting names. SettingError for one we do not have."""
    name = compression.lower()
    if name in {"", "none"}:
        return Plain()
    if name == "lz4":
        return Lz4()
    if name == "zstd":
        return Zstd()
    raise SettingError(f"compression {compression!r} is not one of none, lz4, zstd")
