"""An open local file with the bytes of a whole one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from fscore.domain.errors import CorruptError
from fscore.runtime.buffer import Buffer

_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)


def fill(fd: int, offset: int, buffer: memoryview) -> None:
    """Read exactly `len(buffer)` bytes. CorruptError when the file ends before."""
    done = 0
    while done < len(buffer):
        n = os.preadv(fd, [buffer[done:]], offset + done)
        if n == 0:
            raise CorruptError(f"a file of the whole-file cache ends at byte {offset + done}")
        done += n


def glimpse(fd: int, offset: int, length: int) -> Buffer | None:
    """Bytes that are in the page cache; None when one is not, or when this system cannot tell."""
    if not _NOWAIT:
        return None
    buffer = bytearray(length)
    try:
        return buffer if os.preadv(fd, [buffer], offset, _NOWAIT) == length else None
    except OSError:
        return None


class WholeFile:
    """Lives as long as somebody refers to it, whatever happens to its name. Thread-safe."""

    __slots__ = ("_let_go", "fd", "key", "length")

    def __init__(self, key: str, length: int, fd: int, let_go: Callable[[], None]) -> None:
        """Takes `fd` over; `let_go` is called once, when nobody needs it any more."""
        self.key: Final = key
        self.length: Final = length
        self.fd: Final = fd
        """Open for reading; whoever passes it on keeps this object."""
        self._let_go = let_go

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a range that lies inside the file."""
        data = os.pread(self.fd, length, offset)
        if len(data) == length:
            return data
        buffer = bytearray(length)
        fill(self.fd, offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; the range lies inside the file."""
        fill(self.fd, offset, buffer)

    def peek(self, offset: int, length: int) -> Buffer | None:
        """Bytes of a range, if the page cache has them."""
        return glimpse(self.fd, offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        """Nothing to do: the kernel reads ahead by itself."""

    def __del__(self) -> None:
        os.close(self.fd)
        self._let_go()
