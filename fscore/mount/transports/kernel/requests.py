"""Requests of the kernel, one function each: decode the body, call the operation, encode the answer.

A function gets the worker that read the request (its buffer, the header's fields, the operations) and returns the whole
answer, or its header and the bytes behind it, or None where the kernel wants none. What it raises becomes an errno.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fscore.domain.caller import Caller
from fscore.domain.errors import WouldBlock
from fscore.domain.locks import EOF, LockKind
from fscore.meta.ops.change import NOW
from fscore.mount.api import AttrRequest, LockRequest, OpenReply
from fscore.mount.operations import Operations
from fscore.mount.transports.kernel import protocol as p
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.protocol import BODY, NANO, Fopen, Opcode, Set
from fscore.runtime.buffer import Buffer

Answer = bytes | tuple[bytes, Buffer] | None


class Work(Protocol):
    """What a request's function sees of the worker that read it."""

    buffer: bytearray
    length: int
    unique: int
    node: int
    operations: Operations
    lifetimes: wire.Lifetimes
    fixed_lifetimes: wire.Lifetimes

    def who(self, umask: int = 0) -> Caller:
        """Who asks."""
        ...

    def name(self, start: int = 0) -> bytes:
        """The name at that place of the body."""
        ...

    def names(self, start: int) -> tuple[bytes, bytes]:
        """The two names at that place of the body."""
        ...

    def wait(self) -> None:
        """From here on the request may wait: see that others are served."""
        ...

    def later(self, attempt: Callable[[], None]) -> None:
        """Try again until it succeeds or the program gives up, and answer then."""
        ...


# The kernel's types of locks are those of fcntl(2).
KINDS: Final = {0: LockKind.READ, 1: LockKind.WRITE, 2: LockKind.UNLOCK}
NAME: Final = 16
"""A guess at the usual name: more entries than fit into an answer are fetched for nothing."""
TYPES: Final = {kind: number for number, kind in KINDS.items()}


def lookup(work: Work) -> Answer:
    """LOOKUP."""
    who, name = work.who(), work.name()
    reply = work.operations.peek_lookup(who, work.node, name)
    if reply is None:
        work.wait()
        reply = work.operations.lookup(who, work.node, name)
    return wire.entry_reply(work.unique, reply)


def forget(work: Work) -> Answer:
    """FORGET."""
    work.operations.forget(work.node, p.FORGET_IN.unpack_from(work.buffer, BODY)[0])
    return None


def batch_forget(work: Work) -> Answer:
    """BATCH_FORGET."""
    count, _ = p.BATCH_FORGET_IN.unpack_from(work.buffer, BODY)
    start = BODY + p.BATCH_FORGET_IN.size
    body = memoryview(work.buffer)[start : start + count * p.FORGET_ONE.size]
    for node, lookups in p.FORGET_ONE.iter_unpack(body):
        work.operations.forget(node, lookups)
    return None


def getattr(work: Work) -> Answer:  # noqa: A001 - the request's name
    """GETATTR."""
    who = work.who()
    reply = work.operations.peek_getattr(who, work.node)
    if reply is None:
        work.wait()
        reply = work.operations.getattr(who, work.node)
    return wire.attr_reply(work.unique, reply)


def setattr(work: Work) -> Answer:  # noqa: A001 - the request's name
    """SETATTR: one request for what chmod, chown, truncate and utimensat ask, and for all of them at once."""
    work.wait()
    request = attr_request(p.SETATTR_IN.unpack_from(work.buffer, BODY))
    return wire.attr_reply(work.unique, work.operations.setattr(work.who(), work.node, request))


