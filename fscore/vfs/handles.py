"""Open files of this process: one `OpenFile` an inode, shared by its handles; handles are small numbers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from itertools import count
from typing import Final

from fscore.blocks.cache.whole.assembly import Assembly
from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle
from fscore.vfs.readahead import ReadAhead
from fscore.vfs.reader import FileReader
from fscore.vfs.writer import FileWriter

ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


class OpenFile:
    """What all handles of an inode share."""

    __slots__ = ("filling", "handles", "ino", "reader", "run", "tried_whole", "writable", "writer")

    def __init__(self, ino: int, reader: FileReader) -> None:
        self.ino = ino
        self.reader = reader
        self.writer: FileWriter | None = None
        self.handles = 0
        self.writable = 0
        """How many of them may write."""
        self.filling: Assembly | None = None
        """The whole file that was begun for this one, to be left when this is closed."""
        self.run = 0
        """The most bytes that one handle read in sequence."""
        self.tried_whole = False
        """Whether the filling of a whole file was begun, or refused, since it was opened."""

    def uncommitted(self, offset: int, length: int) -> bool:
        """Whether a read of this range that asks the tree alone would miss what this process wrote."""
        writer = self.writer
        if writer is None or not writer.dirty:
            return False
        known = self.reader.attr.length
        return writer.length > known < offset + length or writer.overlaps(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` with what is committed and, over it, what this process wrote; the bytes read.

        What waits in memory is copied from there. What is on its way to the store is committed first.
        """
        writer = self.writer
        while writer is not None and writer.dirty:
            generation = writer.generation
            count = max(min(len(buffer), self.length() - offset), 0)
            target = buffer[:count]
            got = self.reader.read_into(offset, target)
            target[got:] = bytes(count - got)
            if writer.patch(offset, target, generation):
                return count
            writer.flush()
        return self.reader.read_into(offset, buffer)

    def length(self) -> int:
        """The file's length, with what this process has written and not committed yet."""
        writer = self.writer
        if writer is None:
            return self.reader.length()
        waiting = writer.length  # first: what is committed after this, the reader knows
        return max(self.reader.length(), waiting)


class Handle:
    """One open(2)."""

    __slots__ = ("ahead", "append", "fh", "file", "readable", "who", "writable")

    def __init__(self, fh: int, who: Caller, file: OpenFile, flags: int, ahead: ReadAhead) -> None:
        self.fh = fh
        self.who = who
        self.file = file
        mode = flags & ACCESS
        self.readable = mode != os.O_WRONLY
        self.writable = mode != os.O_RDONLY
        self.append = bool(flags & os.O_APPEND)
        self.ahead = ahead


class Handles:
    """The table. Thread-safe; a lookup takes no lock."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._handles: dict[int, Handle] = {}
        self._files: dict[int, OpenFile] = {}
        self.lock: Final = threading.Lock()

    def get(self, fh: int) -> Handle:
        """The handle of that number. Raises BadHandle."""
        try:
            return self._handles[fh]
        except KeyError:
            raise BadHandle(f"handle {fh} is not open") from None

    def file(self, ino: int) -> OpenFile | None:
        """The open file of an inode, if this process has it open."""
        return self._files.get(ino)

    def files(self) -> list[OpenFile]:
        """Every open file."""
        with self.lock:
            return list(self._files.values())

    @property
    def inodes(self) -> Collection[int]:
        """The inodes of open files, as they come and go."""
        return self._files

    def numbers(self) -> list[int]:
        """Every open handle."""
        with self.lock:
            return list(self._handles)

    def add(self, who: Caller, ino: int, make: Callable[[], OpenFile], flags: int, ahead: ReadAhead) -> Handle:
        """A new handle on the open file of an inode, which is made if there is none; `make` waits for nothing."""
        with self.lock:
            file = self._files.get(ino)
            if file is None:
                file = self._files[ino] = make()
            file.handles += 1
            handle = Handle(next(self._numbers), who, file, flags, ahead)
            file.writable += handle.writable
            self._handles[handle.fh] = handle
            return handle

    def remove(self, fh: int) -> tuple[Handle, FileWriter | None, bool]:
        """Forget a handle. With it the writer that nobody writes through any more, and whether no handle is left."""
        with self.lock:
            handle = self._handles.pop(fh, None)
            if handle is None:
                raise BadHandle(f"handle {fh} is not open")
            handle.file.handles -= 1
            handle.file.writable -= handle.writable
            last = handle.file.handles == 0
            if last:
                del self._files[handle.file.ino]
            writer = None
            if not handle.file.writable:
                writer, handle.file.writer = handle.file.writer, None
            return handle, writer, last
