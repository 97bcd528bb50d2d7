"""The requests of pyfuse3 as calls of `Operations`, and replies and errors as pyfuse3 wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec
import pyfuse3
import trio

from fscore.domain.attr import S_IFMT, Attr, Entry
from fscore.domain.caller import Caller
from fscore.meta.ops.change import NOW
from fscore.mount.api import AttrReply, AttrRequest, Callers, EntryReply, OpenReply
from fscore.mount.operations import Operations
from fscore.mount.operations_files import PRIVILEGED
from fscore.mount.options import MountOptions
from fscore.runtime import log
from fscore.runtime.buffer import Buffer
from fscore.vfs.internal import FIRST_HANDLE

T = TypeVar("T")

FIRST_BATCH: Final = 32
_DOTS: Final = frozenset({b".", b".."})

logger = log.get(__name__)


class Requests(pyfuse3.Operations):
    """pyfuse3's requests as calls of `Operations`, and its replies and errors as pyfuse3 wants them."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, operations: Operations, options: MountOptions) -> None:
        super().__init__()
        self.ops: Final = operations
        self._kernel_checks = options.default_permissions
        self._callers = Callers()
        self._listings: dict[int, _Listing] = {}
        self._openers: dict[int, tuple[Caller, int]] = {}
        self.enable_acl = operations.meta.setting.enable_acl

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """A name's node."""
        return _entry(await self._ask(self._who(ctx), self.ops.lookup, parent_inode, name, peek=self.ops.peek_lookup))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel dropped nodes."""
        for ino, count in inode_list:
            self.ops.forget(ino, count)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """A node's attributes."""
        return _attr(await self._ask(self._who(ctx), self.ops.getattr, inode, None, peek=self.ops.peek_getattr))

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Change attributes."""
        who = self._who(ctx)
        request = AttrRequest(
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            fh=fh,
            kill_privileges=bool(who.uid) and fields.update_size,
        )
        if self._kernel_checks and who.uid and (fields.update_mode or (fields.update_atime and fields.update_mtime)):
            found = await self._ask(who, self.ops.getattr, inode, None, peek=self.ops.peek_getattr)
            if found.attr.uid != who.uid:
                who, request = _let_through(who, request, found.attr)
        return _attr(await self._ask(who, self.ops.setattr, inode, request))

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Where a symbolic link points."""
        return await self._ask(self._who(ctx), self.ops.readlink, inode)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A new node."""
        return _entry(await self._ask(self._who(ctx), self.ops.mknod, parent_inode, name, mode, rdev))

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A new directory."""
        return _entry(await self._ask(self._who(ctx), self.ops.mkdir, parent_inode, name, mode))

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A new symbolic link."""
        return _entry(await self._ask(self._who(ctx), self.ops.symlink, parent_inode, name, target))

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Another name."""
        return _entry(await self._ask(self._who(ctx), self.ops.link, inode, new_parent_inode, new_name))

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name."""
        await self._ask(self._who(ctx), self.ops.unlink, parent_inode, name)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a directory."""
        await self._ask(self._who(ctx), self.ops.rmdir, parent_inode, name)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Move a name."""
        await self._ask(self._who(ctx), self.ops.rename, parent_inode_old, name_old, parent_inode_new, name_new, flags)

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Whether the caller may; asked only where the kernel does not check by itself."""
        await self._ask(self._who(ctx), self.ops.access, inode, mode)
        return True

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Totals."""
        found = await self._ask(self._who(ctx), lambda _who: self.ops.statfs())
        reply = pyfuse3.StatvfsData()
        reply.f_bsize = reply.f_frsize = found.block_size
        reply.f_blocks, reply.f_bfree, reply.f_bavail = found.blocks, found.blocks_free, found.blocks_free
        reply.f_files, reply.f_ffree, reply.f_favail = found.files, found.files_free, found.files_free
        reply.f_namemax = found.name_max
        return reply

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """An extended attribute."""
        return await self._ask(self._who(ctx), self.ops.getxattr, inode, name)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """The names of the extended attributes."""
        names = await self._ask(self._who(ctx), self.ops.listxattr, inode)
        return names.split(b"\0")[:-1]

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Set an extended attribute; pyfuse3 has checked the flags of setxattr(2) by asking before."""
        await self._ask(self._who(ctx), self.ops.setxattr, inode, name, value)

    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an extended attribute."""
        await self._ask(self._who(ctx), self.ops.removexattr, inode, name)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file."""
        who = self._who(ctx)
        return self._opened(who, inode, await self._ask(who, self.ops.open, inode, flags))

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a file and open it."""
        who = self._who(ctx)
        entry, opened = await self._ask(who, self.ops.create, parent_inode, name, mode, flags)
        return self._opened(who, entry.ino, opened), _entry(entry)

    async def read(self, fh: int, off: int, size: int) -> Buffer:
        """Bytes."""
        who, ino = self._opener(fh)
        return await self._ask(who, self.ops.read, ino, fh, off, size, peek=self.ops.peek_read)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Take bytes. Who is not root takes setuid and setgid from a file by writing to it."""
        who, ino = self._opener(fh)
        return await self._ask(who, self._write_as if who.uid else self.ops.write, ino, fh, off, buf)

    def _write_as(self, who: Caller, ino: int, fh: int, offset: int, data: bytes) -> int:
        lost = fh < FIRST_HANDLE and self.ops.vfs.attr_of(fh).mode & PRIVILEGED
        count = self.ops.write(who, ino, fh, offset, data, kill_privileges=True)
        if lost:  # the kernel goes on with the mode it knows; of attributes alone it can be told within a write
            unless_unknown(partial(pyfuse3.invalidate_inode, ino, attr_only=True))
        return count

    async def flush(self, fh: int) -> None:
        """A descriptor was closed."""
        who, ino = self._opener(fh)
        await self._ask(who, self.ops.flush, ino, fh, 0)

    async def release(self, fh: int) -> None:
        """The last one of an open was closed."""
        who, ino = self._opener(fh)
        try:
            await self._ask(who, self.ops.release, ino, fh)
        finally:
            self._openers.pop(fh, None)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file durable."""
        who, ino = self._opener(fh)
        await self._ask(who, self.ops.fsync, ino, fh)

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory."""
        who = self._who(ctx)
        opened = await self._ask(who, self.ops.opendir, inode, 0, peek=self.ops.peek_opendir)
        self._listings[opened.fh] = _Listing(who, inode)
        return opened.fh

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List as many entries as the kernel has room for."""
        listing = self._listings[fh]
        offset, full = start_id, False
        while not full:
            readdir, since = partial(self.ops.readdir, plus=True), self.ops.meta.changes
            entries = await self._ask(listing.who, readdir, listing.ino, fh, offset, listing.batch)
            for entry in entries:
                reply = await self._listed(listing, entry, since)
                if reply is not None and not pyfuse3.readdir_reply(token, entry.name, reply, offset + 1):
                    full = True
                    break
                offset += 1
            if not entries:
                break
        listing.batch = max(FIRST_BATCH, offset - start_id + 8)

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        listing = self._listings.pop(fh)
        await self._ask(listing.who, self.ops.releasedir, listing.ino, fh)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make names durable."""
        listing = self._listings[fh]
        await self._ask(listing.who, self.ops.fsyncdir, listing.ino, fh)

    async def _listed(self, listing: _Listing, entry: Entry, since: int) -> pyfuse3.EntryAttributes | None:
        """An entry's attributes; None for one that is gone by now."""
        if entry.name in _DOTS:  # the kernel takes no node from these
            reply = pyfuse3.EntryAttributes()
            reply.st_ino, reply.st_mode, reply.entry_timeout, reply.attr_timeout = entry.ino, S_IFMT[entry.kind], 0, 0
            return reply
        if entry.attr is not None:
            return _entry(self.ops.entry(entry.ino, entry.attr, listing.ino, since))
        try:
            return _entry(await self._ask(listing.who, self.ops.lookup, listing.ino, entry.name))
        except pyfuse3.FUSEError:
            return None

    async def _ask(
        self, who: Caller, call: Callable[..., T], *args: object, peek: Callable[..., T | None] | None = None
    ) -> T:
        """Call an operation: its twin that never waits first, where there is one, else on a worker thread."""
        try:
            found = None if peek is None else peek(who, *args)
            return await trio.to_thread.run_sync(call, who, *args) if found is None else found
        except Exception as error:  # noqa: BLE001 - whatever it is, the program that waits gets a number
            raise pyfuse3.FUSEError(self.ops.number(error)) from None

    def _who(self, ctx: pyfuse3.RequestContext) -> Caller:
        return self._callers.of(ctx.uid, ctx.gid, ctx.pid)

    def _opener(self, fh: int) -> tuple[Caller, int]:
        """Who opened a handle, and of which node: pyfuse3 does not say it again."""
        return self._openers.get(fh) or (Caller.root(), 0)

    def _opened(self, who: Caller, ino: int, opened: OpenReply) -> pyfuse3.FileInfo:
        self._openers[opened.fh] = who, ino
        return pyfuse3.FileInfo(fh=opened.fh, direct_io=opened.direct_io, keep_cache=opened.keep_cache)