def attr_request(body: tuple[int, ...]) -> AttrRequest:
    """Decode SETATTR."""
    valid, _, fh, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = body
    return AttrRequest(
        mode=mode & 0o7777 if valid & Set.MODE else None,
        uid=uid if valid & Set.UID else None,
        gid=gid if valid & Set.GID else None,
        size=size if valid & Set.SIZE else None,
        atime_ns=_moment(atime, atime_ns, now=valid & Set.ATIME_NOW) if valid & Set.ATIME else None,
        mtime_ns=_moment(mtime, mtime_ns, now=valid & Set.MTIME_NOW) if valid & Set.MTIME else None,
        fh=fh if valid & Set.FH else None,
        kill_privileges=bool(valid & Set.KILL_SUIDGID),
    )


def _moment(seconds: int, nanoseconds: int, *, now: int) -> int:
    return NOW if now else seconds * NANO + nanoseconds


def readlink(work: Work) -> Answer:
    """READLINK."""
    work.wait()
    target = work.operations.readlink(work.who(), work.node)
    return wire.head(work.unique, len(target)) + target


def symlink(work: Work) -> Answer:
    """SYMLINK: the name, then the target."""
    work.wait()
    name, target = work.names(0)
    return wire.entry_reply(work.unique, work.operations.symlink(work.who(), work.node, name, target))


def mknod(work: Work) -> Answer:
    """MKNOD."""
    work.wait()
    mode, rdev, umask, _ = p.MKNOD_IN.unpack_from(work.buffer, BODY)
    name = work.name(p.MKNOD_IN.size)
    return wire.entry_reply(work.unique, work.operations.mknod(work.who(umask), work.node, name, mode, rdev))


def mkdir(work: Work) -> Answer:
    """MKDIR."""
    work.wait()
    mode, umask = p.MKDIR_IN.unpack_from(work.buffer, BODY)
    name = work.name(p.MKDIR_IN.size)
    return wire.entry_reply(work.unique, work.operations.mkdir(work.who(umask), work.node, name, mode))


def unlink(work: Work) -> Answer:
    """UNLINK."""
    work.wait()
    work.operations.unlink(work.who(), work.node, work.name())
    return wire.error(work.unique, 0)


def rmdir(work: Work) -> Answer:
    """RMDIR."""
    work.wait()
    work.operations.rmdir(work.who(), work.node, work.name())
    return wire.error(work.unique, 0)


def rename(work: Work) -> Answer:
    """RENAME."""
    (newdir,) = p.RENAME_IN.unpack_from(work.buffer, BODY)
    return _rename(work, newdir, p.RENAME_IN.size, 0)


def rename2(work: Work) -> Answer:
    """RENAME2, which has flags."""
    newdir, flags, _ = p.RENAME2_IN.unpack_from(work.buffer, BODY)
    return _rename(work, newdir, p.RENAME2_IN.size, flags)


def _rename(work: Work, newdir: int, start: int, flags: int) -> Answer:
    work.wait()
    old, new = work.names(start)
    work.operations.rename(work.who(), work.node, old, newdir, new, flags)
    return wire.error(work.unique, 0)


def link(work: Work) -> Answer:
    """LINK."""
    work.wait()
    (ino,) = p.LINK_IN.unpack_from(work.buffer, BODY)
    reply = work.operations.link(work.who(), ino, work.node, work.name(p.LINK_IN.size))
    return wire.entry_reply(work.unique, reply)


def open(work: Work) -> Answer:  # noqa: A001 - the request's name
    """OPEN."""
    work.wait()
    flags, _ = p.OPEN_IN.unpack_from(work.buffer, BODY)
    reply = work.operations.open(work.who(), work.node, flags)
    return wire.open_reply(work.unique, reply.fh, fopen(reply), reply.backing_id)


def create(work: Work) -> Answer:
    """CREATE: make and open in one request."""
    work.wait()
    flags, mode, umask, _ = p.CREATE_IN.unpack_from(work.buffer, BODY)
    name = work.name(p.CREATE_IN.size)
    entry, reply = work.operations.create(work.who(umask), work.node, name, mode, flags)
    return wire.create_reply(work.unique, entry, reply.fh, fopen(reply), reply.backing_id)


