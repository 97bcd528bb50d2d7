"""Requests about open directories: listed in a stream, whatever their size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final, NamedTuple

from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle
from fscore.mount.api import OpenReply
from fscore.mount.operations_files import FileOperations
from fscore.mount.options import MountOptions
from fscore.vfs.internal import Internal
from fscore.vfs.vfs import Vfs

_DOTS: Final = frozenset({b".", b".."})
KEPT: Final = 8
"""Lists of entries behind the reader that a handle can go back to at once; before them the directory is read again."""

Batch = tuple[Sequence[Entry], int]
"""Entries, and the number of own changes before they were read."""


class Plus(NamedTuple):
    """A page of a listing with attributes as they are now; None for a name that was removed, or is about to be."""

    entries: Sequence[Entry]
    attrs: Sequence[Attr | None]
    fixed: bool
    """Whether the directory never changes, nor what its names lead to."""


class DirHandle:
    """One opendir(3): a stream of entries, and a window on what it gave."""

    __slots__ = ("_batches", "_ended", "_next", "_stream", "fixed", "ino", "lock", "who")

    def __init__(self, who: Caller, ino: int, *, fixed: bool) -> None:
        self.who = who
        self.ino = ino
        self.fixed = fixed
        self.lock = threading.Lock()
        self._stream: Iterator[Batch] = iter(())
        self._batches: deque[tuple[int, Batch]] = deque()
        self._next = 0
        self._ended = True

    def restart(self, stream: Iterator[Batch]) -> None:
        """Begin with the first entry, as the directory is now."""
        self._stream, self._next, self._ended = stream, 0, False
        self._batches.clear()

    def reaches(self, offset: int) -> bool:
        """Whether the window, or what follows it, has the entry of that number."""
        return bool(self._batches) and offset >= self._batches[0][0]

    def take(self, offset: int, most: int) -> Batch:
        """Entries from `offset` on, at most so many, all of one list; none at the end."""
        while offset >= self._next and not self._ended:
            batch = next(self._stream, None)
            if batch is None:
                self._ended = True
                break
            if len(self._batches) > KEPT:
                self._batches.popleft()
            self._batches.append((self._next, batch))
            self._next += len(batch[0])
        for first, (entries, changes) in reversed(self._batches):
            if first <= offset:
                return entries[offset - first : offset - first + most], changes
        return (), 0


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
        self._dirs[fh] = DirHandle(who, ino, fixed=attr.immutable)
        return OpenReply(fh, keep_cache=attr.immutable, cache_dir=attr.immutable)

    def peek_opendir(self, who: Caller, ino: int, flags: int = 0) -> OpenReply | None:
        """As opendir, without waiting."""
        return None if self.meta.cached_node(self._node(ino)) is None else self.opendir(who, ino, flags)

    def readdir(self, who: Caller, ino: int, fh: int, offset: int, most: int, *, plus: bool = False) -> Sequence[Entry]:
        """At most so many entries from `offset` on, none at the end; the i-th one's next offset is `offset` + i + 1.

        0 begins anew. With `plus` they come with the attributes that they have now; one without was removed, or is
        about to be.
        """
        handle = self._dir(fh)
        entries, changes = self._page(handle, offset, most)
        if not plus:
            return entries
        attrs = self._attrs_of(handle.ino, entries, changes)
        return [Entry(entry.name, entry.ino, entry.kind, attr) for entry, attr in zip(entries, attrs, strict=True)]

    def readdirplus(self, who: Caller, ino: int, fh: int, offset: int, most: int) -> Plus:
        """As readdir with `plus`, the attributes beside the entries."""
        handle = self._dir(fh)
        entries, changes = self._page(handle, offset, most)
        return Plus(entries, self._attrs_of(handle.ino, entries, changes), handle.fixed)

    def _page(self, handle: DirHandle, offset: int, most: int) -> Batch:
        with handle.lock:
            if offset == 0 or not handle.reaches(offset):
                handle.restart(self._listing(handle))
            return handle.take(offset, most)

    def _attrs_of(self, parent: int, entries: Sequence[Entry], changes: int) -> Sequence[Attr | None]:
        """A name that this process has changed since comes without attributes: the kernel must not learn it again."""
        since = self.meta.changes
        attrs = self.meta.nodes([entry.ino for entry in entries])
        touched = frozenset[bytes]() if changes == self.meta.changes else self.meta.touched(parent, changes)
        if touched is None:
            return [None] * len(attrs)
        opened, overlaid = self.vfs.opened, self.vfs.overlaid
        for place, entry in enumerate(entries[:2]):
            if entry.name in _DOTS:
                attrs[place] = None
        if touched or opened or since != self.meta.changes:
            for place, (entry, attr) in enumerate(zip(entries, attrs, strict=True)):
                if entry.name in touched:
                    attrs[place] = None
                elif attr is not None and (entry.ino in opened or since != self.meta.changes):
                    attrs[place] = overlaid(entry.ino, attr, since)
        return attrs

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

    def _listing(self, handle: DirHandle) -> Iterator[Batch]:
        """`.` and `..`, the volume's entries, and in the root what the mount adds."""
        ino = handle.ino
        attr = self.meta.getattr(ino)
        above = ino if ino == self._root else attr.parent
        first: Sequence[Entry] = [Entry(b".", ino, Kind.DIRECTORY), Entry(b"..", above, Kind.DIRECTORY)]
        changes = self.meta.changes
        for batch, changes in self.meta.scan(handle.who, ino):
            yield (*first, *batch) if first else batch, changes  # names on the first page: the kernel learns from them
            first = ()
        if first:
            yield first, changes
        if ino == self._root and self.internal is not None:
            yield self.internal.entries(), self.meta.changes
