"""Requests about open files, directories and locks: decode the body, call the operation, encode the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fscore.domain.errors import WouldBlock
from fscore.domain.locks import EOF, LockKind
from fscore.mount.api import LockRequest, OpenReply
from fscore.mount.transports.kernel import protocol as p
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.protocol import BODY, Fopen
from fscore.mount.transports.kernel.work import Answer, Work

# The kernel's types of locks are those of fcntl(2).
KINDS: Final = {0: LockKind.READ, 1: LockKind.WRITE, 2: LockKind.UNLOCK}
NAME: Final = 16
"""A guess at the usual name: more entries than fit into an answer are fetched for nothing."""
TYPES: Final = {kind: number for number, kind in KINDS.items()}


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