def fopen(reply: OpenReply) -> int:
    """The flags of an open's answer."""
    flags = 0
    if reply.direct_io:
        flags |= Fopen.DIRECT_IO
    if reply.keep_cache:
        flags |= Fopen.KEEP_CACHE
    if reply.cache_dir:
        flags |= Fopen.CACHE_DIR
    if reply.no_flush:
        flags |= Fopen.NOFLUSH
    if reply.backing_id:
        flags |= Fopen.PASSTHROUGH
    return int(flags)


def read(work: Work) -> Answer:
    """READ."""
    fh, offset, size, _, _, _, _ = p.READ_IN.unpack_from(work.buffer, BODY)
    who = work.who()
    data = work.operations.peek_read(who, work.node, fh, offset, size)
    if data is None:
        work.wait()
        data = work.operations.read(who, work.node, fh, offset, size)
    return wire.head(work.unique, len(data)), data


def write(work: Work) -> Answer:
    """WRITE. The bytes lie in the worker's buffer, which is used again: whoever keeps them copies them."""
    work.wait()
    fh, offset, size, flags, _, _, _ = p.WRITE_IN.unpack_from(work.buffer, BODY)
    start = BODY + p.WRITE_IN.size
    with memoryview(work.buffer) as view:
        data = view[start : start + size]
        kill = bool(flags & p.WRITE_KILL_SUIDGID)
        done = work.operations.write(work.who(), work.node, fh, offset, data, kill_privileges=kill)
        data.release()
    return wire.write_reply(work.unique, done)


def statfs(work: Work) -> Answer:
    """STATFS."""
    work.wait()
    return wire.statfs_reply(work.unique, work.operations.statfs(work.node))


def release(work: Work) -> Answer:
    """RELEASE."""
    work.wait()
    fh, _, flags, owner = p.RELEASE_IN.unpack_from(work.buffer, BODY)
    unlock = bool(flags & p.RELEASE_FLOCK_UNLOCK)
    work.operations.release(work.who(), work.node, fh, owner, unlock=unlock)
    return wire.error(work.unique, 0)


def flush(work: Work) -> Answer:
    """FLUSH: a descriptor is closed."""
    work.wait()
    fh, _, _, owner = p.FLUSH_IN.unpack_from(work.buffer, BODY)
    work.operations.flush(work.who(), work.node, fh, owner)
    return wire.error(work.unique, 0)


def fsync(work: Work) -> Answer:
    """FSYNC."""
    work.wait()
    fh, flags, _ = p.FSYNC_IN.unpack_from(work.buffer, BODY)
    work.operations.fsync(work.who(), work.node, fh, data_only=bool(flags & p.FSYNC_DATA_ONLY))
    return wire.error(work.unique, 0)


def setxattr(work: Work) -> Answer:
    """SETXATTR: the name, then the value."""
    work.wait()
    size, flags = p.SETXATTR_IN.unpack_from(work.buffer, BODY)
    name = work.name(p.SETXATTR_IN.size)
    start = BODY + p.SETXATTR_IN.size + len(name) + 1
    value = bytes(work.buffer[start : start + size])
    work.operations.setxattr(work.who(), work.node, name, value, flags)
    return wire.error(work.unique, 0)


def getxattr(work: Work) -> Answer:
    """GETXATTR; a size of 0 asks how long the value is."""
    work.wait()
    size, _ = p.GETXATTR_IN.unpack_from(work.buffer, BODY)
    name = work.name(p.GETXATTR_IN.size)
    return _sized(work, size, work.operations.getxattr(work.who(), work.node, name, size))


def listxattr(work: Work) -> Answer:
    """LISTXATTR; a size of 0 asks how long the list is."""
    work.wait()
    size, _ = p.GETXATTR_IN.unpack_from(work.buffer, BODY)
    return _sized(work, size, work.operations.listxattr(work.who(), work.node, size))


