"""Requests about names: look up, make, link, rename, remove."""

from __future__ import annotations

from typing import Final

from fscore.domain.attr import S_IFMT, Attr, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import Invalid, NotFound, NotPermitted
from fscore.meta.ops.rename import RenameFlag
from fscore.mount.api import DAY_S, EntryReply
from fscore.mount.operations_core import OperationsCore

KINDS: Final = {mode: kind for kind, mode in S_IFMT.items()}
RENAME_FLAGS: Final = RenameFlag.NO_REPLACE | RenameFlag.EXCHANGE
_NOWHERE: Final = Attr(Kind.FILE, 0)
_DOTS: Final = frozenset({b".", b".."})


class NameOperations(OperationsCore):
    """Synchronous; any may raise FsError (its errno is the answer) or StoreError (EIO)."""

    def lookup(self, who: Caller, parent: int, name: bytes) -> EntryReply:
        """The node of a name. One that is not there is NotFound, or inode 0 where the kernel shall remember that."""
        parent = self._node(parent)
        if name.startswith(b"."):
            found = self._hidden(parent, name)
            if found is not None:
                return found
        since = self.meta.changes
        try:
            ino, attr = self.meta.lookup(who, parent, name, sure=True)  # the kernel is
        except NotFound:
            if self.options.negative_entry_cache_s > 0:
                return EntryReply(0, _NOWHERE, self.options.negative_entry_cache_s, 0.0)
            raise
        return self.entry(ino, attr, parent, since)

    def _hidden(self, parent: int, name: bytes) -> EntryReply | None:
        """What the mount itself knows: its own files, and where dots lead at its root (the kernel asks for NFS)."""
        if name in _DOTS:
            since = self.meta.changes
            ino, attr = self.meta.lookup(Caller.root(), parent, name if parent != self._root else b".")
            return self.entry(1 if ino == self._root else ino, attr, parent, since)
        found = None if self.internal is None else self.internal.lookup(parent, name)
        return None if found is None else EntryReply(*found, DAY_S, DAY_S)

    def peek_lookup(self, who: Caller, parent: int, name: bytes) -> EntryReply | None:
        """As lookup, without waiting."""
        parent = self._node(parent)
        if name.startswith(b"."):
            return None
        since = self.meta.changes
        found = self.meta.cached_child(who, parent, name)
        return None if found is None else self.entry(*found, parent, since)

    def _new(self, ino: int, attr: Attr, parent: int) -> EntryReply:
        return self.entry(ino, attr, parent, self.meta.changes)

    def forget(self, ino: int, count: int) -> None:
        """The kernel has dropped a node, and its pages with it; `count` look-ups are not referred to any more."""
        del count  # nodes are numbers: nothing is held for them
        self._seen.pop(ino, None)

    def readlink(self, who: Caller, ino: int) -> bytes:
        """The target of a symbolic link."""
        del who  # whoever sees a link may read it
        return self.meta.readlink(self._node(ino))

    def mknod(self, who: Caller, parent: int, name: bytes, mode: int, rdev: int = 0) -> EntryReply:
        """A new node of the type in `mode`; `rdev` is a device's number as the kernel encodes it."""
        parent = self._own(parent, name)
        kind = KINDS.get(mode & 0o170000 or 0o100000)
        if kind is None or kind in {Kind.DIRECTORY, Kind.SYMLINK}:
            raise Invalid(f"a node of mode {mode:o}")
        return self._new(*self.meta.mknod(who, parent, name, kind, mode & 0o7777, rdev=rdev), parent)

    def mkdir(self, who: Caller, parent: int, name: bytes, mode: int) -> EntryReply:
        """A new directory."""
        parent = self._own(parent, name)
        return self._new(*self.meta.mkdir(who, parent, name, mode & 0o7777), parent)

    def symlink(self, who: Caller, parent: int, name: bytes, target: bytes) -> EntryReply:
        """A new symbolic link."""
        parent = self._own(parent, name)
        return self._new(*self.meta.symlink(who, parent, name, target), parent)

    def link(self, who: Caller, ino: int, parent: int, name: bytes) -> EntryReply:
        """Another name for a file."""
        parent = self._own(parent, name)
        if self._internal(ino):
            raise NotPermitted("this file belongs to the mount")
        since = self.meta.changes
        return self.entry(ino, self.meta.link(who, ino, parent, name), parent, since)

    def unlink(self, who: Caller, parent: int, name: bytes) -> None:
        """Remove a name that is no directory's."""
        self.meta.unlink(who, self._own(parent, name), name)

    def rmdir(self, who: Caller, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        self.meta.rmdir(who, self._own(parent, name), name)

    def rename(self, who: Caller, parent: int, name: bytes, newparent: int, newname: bytes, flags: int = 0) -> None:
        """Move a name; `flags` as of renameat2(2), of which whiteouts are not made."""
        if flags & ~RENAME_FLAGS or flags == RENAME_FLAGS:
            raise Invalid(f"rename flags {flags}")
        parent, newparent = self._own(parent, name), self._own(newparent, newname)
        self.meta.rename(who, parent, name, newparent, newname, flags=RenameFlag(flags))

    def _own(self, parent: int, name: bytes) -> int:
        """The directory's inode, for a name that may be made or removed there."""
        parent = self._node(parent)
        if self.internal is not None and self.internal.reserves(parent, name):
            raise NotPermitted("the name is the mount's own", name)
        return parent

    def _internal(self, ino: int) -> bool:
        return self.internal is not None and self.internal.owns(ino)
