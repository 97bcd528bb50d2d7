"""Requests about open directories: listed in a stream, whatever their size."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from fscore.domain.attr import Entry, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle
from fscore.domain.ids import ROOT
from fscore.mount.api import OpenReply
from fscore.mount.operations_files import FileOperations
from fscore.mount.options import MountOptions
from fscore.vfs.internal import Internal
from fscore.vfs.vfs import Vfs

KEPT: Final = 16_384
"""Entries behind the reader that a handle can go back to at once; before them the directory is read again."""


class DirHandle:
    """One opendir(3): a stream of entries, and a window on what it gave."""

    __slots__ = ("_base", "_ended", "_epoch", "_stream", "_window", "ino", "lock", "who")

    def __init__(self, who: Caller, ino: int) -> None:
        self.who = who
        self.ino = ino
        self.lock = threading.Lock()
        self._stream: Iterator[Sequence[Entry]] = iter(())
        self._window: list[Entry] = []
        self._base = 0
        self._ended = True
        self._epoch = -1

    def restart(self, stream: Iterator[Sequence[Entry]], epoch: int) -> None:
        """Begin with the first entry, as the directory is now."""
        self._stream, self._window, self._base, self._ended, self._epoch = stream, [], 0, False, epoch

    def reaches(self, offset: int) -> bool:
        """Whether the window, or what follows it, has the entry of that number."""
        return offset >= self._base and self._epoch >= 0

    def take(self, offset: int, most: int) -> tuple[list[Entry], int]:
        """Entries from `offset` on, at most so many, none at the end; and the number of changes when they were read."""
        while offset >= self._base + len(self._window) and not self._ended:
            batch = next(self._stream, None)
            if batch is None:
                self._ended = True
                break
            surplus = len(self._window) - KEPT
            if surplus > 0:
                del self._window[:surplus]
                self._base += surplus
            self._window.extend(batch)
        start = offset - self._base
        return self._window[start : start + most], self._epoch


class DirOperations(FileOperations):
    """Synchronous; any may raise FsError (its errno is the answer) or StoreError (EIO)."""

    def __init__(self, vfs: Vfs, options: MountOptions, internal: Internal | None = None, *, root: int = 1) -> None:
        super().__init__(vfs, options, internal, root=root)
        self._dirs: dict[int, DirHandle] = {}
        self._dir_numbers = count(1)

    def opendir(self, who: Caller, ino: int, flags: int = 0) -> OpenReply:
        """Open a directory for listing. One that never changes may be kept by the kernel."""
        del flags
        ino = self._node(ino)
        attr = self.meta.getattr(ino)
        fh = next(self._dir_numbers)
        self._dirs[fh] = DirHandle(who, ino)
        return OpenReply(fh, keep_cache=attr.immutable, cache_dir=attr.immutable)

    def peek_opendir(self, who: Caller, ino: int, flags: int = 0) -> OpenReply | None:
        """As opendir, without waiting."""
        return None if self.meta.cached_node(self._node(ino)) is None else self.opendir(who, ino, flags)

    def readdir(self, who: Caller, ino: int, fh: int, offset: int, most: int, *, plus: bool = False) -> list[Entry]:
        """At most so many entries from `offset` on, none at the end; the i-th one's next offset is `offset` + i + 1.

        0 begins anew. With `plus` they come with attributes where these are known and still true.
        """
        del who, ino
        handle = self._dir(fh)
        with handle.lock:
            if offset == 0 or not handle.reaches(offset):
                handle.restart(self._listing(handle, plus=plus), self.meta.changes)
            entries, epoch = handle.take(offset, most)
        if plus and epoch != self.meta.changes:
            entries = [self.meta.as_known(handle.ino, entry) if entry.attr is not None else entry for entry in entries]
        return entries

    def releasedir(self, who: Caller, ino: int, fh: int) -> None:
        """Close it."""
        del who, ino
        self._dirs.pop(fh, None)

    def fsyncdir(self, who: Caller, ino: int, fh: int, *, data_only: bool = False) -> None:
        """Names are durable when the call that made them returns; what the engine holds back goes to its disk."""
        del who, ino, fh, data_only
        self.meta.flush()

    def _dir(self, fh: int) -> DirHandle:
        try:
            return self._dirs[fh]
        except KeyError:
            raise BadHandle(f"directory handle {fh} is not open") from None

    def _listing(self, handle: DirHandle, *, plus: bool) -> Iterator[Sequence[Entry]]:
        """`.` and `..`, the volume's entries, and in the root what the mount adds."""
        ino = handle.ino
        attr = self.meta.getattr(ino)
        above = ino if ino == self._root else attr.parent
        yield [Entry(b".", ino, Kind.DIRECTORY), Entry(b"..", above, Kind.DIRECTORY)]
        yield from self.meta.readdir_batches(handle.who, ino, attrs=plus)
        if ino == ROOT and self.internal is not None:
            yield self.internal.entries()