def _sized(work: Work, size: int, value: bytes) -> Answer:
    return wire.head(work.unique, len(value)) + value if size else wire.size_reply(work.unique, len(value))


def removexattr(work: Work) -> Answer:
    """REMOVEXATTR."""
    work.wait()
    work.operations.removexattr(work.who(), work.node, work.name())
    return wire.error(work.unique, 0)


def opendir(work: Work) -> Answer:
    """OPENDIR."""
    flags, _ = p.OPEN_IN.unpack_from(work.buffer, BODY)
    who = work.who()
    reply = work.operations.peek_opendir(who, work.node, flags)
    if reply is None:
        work.wait()
        reply = work.operations.opendir(who, work.node, flags)
    return wire.open_reply(work.unique, reply.fh, fopen(reply), 0)


def readdir(work: Work) -> Answer:
    """READDIR."""
    work.wait()
    fh, offset, size, _, _, _, _ = p.READ_IN.unpack_from(work.buffer, BODY)
    most = size // (p.DIRENT.size + NAME) + 1
    entries = work.operations.readdir(work.who(), work.node, fh, offset, most)
    body = wire.dirents(entries, offset, size)
    return wire.head(work.unique, len(body)), body


def readdirplus(work: Work) -> Answer:
    """READDIRPLUS: names with what looking them up would answer."""
    work.wait()
    fh, offset, size, _, _, _, _ = p.READ_IN.unpack_from(work.buffer, BODY)
    most = size // (p.DIRENTPLUS.size + NAME) + 1
    page = work.operations.readdirplus(work.who(), work.node, fh, offset, most)
    lifetimes = work.fixed_lifetimes if page.fixed else work.lifetimes
    body = wire.direntsplus(page.entries, page.attrs, offset, size, lifetimes)
    return wire.head(work.unique, len(body)), body


def releasedir(work: Work) -> Answer:
    """RELEASEDIR."""
    fh, _, _, _ = p.RELEASE_IN.unpack_from(work.buffer, BODY)
    work.operations.releasedir(work.who(), work.node, fh)
    return wire.error(work.unique, 0)


def fsyncdir(work: Work) -> Answer:
    """FSYNCDIR."""
    work.wait()
    fh, flags, _ = p.FSYNC_IN.unpack_from(work.buffer, BODY)
    work.operations.fsyncdir(work.who(), work.node, fh, data_only=bool(flags & p.FSYNC_DATA_ONLY))
    return wire.error(work.unique, 0)


def getlk(work: Work) -> Answer:
    """GETLK."""
    work.wait()
    request, _ = _lock_request(work)
    found = work.operations.getlk(work.who(), work.node, request)
    if found is None:
        return wire.lk_reply(work.unique, request.start, request.end, TYPES[LockKind.UNLOCK], 0)
    return wire.lk_reply(work.unique, found.start, found.end, TYPES[found.kind], found.pid)


def setlk(work: Work) -> Answer:
    """SETLK: lock or unlock, at once or not at all."""
    work.wait()
    _setlk(work)()
    return wire.error(work.unique, 0)


def setlkw(work: Work) -> Answer:
    """SETLKW: lock, and wait for it, on nobody else's time."""
    work.wait()
    attempt = _setlk(work)
    try:
        attempt()
    except WouldBlock:
        work.later(attempt)
        return None
    return wire.error(work.unique, 0)


def _setlk(work: Work) -> Callable[[], None]:
    operations, who, node = work.operations, work.who(), work.node
    request, flags = _lock_request(work)
    if flags & p.LK_FLOCK:
        return lambda: operations.flock(who, node, request.owner, request.kind)
    return lambda: operations.setlk(who, node, request)


