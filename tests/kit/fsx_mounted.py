"""The subject of `fsx` that goes through the kernel, and its command line."""

from __future__ import annotations

import argparse
import ctypes
import errno
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Final

from tests.kit.fsx import BORDER, WEIGHTS, Difference, run

KEEP_SIZE: Final = 1
PUNCH_HOLE: Final = 2
ZERO_RANGE: Final = 16
PAGE: Final = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


class Mounted:
    """Files in a directory, by system calls."""

    def __init__(self, place: Path, files: int) -> None:
        self.paths = [place / f"fsx-{number}" for number in range(files)]
        self._fds = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644) for path in self.paths]

    def write(self, file: int, offset: int, data: bytes) -> None:
        assert os.pwrite(self._fds[file], data, offset) == len(data)

    def append(self, file: int, data: bytes) -> None:
        fd = os.open(self.paths[file], os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)

    def read(self, file: int, offset: int, length: int) -> bytes:
        return os.pread(self._fds[file], length, offset)

    def truncate(self, file: int, length: int) -> None:
        os.ftruncate(self._fds[file], length)

    def punch(self, file: int, offset: int, length: int) -> None:
        self._fallocate(file, PUNCH_HOLE | KEEP_SIZE, offset, length)

    def zero(self, file: int, offset: int, length: int, *, keep: bool) -> None:
        self._fallocate(file, ZERO_RANGE | (KEEP_SIZE if keep else 0), offset, length)

    def allocate(self, file: int, offset: int, length: int, *, keep: bool) -> None:
        self._fallocate(file, KEEP_SIZE if keep else 0, offset, length)

    def _fallocate(self, file: int, mode: int, offset: int, length: int) -> None:
        if _libc.fallocate(self._fds[file], mode, offset, length):
            number = ctypes.get_errno()
            raise OSError(number, f"fallocate mode {mode}: {os.strerror(number)}")

    def copy(self, source: int, at: int, file: int, offset: int, length: int) -> int:
        done = 0
        length = min(length, max(self.size(source) - at, 0))  # a copy inside one file moves its end
        while done < length:
            step = os.copy_file_range(self._fds[source], self._fds[file], length - done, at + done, offset + done)
            if not step:
                break
            done += step
        return done

    def seek(self, file: int, offset: int, *, hole: bool) -> int | None:
        try:
            return os.lseek(self._fds[file], offset, os.SEEK_HOLE if hole else os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def size(self, file: int) -> int:
        return os.fstat(self._fds[file]).st_size

    def sync(self, file: int) -> None:
        os.fsync(self._fds[file])

    def reopen(self, file: int) -> None:
        os.close(self._fds[file])
        self._fds[file] = os.open(self.paths[file], os.O_RDWR)

    def map_write(self, file: int, offset: int, data: bytes) -> None:
        start = offset // PAGE * PAGE
        with mmap.mmap(self._fds[file], offset - start + len(data), offset=start) as mapped:
            mapped[offset - start :] = data
            if offset % 3:  # else it is left to the kernel
                mapped.flush()

    def map_read(self, file: int, offset: int, length: int) -> bytes:
        start = offset // PAGE * PAGE
        length = min(length, self.size(file) - offset)
        with mmap.mmap(self._fds[file], offset - start + length, offset=start, prot=mmap.PROT_READ) as mapped:
            return mapped[offset - start :]

    def close(self) -> None:
        """Close every file."""
        for fd in self._fds:
            os.close(fd)


def main(arguments: list[str] | None = None) -> int:
    """Play one history below a directory; the files go when it was clean. Exit code 1 at a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.kit.fsx", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--border", action="store_true", help="play around the border of two chunks (64 MiB)")
    parser.add_argument("--without", default="", help=f"kinds left out, with commas, of {', '.join(WEIGHTS)}")
    given = parser.parse_args(arguments)
    kinds = frozenset(WEIGHTS) - frozenset(given.without.split(","))
    subject = Mounted(given.directory, given.files)
    began = time.monotonic()
    try:
        origin = BORDER if given.border else 0
        done = run(subject, seed=given.seed, ops=given.ops, files=given.files, origin=origin, kinds=kinds)
    except Difference as difference:
        sys.stdout.write(f"seed {given.seed}: {difference}\n")
        return 1
    finally:
        subject.close()
    for path in subject.paths:
        path.unlink()
    kinds_done = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
    sys.stdout.write(f"seed {given.seed}: clean, {given.ops} in {time.monotonic() - began:.1f} s ({kinds_done})\n")
    return 0
