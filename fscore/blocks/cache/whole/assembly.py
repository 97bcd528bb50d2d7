"""A whole file while it fills: sparse, with a map of the cells that are there. Readers read through it meanwhile.

Rule 1  a cell is loaded by one thread, whole; its sum is taken from the loaded bytes before they are written. They are
        written behind the reader's back, and given up when too much waits for the disk: the cell is loaded again then.
Rule 2  what cannot be loaded or written ends the assembly, never the reader: he gets the error of the load, which the
        block path tries again with patience, and a full disk costs him nothing. What has ended keeps no cell any more,
        so it gives what is there and refuses the rest.
Rule 3  the bytes are on the disk before the file gets its name, and the record, without which nobody believes the name,
        comes last.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Final

from crc32c import crc32c

from fscore.blocks.cache.whole.file import fill, glimpse
from fscore.blocks.cache.whole.layout import Layout
from fscore.blocks.cache.whole.record import CELL, Look, Record, cells, look_of
from fscore.domain.errors import FsError, StoreError, UnavailableError
from fscore.runtime import log
from fscore.runtime.buffer import Buffer
from fscore.runtime.singleflight import SingleFlight
from fscore.runtime.threads import Pool

Load = Callable[[int, int, int, memoryview], None]
"""(slice id, its size, offset, buffer): fills the buffer with checked bytes of a slice."""

Finish = Callable[[Record], None]

WRITE: Final = 512 << 10
"""Bytes that are written at a time: as blocks.cache.disk has it, though larger pieces of memory map faster."""

BEHIND: Final = 32
"""Cells that may wait to be written."""

logger = log.get(__name__)


class Assembly:
    """One file being filled. Takes `fd` over. Thread-safe."""

    def __init__(self, layout: Layout, fd: int, load: Load, pool: Pool, ended: Callable[[Assembly], None]) -> None:
        """`ended` is called once, from any thread, when every cell is there or when no more will come."""
        self.layout: Final = layout
        self.fd: Final = fd
        self.failed = False
        """Whether no more cells will come."""
        self.users = 0
        """Who reads through it; the cache counts."""
        self.failure = ""
        """What went wrong, if anything did. A text: an error would keep this object, and its file, by its frames."""
        self._load = load
        self._pool = pool
        self._ended = ended
        self._count = cells(layout.length)
        self._there = bytearray(self._count)
        self._sums = [0] * self._count
        self._left = self._count
        self._queued: set[int] = set()
        self._writing: set[int] = set()
        self._lock = threading.Lock()
        self._waiting: dict[int, bytearray] = {}
        self._writes: set[Future[None]] = set()
        self._flights: SingleFlight[bytearray] = SingleFlight()
        os.ftruncate(fd, layout.length)

    @property
    def whole(self) -> bool:
        """Whether every cell is there."""
        return self._left == 0

    @property
    def filled(self) -> int:
        """Bytes that are there, or about to be."""
        return min(self.layout.length, (self._count - self._left + len(self._waiting)) * CELL)

    def read(self, offset: int, length: int) -> bytes:
        """As read_into, into bytes of their own."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, which lies inside the file; cells that are missing are loaded and kept.

        UnavailableError when they would not be kept.
        """
        first, last = offset // CELL, (offset + len(buffer) - 1) // CELL
        if self.failed and not all(self._there[first : last + 1]):
            raise UnavailableError(f"{self.layout.key} is no longer filled: ask the blocks")
        if last > first:
            self.prefetch(offset, len(buffer))
        for cell in range(first, last + 1):
            lo, hi = max(cell * CELL, offset), min((cell + 1) * CELL, offset + len(buffer))
            target = buffer[lo - offset : hi - offset]
            if self._there[cell]:
                fill(self.fd, lo, target)
            else:
                data = self._waiting.get(cell) or self.fill(cell)
                target[:] = memoryview(data)[lo - cell * CELL : hi - cell * CELL]

    def peek(self, offset: int, length: int) -> Buffer | None:
        """Bytes of a range whose cells are there and in the page cache, or of one that waits to be written."""
        cell, last = offset // CELL, (offset + length - 1) // CELL
        data = self._waiting.get(cell) if cell == last else None
        if data is not None:
            return memoryview(data)[offset - cell * CELL : offset - cell * CELL + length]
        while cell <= last:
            if not self._there[cell]:
                return None
            cell += 1
        return glimpse(self.fd, offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        """Fill the cells of a range in the background."""
        end = min(offset + length, self.layout.length)
        for cell in range(offset // CELL, cells(end)):
            with self._lock:
                if self._there[cell] or cell in self._queued or cell in self._waiting or self.failed:
                    continue
                self._queued.add(cell)
            with suppress(RuntimeError):  # closed meanwhile
                self._pool.submit(self._fill_queued, cell)

    def fill(self, cell: int) -> Buffer:
        """The bytes of a cell, loaded and kept. Raises what loading them raised."""
        return self._flights.do(cell, lambda: self._fill(cell))

    def fill_all(self) -> None:
        """Fill what is missing, in parallel; returns when all is there. Raises the first error."""
        missing = [cell for cell in range(self._count) if not self._there[cell]]
        for _ in self._pool.map_bounded(self._fill_and_wait, missing):
            pass

    def flush(self) -> None:
        """Wait until what was loaded is written, or given up."""
        wait(list(self._writes))

    def record(self, look: Look) -> Record:
        """The proof of the file, once it is whole."""
        return Record(self.layout.length, look, tuple(self._sums))

    def fail(self, why: str = "") -> None:
        """No more cells will come."""
        with self._lock:
            if self.failed or self.whole:
                return
            self.failed = True
            self.failure = why
        self._ended(self)

    def _fill_queued(self, cell: int) -> None:
        try:
            if not self.failed and not self._there[cell] and cell not in self._waiting:
                self.fill(cell)
        except (FsError, StoreError) as error:
            logger.debug("cell %d of %s: %s", cell, self.layout.key, error)
        finally:
            with self._lock:
                self._queued.discard(cell)

    def _fill_and_wait(self, cell: int) -> None:
        data = self._flights.do(cell, lambda: self._fill(cell))
        self._keep(cell, data)

    def _fill(self, cell: int) -> bytearray:
        data = self._waiting.get(cell)
        if data is not None:
            return data
        start = cell * CELL
        data = bytearray(min(CELL, self.layout.length - start))
        view = memoryview(data)
        if self._there[cell]:
            fill(self.fd, start, view)
            return data
        try:
            for part in self.layout.within(start, len(data)):
                self._load(part.id, part.size, part.off, view[part.pos - start : part.end - start])
        except (FsError, StoreError) as error:
            self.fail(str(error))
            raise
        with self._lock, suppress(RuntimeError):  # closed meanwhile
            if len(self._waiting) < BEHIND and not self.failed:
                write = self._pool.submit(self._keep, cell, data)
                self._writes.add(write)
                self._waiting[cell] = data  # after it can be waited for
                write.add_done_callback(self._writes.discard)
        return data

    def _keep(self, cell: int, data: bytearray) -> None:
        """Write a cell, once."""
        with self._lock:
            if self._there[cell] or self.failed or cell in self._writing:
                if self.failed:
                    self._waiting.clear()
                return
            self._writing.add(cell)
        view, start = memoryview(data), cell * CELL
        value = crc32c(view)
        is_hole = next(self.layout.within(start, len(data)), None) is None
        done = len(view) if is_hole else 0
        try:
            while done < len(view):
                done += os.pwrite(self.fd, view[done : done + WRITE], start + done)
        except OSError as error:
            self.fail(str(error))
        with self._lock:
            self._writing.discard(cell)
            if not self.failed:
                self._sums[cell] = value
                self._there[cell] = 1
                self._left -= 1
            self._waiting.pop(cell, None)
            last = self._left == 0 and not self.failed
        if last:
            self._ended(self)

    def __del__(self) -> None:
        os.close(self.fd)


def publish(assembly: Assembly, part: str, final: str, proof: str) -> None:
    """Give a filled file its name, and then its record. OSError when the disk does not take them."""
    os.fdatasync(assembly.fd)
    os.rename(part, final)  # noqa: PTH104
    temporary = f"{proof}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = assembly.record(look_of(assembly.fd)).pack()
        if os.write(fd, data) != len(data):
            raise OSError(f"{temporary} was written in part")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, proof)  # noqa: PTH104