class _Listing:
    __slots__ = ("batch", "ino", "who")

    def __init__(self, who: Caller, ino: int) -> None:
        self.who = who
        self.ino = ino
        self.batch = FIRST_BATCH


def _let_through(who: Caller, request: AttrRequest, attr: Attr) -> tuple[Caller, AttrRequest]:
    """What the kernel means by a change for which only the owner could ask, when it is not the owner who asks.

    Times are "now", which pyfuse3 does not tell apart. A mode that loses setuid or setgid is the kernel taking them
    from a file that somebody else writes to.
    """
    if request.atime_ns is not None and request.mtime_ns is not None:
        request = msgspec.structs.replace(request, atime_ns=NOW, mtime_ns=NOW)
    if request.mode is not None and request.mode == attr.mode & ~PRIVILEGED | request.mode & PRIVILEGED & attr.mode:
        who = Caller.root()
    return who, request


def _entry(found: EntryReply) -> pyfuse3.EntryAttributes:
    reply = _filled(found.ino, found.attr)
    reply.entry_timeout, reply.attr_timeout = found.entry_ttl_s, found.attr_ttl_s
    return reply


def _attr(found: AttrReply) -> pyfuse3.EntryAttributes:
    reply = _filled(found.ino, found.attr)
    reply.attr_timeout = found.ttl_s
    return reply


def _filled(ino: int, attr: Attr) -> pyfuse3.EntryAttributes:
    reply = pyfuse3.EntryAttributes()
    reply.st_ino, reply.st_mode, reply.st_nlink = ino, attr.st_mode, attr.nlink
    reply.st_uid, reply.st_gid, reply.st_rdev = attr.uid, attr.gid, attr.rdev
    reply.st_size, reply.st_blocks = attr.length, (attr.length + 511) // 512
    reply.st_atime_ns, reply.st_mtime_ns, reply.st_ctime_ns = attr.atime_ns, attr.mtime_ns, attr.ctime_ns
    return reply


def unless_unknown(notice: Callable[[], None]) -> None:
    """Tell the kernel; that it does not know the node any more is as good."""
    try:
        notice()
    except OSError as error:
        logger.debug("the kernel does not know what it should forget: %s", error)
