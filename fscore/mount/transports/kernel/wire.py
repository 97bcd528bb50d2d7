"""The FUSE protocol as bytes: INIT in, replies and notices out. Pure; numbers and layouts are in `protocol`.

A reply is packed together with its header in one call: it is the hot path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fscore.domain.attr import S_IFMT, Attr, Entry
from fscore.mount.api import AttrReply, EntryReply, StatfsReply
from fscore.mount.transports.kernel.protocol import (
    ATTR_REPLY,
    BLOCK_SIZE,
    CREATE_REPLY,
    DIRENT,
    DIRENTPLUS,
    ENTRY_REPLY,
    GENERATION,
    INIT_FLAGS2,
    INIT_IN,
    INIT_REPLY,
    INVAL_ENTRY,
    INVAL_INODE,
    LK_REPLY,
    MAJOR,
    NANO,
    NOTIFY_INVAL_ENTRY,
    NOTIFY_INVAL_INODE,
    OPEN_REPLY,
    OUT,
    SIZE_REPLY,
    STATFS_REPLY,
    U64_REPLY,
    WRITE_REPLY,
    Init,
)
from fscore.runtime.buffer import Buffer


class Hello(NamedTuple):
    """What the kernel says in INIT; `flags` are all 64."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class Lifetimes(NamedTuple):
    """How long the kernel may believe the entries of one listing, as (seconds, nanoseconds)."""

    entry: tuple[int, int]
    dir_entry: tuple[int, int]
    attr: tuple[int, int]
    fixed_entry: tuple[int, int]
    fixed: tuple[int, int]


def error(unique: int, number: int) -> bytes:
    """A refusal, or with 0 an answer that has no body."""
    return OUT.pack(16, -number, unique)


def head(unique: int, size: int) -> bytes:
    """The header of an answer whose body of `size` bytes is written behind it."""
    return OUT.pack(16 + size, 0, unique)


def hello(body: Buffer) -> Hello:
    """Decode INIT."""
    major, minor, max_readahead, flags = INIT_IN.unpack_from(body)
    if flags & Init.INIT_EXT and len(body) >= INIT_IN.size + INIT_FLAGS2.size:
        flags |= INIT_FLAGS2.unpack_from(body, INIT_IN.size)[0] << 32
    return Hello(major, minor, max_readahead, flags)


def init_reply(
    unique: int,
    minor: int,
    flags: int,
    *,
    max_readahead: int,
    max_background: int,
    max_write: int,
    max_pages: int,
    max_stack_depth: int,
) -> bytes:
    """The answer to INIT; older kernels than 7.23 take its first 24 bytes."""
    size = INIT_REPLY.size if minor >= 23 else 16 + 24
    packed = INIT_REPLY.pack(
        size,
        0,
        unique,
        MAJOR,
        minor,
        max_readahead,
        flags & 0xFFFFFFFF,
        max_background,
        max_background * 3 // 4,
        max_write,
        1,
        max_pages,
        0,
        flags >> 32,
        max_stack_depth,
        0,
    )
    return packed[:size]


def seconds(ttl_s: float) -> tuple[int, int]:
    """A time-out as (seconds, nanoseconds)."""
    return divmod(int(ttl_s * NANO), NANO)


_seconds: dict[float, tuple[int, int]] = {}


def _split(ttl_s: float) -> tuple[int, int]:
    """As `seconds`, remembered: a mount has a handful of time-outs."""
    found = _seconds.get(ttl_s)
    if found is None:
        found = _seconds[ttl_s] = seconds(ttl_s)
    return found


def entry_reply(unique: int, reply: EntryReply) -> bytes:
    """The answer to LOOKUP and to everything that makes a name."""
    entry_s, entry_ns = _split(reply.entry_ttl_s)
    attr_s, attr_ns = _split(reply.attr_ttl_s)
    ino = reply.ino
    return ENTRY_REPLY.pack(
        ENTRY_REPLY.size, 0, unique, ino, GENERATION, entry_s, attr_s, entry_ns, attr_ns, *_attr(ino, reply.attr)
    )


def create_reply(unique: int, reply: EntryReply, fh: int, flags: int, backing_id: int) -> bytes:
    """The answer to CREATE: an entry and an open."""
    entry_s, entry_ns = _split(reply.entry_ttl_s)
    attr_s, attr_ns = _split(reply.attr_ttl_s)
    ino = reply.ino
    return CREATE_REPLY.pack(
        CREATE_REPLY.size,
        0,
        unique,
        ino,
        GENERATION,
        entry_s,
        attr_s,
        entry_ns,
        attr_ns,
        *_attr(ino, reply.attr),
        fh,
        flags,
        backing_id,
    )


def attr_reply(unique: int, reply: AttrReply) -> bytes:
    """The answer to GETATTR and SETATTR."""
    attr_s, attr_ns = _split(reply.ttl_s)
    return ATTR_REPLY.pack(ATTR_REPLY.size, 0, unique, attr_s, attr_ns, 0, *_attr(reply.ino, reply.attr))


def open_reply(unique: int, fh: int, flags: int, backing_id: int) -> bytes:
    """The answer to OPEN and OPENDIR."""
    return OPEN_REPLY.pack(OPEN_REPLY.size, 0, unique, fh, flags, backing_id)