def _lock_request(work: Work) -> tuple[LockRequest, int]:
    _, owner, start, end, kind, pid, flags, _ = p.LK_IN.unpack_from(work.buffer, BODY)
    return LockRequest(owner, KINDS[kind], start, min(end, EOF), pid), flags


def access(work: Work) -> Answer:
    """ACCESS; asked only where the kernel does not check permissions itself."""
    work.wait()
    mask, _ = p.ACCESS_IN.unpack_from(work.buffer, BODY)
    work.operations.access(work.who(), work.node, mask)
    return wire.error(work.unique, 0)


def fallocate(work: Work) -> Answer:
    """FALLOCATE."""
    work.wait()
    fh, offset, length, mode, _ = p.FALLOCATE_IN.unpack_from(work.buffer, BODY)
    work.operations.fallocate(work.who(), work.node, fh, mode, offset, length)
    return wire.error(work.unique, 0)


def lseek(work: Work) -> Answer:
    """LSEEK, for data and holes."""
    work.wait()
    fh, offset, whence, _ = p.LSEEK_IN.unpack_from(work.buffer, BODY)
    return wire.u64_reply(work.unique, work.operations.lseek(work.who(), work.node, fh, offset, whence))


def copy_file_range(work: Work) -> Answer:
    """COPY_FILE_RANGE."""
    return wire.write_reply(work.unique, _copied(work))


def copy_file_range_64(work: Work) -> Answer:
    """COPY_FILE_RANGE_64, whose answer has room for large numbers."""
    return wire.u64_reply(work.unique, _copied(work))


def _copied(work: Work) -> int:
    work.wait()
    fh_in, off_in, _, fh_out, off_out, length, flags = p.COPY_IN.unpack_from(work.buffer, BODY)
    return work.operations.copy_file_range(work.who(), fh_in, off_in, fh_out, off_out, length, flags)


def destroy(work: Work) -> Answer:
    """DESTROY: the last request."""
    work.operations.destroy()
    return wire.error(work.unique, 0)


HANDLERS: Final[dict[int, Callable[[Work], Answer]]] = {
    Opcode.LOOKUP: lookup,
    Opcode.FORGET: forget,
    Opcode.GETATTR: getattr,
    Opcode.SETATTR: setattr,
    Opcode.READLINK: readlink,
    Opcode.SYMLINK: symlink,
    Opcode.MKNOD: mknod,
    Opcode.MKDIR: mkdir,
    Opcode.UNLINK: unlink,
    Opcode.RMDIR: rmdir,
    Opcode.RENAME: rename,
    Opcode.LINK: link,
    Opcode.OPEN: open,
    Opcode.READ: read,
    Opcode.WRITE: write,
    Opcode.STATFS: statfs,
    Opcode.RELEASE: release,
    Opcode.FSYNC: fsync,
    Opcode.SETXATTR: setxattr,
    Opcode.GETXATTR: getxattr,
    Opcode.LISTXATTR: listxattr,
    Opcode.REMOVEXATTR: removexattr,
    Opcode.FLUSH: flush,
    Opcode.OPENDIR: opendir,
    Opcode.READDIR: readdir,
    Opcode.RELEASEDIR: releasedir,
    Opcode.FSYNCDIR: fsyncdir,
    Opcode.GETLK: getlk,
    Opcode.SETLK: setlk,
    Opcode.SETLKW: setlkw,
    Opcode.ACCESS: access,
    Opcode.CREATE: create,
    Opcode.DESTROY: destroy,
    Opcode.BATCH_FORGET: batch_forget,
    Opcode.FALLOCATE: fallocate,
    Opcode.READDIRPLUS: readdirplus,
    Opcode.RENAME2: rename2,
    Opcode.LSEEK: lseek,
    Opcode.COPY_FILE_RANGE: copy_file_range,
    Opcode.COPY_FILE_RANGE_64: copy_file_range_64,
}
"""What is missing here is answered with ENOSYS: the kernel does without it, or tells the program so (O_TMPFILE)."""
