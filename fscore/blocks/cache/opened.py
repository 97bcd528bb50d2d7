"""Files of cached blocks that stay open for the next read of them, with the sums of their trailers.

Rule 1  an entry is read through a reference: its descriptor closes when the last reader lets go.
Rule 2  every read looks at the file again: one that is shorter or longer than it was, or has no name any more, is over.
"""

from __future__ import annotations

import os
import resource
import struct
import threading
from collections import OrderedDict
from typing import Final

from fscore.blocks.cache.sums import PIECE, WIDTH, sums, trailer_size

MOST: Final = 512
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)


class OpenBlock:
    """One open file of a cached block of `size` plain bytes."""

    __slots__ = ("_sums", "fd", "size")

    def __init__(self, path: str, size: int) -> None:
        """Open the file and read its trailer. OSError when it is not there, or not as long as a block's file is."""
        self.size = size
        self.fd = -1
        self.fd = os.open(path, _OPEN)
        width = trailer_size(size)
        kept = os.pread(self.fd, width + 1, size)
        self._sums = struct.unpack(f">{width // WIDTH}I", kept) if len(kept) == width else ()

    @property
    def sound(self) -> bool:
        """Whether the file is as long as it must be."""
        return bool(self._sums) and os.fstat(self.fd).st_size == self.size + WIDTH * len(self._sums)

    @property
    def named(self) -> bool:
        """Whether the file still has a name: else somebody dropped the block."""
        return os.fstat(self.fd).st_nlink > 0

    def read(self, off: int, length: int) -> bytes | None:
        """`length` bytes from `off`, checked; None when they are not sound."""
        if not self.sound:
            return None
        first, last = off // PIECE, -(-(off + length) // PIECE)
        start, end = first * PIECE, min(self.size, last * PIECE)
        block = os.pread(self.fd, end - start, start)
        if len(block) != end - start or sums([memoryview(block)]) != self._sums[first:last]:
            return None
        return block if len(block) == length else block[off - start : off - start + length]

    def read_into(self, off: int, buffer: memoryview, *, wait: bool = True) -> bool | None:
        """Fill `buffer` from `off`, checked. False: the bytes are not sound. None: it would have had to wait."""
        if not self.sound:
            return False
        length = len(buffer)
        first, last = off // PIECE, -(-(off + length) // PIECE)
        start, end = first * PIECE, min(self.size, last * PIECE)
        parts = [buffer]
        if off > start:
            parts.insert(0, memoryview(bytearray(off - start)))
        if end > off + length:
            parts.append(memoryview(bytearray(end - off - length)))
        got = self._fill(parts, start, wait=wait)
        if got is not True:
            return got
        return sums(parts) == self._sums[first:last]

    def _fill(self, parts: list[memoryview], offset: int, *, wait: bool) -> bool | None:
        wanted = sum(map(len, parts))
        if not wait:
            if not _NOWAIT:
                return None
            try:
                return True if os.preadv(self.fd, parts, offset, _NOWAIT) == wanted else None
            except OSError:  # not in the page cache, or a filesystem that cannot tell
                return None
        got = os.preadv(self.fd, parts, offset)
        while got < wanted:
            n = os.preadv(self.fd, _rest(parts, got), offset + got)
            if n == 0:
                return False
            got += n
        return True

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class OpenBlocks:
    """The entries used last, by key. Thread-safe."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most or min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[str, OpenBlock] = OrderedDict()

    def get(self, key: str) -> OpenBlock | None:
        """The open block, unless its file lost its name meanwhile."""
        block = self._blocks.get(key)
        if block is None:
            return None
        if not block.named:
            self.drop(key)
            return None
        return block

    def put(self, key: str, block: OpenBlock) -> None:
        """Keep it for the next reader; the one that waited longest goes."""
        with self._lock:
            self._blocks[key] = block
            gone = self._blocks.popitem(last=False) if len(self._blocks) > self._most else None
        del gone  # closes outside the lock

    def drop(self, key: str) -> None:
        """Let go of it; readers that have it finish first."""
        with self._lock:
            gone = self._blocks.pop(key, None)
        del gone

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            gone = list(self._blocks.values())
            self._blocks.clear()
        del gone


def _rest(parts: list[memoryview], got: int) -> list[memoryview]:
    """What of `parts` is still to be filled after `got` bytes."""
    left: list[memoryview] = []
    for part in parts:
        if got < len(part):
            left.append(part[got:])
        got = max(0, got - len(part))
    return left
