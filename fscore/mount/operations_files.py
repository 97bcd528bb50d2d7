"""Requests about open files: what they hold, and close-to-open between clients.

Rule 1  an open asks the metadata for the attributes as they are now; the kernel keeps the pages of a file only when
        its length and mtime are those of the open before.
Rule 2  close(2) (FLUSH) returns when everything written is durable and visible to whoever opens next.
"""

from __future__ import annotations

import os
from typing import Final

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.errors import Invalid, ReadOnly
from fscore.mount.api import EntryReply, OpenReply
from fscore.mount.operations_locks import LockOperations
from fscore.mount.options import MountOptions
from fscore.runtime.buffer import Buffer
from fscore.vfs.handles import ACCESS
from fscore.vfs.internal import FIRST_HANDLE, Internal
from fscore.vfs.vfs import Vfs

SEEKS: Final = frozenset({os.SEEK_DATA, os.SEEK_HOLE})
PRIVILEGED: Final = 0o6000
MAX_COPY: Final = 1 << 30
"""Bytes that one COPY_FILE_RANGE composes: the kernel's answer has 32 bits, and a reply should not take minutes."""


class FileOperations(LockOperations):
    """Synchronous; any may raise FsError (its errno is the answer) or StoreError (EIO)."""

    def __init__(self, vfs: Vfs, options: MountOptions, internal: Internal | None = None, *, root: int = 1) -> None:
        super().__init__(vfs, options, internal, root=root)
        self._written: set[int] = set()
        """Handles through which the file has lost its capability already, where there can be one."""

    def open(self, who: Caller, ino: int, flags: int) -> OpenReply:
        """Open a file with the flags of open(2); O_TRUNC is heeded here, in the same request."""
        ino = self._node(ino)
        if self.internal is not None and self.internal.owns(ino):
            return OpenReply(self.internal.open(who, ino, flags), direct_io=True)
        if self.options.read_only and flags & ACCESS != os.O_RDONLY:
            raise ReadOnly("the mount is read-only")
        if self.passthrough is not None:
            self.passthrough.admit(ino, flags)
        fh = self.vfs.open(who, ino, flags)
        return self._opened(fh, ino, self.vfs.attr_of(fh), flags)

    def create(self, who: Caller, parent: int, name: bytes, mode: int, flags: int) -> tuple[EntryReply, OpenReply]:
        """Make a file and open it; one that is there is opened, unless O_EXCL."""
        parent = self._own(parent, name)
        if self.options.read_only:
            raise ReadOnly("the mount is read-only")
        ino, attr, fh = self.vfs.create(who, parent, name, mode & 0o7777, flags)
        if self._xattrs and not attr.length:
            self._written.add(fh)
        return self.entry(ino, attr, parent, self.meta.changes), self._opened(fh, ino, attr, flags)

    def read(self, who: Caller, ino: int, fh: int, offset: int, size: int) -> Buffer:
        """Bytes of a range; fewer at the end of the file."""
        del who, ino
        if fh >= FIRST_HANDLE and self.internal is not None:
            return self.internal.read(fh, offset, size)
        return self.vfs.view(fh, offset, size)

    def peek_read(self, who: Caller, ino: int, fh: int, offset: int, size: int) -> Buffer | None:
        """As read, from memory only, without waiting."""
        del who, ino
        if fh >= FIRST_HANDLE and self.internal is not None:
            return self.internal.peek(fh, offset, size)
        return self.vfs.peek(fh, offset, size)

    def write(self, who: Caller, ino: int, fh: int, offset: int, data: Buffer, *, kill_privileges: bool = False) -> int:
        """Take bytes. They are this client's at once, everybody's after flush or fsync. `data` is not kept."""
        if fh >= FIRST_HANDLE and self.internal is not None:
            return self.internal.write(who, fh, bytes(data))
        if kill_privileges:
            self._lose_privileges(self._node(ino), fh)
        if self._xattrs and fh not in self._written:
            self._written.add(fh)
            self._drop_capability(self._node(ino))
        return self.vfs.write(fh, offset, data)

    def flush(self, who: Caller, ino: int, fh: int, owner: int) -> None:
        """A descriptor was closed: what was written is made durable, and the owner's record locks go."""
        del who
        if fh >= FIRST_HANDLE and self.internal is not None:
            self.internal.flush(fh)
            return
        try:
            self.vfs.flush(fh)
        finally:
            self.drop_record_locks(self._node(ino), owner)

    def release(self, who: Caller, ino: int, fh: int, owner: int = 0, *, unlock: bool = False) -> None:
        """The last descriptor of an open is gone; with `unlock` its flock goes, too."""
        del who
        ino = self._node(ino)
        if fh >= FIRST_HANDLE and self.internal is not None:
            self.internal.release(fh)
            return
        try:
            if unlock:
                self.drop_flock(ino, owner)
        finally:
            self._written.discard(fh)
            if self.passthrough is not None:
                self.passthrough.released(ino)
            self.vfs.release(fh)

    def fsync(self, who: Caller, ino: int, fh: int, *, data_only: bool = False) -> None:
        """Everything written through any handle of the file is durable, and so is its length."""
        del who, ino, data_only  # a length that is not committed is data that is lost
        if fh < FIRST_HANDLE:
            self.vfs.fsync(fh)

    def fallocate(self, who: Caller, ino: int, fh: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        del who, ino
        self.vfs.fallocate(fh, mode, offset, length)

    def lseek(self, who: Caller, ino: int, fh: int, offset: int, whence: int) -> int:
        """Where data or a hole begins; the kernel does every other seek by itself."""
        del who, ino
        if whence not in SEEKS:
            raise Invalid(f"lseek whence {whence}")
        return self.vfs.seek(fh, offset, whence)

    def copy_file_range(
        self, who: Caller, fh_in: int, off_in: int, fh_out: int, off_out: int, length: int, flags: int = 0
    ) -> int:
        """Share a range of one open file with another: references move, no byte does."""
        del who
        if flags:
            raise Invalid(f"copy_file_range flags {flags}")
        return self.vfs.copy_file_range(fh_in, off_in, fh_out, off_out, min(length, MAX_COPY))

    def _opened(self, fh: int, ino: int, attr: Attr, flags: int) -> OpenReply:
        keep = not self._told_anew(ino, attr)
        settled = flags & ACCESS == os.O_RDONLY and (self.options.read_only or attr.immutable)
        settled = settled and self.meta.sid is None  # with a session there are locks, which FLUSH gives back
        if self.passthrough is None:
            return OpenReply(fh, keep_cache=keep, no_flush=settled)
        try:
            backing_id, direct_io = self.passthrough.opened(ino, flags)
        except BaseException:
            self.vfs.release(fh)
            raise
        keep = keep and not backing_id  # the kernel takes a native open with that flag for a mistake
        return OpenReply(fh, keep_cache=keep, no_flush=settled, direct_io=direct_io, backing_id=backing_id)

    def _lose_privileges(self, ino: int, fh: int) -> None:
        attr = self.vfs.attr_of(fh)
        if attr.mode & PRIVILEGED:
            self.meta.strip_privileges(ino, self.meta.getattr(ino))
