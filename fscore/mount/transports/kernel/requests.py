"""Requests of the kernel, one function each: decode the body, call the operation, encode the answer.

A function gets the worker that read the request (its buffer, the header's fields, the operations) and returns the whole
answer, or its header and the bytes behind it, or None where the kernel wants none. What it raises becomes an errno.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fscore.meta.ops.change import NOW
from fscore.mount.api import AttrRequest
from fscore.mount.transports.kernel import protocol as p
from fscore.mount.transports.kernel import requests_files as files
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.protocol import BODY, NANO, Opcode, Set
from fscore.mount.transports.kernel.work import Answer, Work


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


def statfs(work: Work) -> Answer:
    """STATFS."""
    work.wait()
    return wire.statfs_reply(work.unique, work.operations.statfs(work.node))


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


def access(work: Work) -> Answer:
    """ACCESS; asked only where the kernel does not check permissions itself."""
    work.wait()
    mask, _ = p.ACCESS_IN.unpack_from(work.buffer, BODY)
    work.operations.access(work.who(), work.node, mask)
    return wire.error(work.unique, 0)


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
    Opcode.OPEN: files.open,
    Opcode.READ: files.read,
    Opcode.WRITE: files.write,
    Opcode.STATFS: statfs,
    Opcode.RELEASE: files.release,
    Opcode.FSYNC: files.fsync,
    Opcode.SETXATTR: setxattr,
    Opcode.GETXATTR: getxattr,
    Opcode.LISTXATTR: listxattr,
    Opcode.REMOVEXATTR: removexattr,
    Opcode.FLUSH: files.flush,
    Opcode.OPENDIR: files.opendir,
    Opcode.READDIR: files.readdir,
    Opcode.RELEASEDIR: files.releasedir,
    Opcode.FSYNCDIR: files.fsyncdir,
    Opcode.GETLK: files.getlk,
    Opcode.SETLK: files.setlk,
    Opcode.SETLKW: files.setlkw,
    Opcode.ACCESS: access,
    Opcode.CREATE: files.create,
    Opcode.DESTROY: destroy,
    Opcode.BATCH_FORGET: batch_forget,
    Opcode.FALLOCATE: files.fallocate,
    Opcode.READDIRPLUS: files.readdirplus,
    Opcode.RENAME2: rename2,
    Opcode.LSEEK: files.lseek,
    Opcode.COPY_FILE_RANGE: files.copy_file_range,
    Opcode.COPY_FILE_RANGE_64: files.copy_file_range_64,
}
"""What is missing here is answered with ENOSYS: the kernel does without it, or tells the program so (O_TMPFILE)."""