def write_reply(unique: int, size: int) -> bytes:
    """The answer to WRITE and COPY_FILE_RANGE."""
    return WRITE_REPLY.pack(WRITE_REPLY.size, 0, unique, size, 0)


def size_reply(unique: int, size: int) -> bytes:
    """The answer to GETXATTR and LISTXATTR that ask for a size only."""
    return SIZE_REPLY.pack(SIZE_REPLY.size, 0, unique, size, 0)


def u64_reply(unique: int, value: int) -> bytes:
    """The answer to LSEEK and COPY_FILE_RANGE_64."""
    return U64_REPLY.pack(U64_REPLY.size, 0, unique, value)


def lk_reply(unique: int, start: int, end: int, kind: int, pid: int) -> bytes:
    """The answer to GETLK."""
    return LK_REPLY.pack(LK_REPLY.size, 0, unique, start, end, kind, pid)


def statfs_reply(unique: int, reply: StatfsReply) -> bytes:
    """The answer to STATFS."""
    size, free = reply.block_size, reply.blocks_free
    return STATFS_REPLY.pack(
        STATFS_REPLY.size,
        0,
        unique,
        reply.blocks,
        free,
        free,
        reply.files,
        reply.files_free,
        size,
        reply.name_max,
        size,
        0,
    )


def dirents(entries: Sequence[Entry], offset: int, room: int) -> bytes:
    """As many entries as fit; the first one's next offset is `offset` + 1."""
    parts: list[bytes] = []
    pack, used = DIRENT.pack, 0
    for entry in entries:
        name = entry.name
        length = len(name)
        used += 24 + (length + 7 & ~7)
        if used > room:
            break
        offset += 1
        parts += (pack(entry.ino, offset, length, _DT[entry.kind]), name, _PAD[length & 7])
    return b"".join(parts)


def direntsplus(
    entries: Sequence[Entry], attrs: Sequence[Attr | None], offset: int, room: int, lifetimes: Lifetimes
) -> bytes:
    """As `dirents`, with what a look-up of each name would answer; one without attributes is a name only."""
    parts: list[bytes] = []
    pack, used = DIRENTPLUS.pack, 0
    for entry, attr in zip(entries, attrs, strict=True):
        name, ino, kind = entry.name, entry.ino, entry.kind
        length = len(name)
        used += 152 + (length + 7 & ~7)
        if used > room:
            break
        offset += 1
        if attr is None:
            parts += (_NAME_ONLY, DIRENT.pack(ino, offset, length, _DT[kind]), name, _PAD[length & 7])
            continue
        (entry_s, entry_ns) = lifetimes.dir_entry if kind == 2 else lifetimes.entry
        (attr_s, attr_ns) = lifetimes.attr
        if attr.flags & 1:
            (entry_s, entry_ns), (attr_s, attr_ns) = lifetimes.fixed_entry, lifetimes.fixed
        atime, mtime, ctime, size = attr.atime_ns, attr.mtime_ns, attr.ctime_ns, attr.length
        atime_s, mtime_s, ctime_s = atime // NANO, mtime // NANO, ctime // NANO
        record = pack(
            ino, GENERATION, entry_s, attr_s, entry_ns, attr_ns,
            ino, size, size + 511 >> 9, atime_s, mtime_s, ctime_s,
            atime - atime_s * NANO, mtime - mtime_s * NANO, ctime - ctime_s * NANO,
            _FORMAT[kind] | attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, BLOCK_SIZE, 0,
            ino, offset, length, _DT[kind],
        )  # fmt: skip
        parts += (record, name, _PAD[length & 7])
    return b"".join(parts)


def inval_inode(ino: int, offset: int = 0, length: int = 0) -> bytes:
    """A notice: forget the attributes of a node, and its pages from `offset` on (-1: only the attributes)."""
    return INVAL_INODE.pack(INVAL_INODE.size, NOTIFY_INVAL_INODE, 0, ino, offset, length)


def inval_entry(parent: int, name: bytes) -> bytes:
    """A notice: forget a name."""
    body = name + b"\0"
    return INVAL_ENTRY.pack(INVAL_ENTRY.size + len(body), NOTIFY_INVAL_ENTRY, 0, parent, len(name), 0) + body


def names_at(buffer: Buffer, start: int, end: int) -> tuple[bytes, bytes]:
    """Two names, each of which ends with a NUL."""
    first, second, *_ = bytes(buffer[start:end]).split(b"\0", 2)
    return first, second


def _attr(ino: int, attr: Attr) -> tuple[int, ...]:
    atime, mtime, ctime, size = attr.atime_ns, attr.mtime_ns, attr.ctime_ns, attr.length
    atime_s, mtime_s, ctime_s = atime // NANO, mtime // NANO, ctime // NANO
    return (
        ino,
        size,
        size + 511 >> 9,
        atime_s,
        mtime_s,
        ctime_s,
        atime - atime_s * NANO,
        mtime - mtime_s * NANO,
        ctime - ctime_s * NANO,
        _FORMAT[attr.kind] | attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev,
        BLOCK_SIZE,
        0,
    )


_FORMAT: Final = [0, *(S_IFMT[kind] for kind in sorted(S_IFMT))]
_DT: Final = [mode >> 12 for mode in _FORMAT]
_PAD: Final = [b"\0" * (-rest & 7) for rest in range(8)]
_NAME_ONLY: Final = bytes(128)
