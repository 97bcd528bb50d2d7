"""An open file of a volume with the manners of Python's raw files."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

from fscore.domain.errors import Invalid
from fscore.runtime.buffer import Buffer, as_view
from fscore.vfs.vfs import Vfs

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer

LINE: Final = 16 << 10

_FLAGS: Final = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


def parse_mode(mode: str) -> tuple[int, bool]:
    """(flags of open(2), whether text) of a mode such as "rb", "w+b" or "r". Raises Invalid."""
    text = "b" not in mode
    plain = mode.replace("b", "").replace("t", "")
    flags = _FLAGS.get(plain[0] + "+" if "+" in plain else plain) if plain else None
    if flags is None or sorted(plain) != sorted(set(plain)) or ("b" in mode and "t" in mode):
        raise Invalid(f"no such mode: {mode!r}")
    return flags, text


class VolumeFile(io.RawIOBase):
    """Bytes of one open file. `flush`, `fsync` and `close` return when everything written is durable and visible.

    Reads and writes at positions of their own (`pread`, `pwrite`) may come from any thread; those at the current
    position belong to one thread at a time.
    """

    def __init__(self, vfs: Vfs, fh: int, name: str, mode: str, flags: int) -> None:
        super().__init__()
        self._vfs = vfs
        self._fh = fh
        self._pos = 0
        self._append = bool(flags & os.O_APPEND)
        self._access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        self.name = name
        self.mode = mode
        if self._append:
            self._pos = vfs.length(fh)

    def readable(self) -> bool:
        """Whether reads are allowed."""
        return self._access != os.O_WRONLY

    def writable(self) -> bool:
        """Whether writes are allowed."""
        return self._access != os.O_RDONLY

    def seekable(self) -> bool:
        """Always."""
        return True

    @property
    def size(self) -> int:
        """The file's length now."""
        self._check()
        return self._vfs.length(self._fh)

    def pread(self, offset: int, size: int) -> bytes:
        """Bytes of a range, fewer at the end of the file; the current position stays."""
        self._check()
        return self._vfs.read(self._fh, offset, size)

    def pread_into(self, offset: int, buffer: AnyBuffer) -> int:
        """Fill a buffer from `offset` without another copy; returns the bytes read."""
        self._check()
        return self._vfs.read_into(self._fh, offset, memoryview(buffer).cast("B"))

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, all there are when it is negative; fewer only at the end of the file."""
        if size is None or size < 0:
            return self.readall()
        data = self.pread(self._pos, size)
        self._pos += len(data)
        return data

    def readall(self) -> bytes:
        """The rest of the file."""
        data = self.pread(self._pos, max(0, self.size - self._pos))
        self._pos += len(data)
        return data

    def readinto(self, buffer: AnyBuffer, /) -> int:
        """Fill a buffer from the current position; returns the bytes read."""
        count = self.pread_into(self._pos, buffer)
        self._pos += count
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its end, at most `size` bytes."""
        limit = -1 if size is None else size
        found: list[bytes] = []
        length = 0
        while limit < 0 or length < limit:
            piece = self.pread(self._pos, LINE if limit < 0 else min(LINE, limit - length))
            end = piece.find(b"\n") + 1
            piece = piece[:end] if end else piece
            found.append(piece)
            self._pos += len(piece)
            length += len(piece)
            if end or not piece:
                break
        return b"".join(found)

    def write(self, data: AnyBuffer, /) -> int:
        """Take all bytes at the current position; returns their number."""
        self._check()
        view = memoryview(data).cast("B") if not isinstance(data, bytes) else data
        count = self._vfs.write(self._fh, self._pos, view)
        self._pos = self._vfs.append_at(self._fh) if self._append else self._pos + count
        return count

    def pwrite(self, offset: int, data: Buffer) -> int:
        """Take all bytes at `offset`; the current position stays."""
        self._check()
        return self._vfs.write(self._fh, offset, as_view(data))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the current position; returns it."""
        self._check()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._pos, io.SEEK_END: None}.get(whence, -1)
        if base == -1:
            raise Invalid(f"whence {whence}")
        target = (self.size if base is None else base) + offset
        if target < 0:
            raise Invalid(f"position {target}")
        self._pos = target
        return target

    def tell(self) -> int:
        """The current position."""
        self._check()
        return self._pos

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or extend the file to `size`, the current position by default; returns the new length."""
        self._check()
        length = self._pos if size is None else size
        self._vfs.truncate_open(self._fh, length)
        return length

    def flush(self) -> None:
        """Make everything written durable."""
        if not self.closed and self.writable():
            self._vfs.flush(self._fh)

    def fsync(self) -> None:
        """As flush, and safe from a power cut on engines that leave that to a later moment."""
        self._check()
        self._vfs.fsync(self._fh)

    def close(self) -> None:
        """Make everything written durable and let go; the handle is gone even when this raises."""
        if self.closed:
            return
        try:
            self._vfs.release(self._fh)
        finally:
            self._access = os.O_RDONLY
            super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")
