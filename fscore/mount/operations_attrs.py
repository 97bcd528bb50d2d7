"""Requests about nodes as such: attributes, permissions, totals, extended attributes."""

from __future__ import annotations

import os
from typing import Final

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.errors import Invalid, NoAttribute, NotFound, NotImplementedHere, NotPermitted, OutOfRange, ReadOnly
from fscore.domain.ids import ROOT
from fscore.meta.ops.acl import XattrMode
from fscore.meta.ops.change import AttrChange
from fscore.mount.api import DAY_S, AttrReply, AttrRequest, StatfsReply
from fscore.mount.operations_names import NameOperations
from fscore.vfs.internal import FIRST

BLOCK: Final = 4096
XATTR_MODES: Final[dict[int, XattrMode]] = {0: "set", os.XATTR_CREATE: "create", os.XATTR_REPLACE: "replace"}
CAPABILITY: Final = b"security.capability"


class AttrOperations(NameOperations):
    """Synchronous; any may raise FsError (its errno is the answer) or StoreError (EIO)."""

    def getattr(self, who: Caller, ino: int, fh: int | None = None) -> AttrReply:
        """Attributes, with what this process has not committed yet."""
        del who, fh
        ino = self._node(ino)
        if self.internal is not None and self.internal.owns(ino):
            return AttrReply(ino, self.internal.getattr(ino), DAY_S)
        since = self.meta.changes
        return self.attr(ino, self.meta.getattr(ino), since)

    def peek_getattr(self, who: Caller, ino: int, fh: int | None = None) -> AttrReply | None:
        """As getattr, without waiting."""
        del who, fh
        ino = self._node(ino)
        since = self.meta.changes
        attr = self.meta.cached_node(ino)
        return None if attr is None else self.attr(ino, attr, since)

    def setattr(self, who: Caller, ino: int, request: AttrRequest) -> AttrReply:
        """Change what the request names: the length first, then everything else in one transaction."""
        ino = self._node(ino)
        if self._internal(ino):
            raise NotPermitted("this file belongs to the mount")
        since, attr = self.meta.changes, None
        if request.size is not None:
            attr = self._resize(who, ino, request, request.size)
        change = AttrChange(
            mode=request.mode,
            uid=request.uid,
            gid=request.gid,
            atime_ns=request.atime_ns,
            mtime_ns=request.mtime_ns,
        )
        if change != AttrChange():
            if change.mtime_ns is not None or change.atime_ns is not None:
                self.vfs.settle(ino)  # a later commit would bring the time of its writes
            attr = self.meta.setattr(who, ino, change)
            if change.uid is not None or change.gid is not None:
                self._drop_capability(ino)
        return self.attr(ino, self.meta.getattr(ino) if attr is None else attr, since)

    def _resize(self, who: Caller, ino: int, request: AttrRequest, size: int) -> Attr:
        if self.options.read_only:
            raise ReadOnly("the mount is read-only")
        if self.passthrough is not None:
            self.passthrough.admit(ino, os.O_WRONLY)
        attr = self.vfs.truncate(who, ino, size) if request.fh is None else self.vfs.truncate_open(request.fh, size)
        if request.kill_privileges:
            attr = self.meta.strip_privileges(ino, attr)
        self._drop_capability(ino)
        return attr

    def access(self, who: Caller, ino: int, mask: int) -> None:
        """Denied unless the caller has every permission of `mask`."""
        ino = self._node(ino)
        if not self._internal(ino):
            self.meta.access(who, ino, mask)

    def statfs(self, ino: int = 1) -> StatfsReply:
        """Totals of the volume, or what the quotas above a node leave of them."""
        ino = self._node(ino)
        found = self.meta.statfs(ROOT if self._internal(ino) else ino)
        free = found.avail // BLOCK
        blocks = max(free + found.used // BLOCK, 1)
        return StatfsReply(BLOCK, blocks, free, found.inodes_used + found.inodes_free, found.inodes_free)

    def getxattr(self, who: Caller, ino: int, name: bytes, size: int = 0) -> bytes:
        """The value of an extended attribute; OutOfRange when it is longer than `size`, unless that is 0."""
        del who
        self._check_xattr()
        ino = self._node(ino)
        if ino > FIRST:
            raise NoAttribute(repr(name))
        return _fitting(self.meta.getxattr(ino, name), size)

    def listxattr(self, who: Caller, ino: int, size: int = 0) -> bytes:
        """Names, each with a NUL behind it; OutOfRange when they are longer than `size`, unless that is 0."""
        del who
        self._check_xattr()
        ino = self._node(ino)
        if ino > FIRST:
            return b""
        return _fitting(b"".join(name + b"\0" for name in self.meta.listxattr(ino)), size)

    def setxattr(self, who: Caller, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Create or replace an extended attribute; `flags` as of setxattr(2)."""
        self._check_xattr()
        mode = XATTR_MODES.get(flags)
        if mode is None:
            raise Invalid(f"setxattr flags {flags}")
        self.meta.setxattr(who, self._plain(ino), name, value, mode=mode)

    def removexattr(self, who: Caller, ino: int, name: bytes) -> None:
        """Remove an extended attribute."""
        self._check_xattr()
        self.meta.removexattr(who, self._plain(ino), name)

    def _check_xattr(self) -> None:
        if not self._xattrs:
            raise NotImplementedHere("extended attributes are off; --enable-xattr turns them on")

    def _plain(self, ino: int) -> int:
        ino = self._node(ino)
        if ino > FIRST:
            raise NotPermitted("this file belongs to the mount")
        return ino

    @property
    def _xattrs(self) -> bool:
        return self.options.enable_xattr or self.meta.setting.enable_acl

    def _drop_capability(self, ino: int) -> None:
        """A file's capability goes with whatever changes its bytes or its owner: the kernel leaves that to us."""
        if not self._xattrs:
            return
        try:
            self.meta.getxattr(ino, CAPABILITY)
            self.meta.removexattr(Caller.root(), ino, CAPABILITY)
        except (NoAttribute, NotFound):
            return


def _fitting(value: bytes, size: int) -> bytes:
    if size and len(value) > size:
        raise OutOfRange(f"{len(value)} bytes do not fit into {size}")
    return value
