"""What the records of a tree look like to the semantics, and how a read to come is announced.

Formats and units: volume-format.md 2.2 (Redis) and 3.2 (SQL). Sizes are bytes, times nanoseconds, unless a name says
otherwise; names, targets and xattr values are bytes.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from fscore.domain.attr import Kind


class Edge(NamedTuple):
    """What a directory entry says: the node's type and number."""

    kind: Kind
    ino: int


class Counter(enum.Enum):
    """Counters that hand out numbers. Values are the names that both engines store."""

    INODE = "nextInode"
    SLICE = "nextChunk"
    SESSION = "nextSession"
    TRASH = "nextTrash"


class DirStat(NamedTuple):
    """Usage of a directory's direct children (volume-format.md 2.10)."""

    length: int
    space: int
    inodes: int


class Usage(NamedTuple):
    """Totals of a volume: charged bytes and inodes."""

    space: int
    inodes: int


class StatFs(NamedTuple):
    """Bytes and inodes of a volume; without a limit the totals are what JuiceFS shows."""

    total: int
    avail: int
    used: int
    inodes_used: int
    inodes_free: int


class Session(NamedTuple):
    """One connected client: number, expiry in unix seconds, and the JSON that describes it."""

    sid: int
    expires: int
    info: bytes


LEGACY_LIFE_S: Final = 300
"""How long after its last heartbeat a client before 1.0 counts as alive (volume-format.md 2.6)."""


class LockOwner(NamedTuple):
    """Who holds a lock: a session, and the 64-bit number that its kernel gave the holder."""

    sid: int
    owner: int


class Want(NamedTuple):
    """A read to come. `kind` is the name of the reading method, `key` its arguments."""

    kind: str
    key: tuple[int | bytes, ...]


def want_node(ino: int) -> Want:
    """`node(ino)` will be read."""
    return Want("node", (ino,))


def want_file(ino: int) -> Want:
    """`node(ino)` will be read, and `parents(ino)` if it has several names."""
    return Want("file", (ino,))


def want_edge(parent: int, name: bytes) -> Want:
    """`edge(parent, name)` will be read."""
    return Want("edge", (parent, name))


def want_chunk(ino: int, index: int) -> Want:
    """`chunk(ino, index)` will be read."""
    return Want("chunk", (ino, index))


def want_xattrs(ino: int) -> Want:
    """`xattrs(ino)` will be read."""
    return Want("xattrs", (ino,))


def want_xattr(ino: int, name: bytes) -> Want:
    """`xattr(ino, name)` will be read."""
    return Want("xattr", (ino, name))


def want_parents(ino: int) -> Want:
    """`parents(ino)` will be read."""
    return Want("parents", (ino,))


def want_lineage(ino: int) -> Want:
    """`node` will be read of this directory and of all above it."""
    return Want("lineage", (ino,))


def want_symlink(ino: int) -> Want:
    """`symlink(ino)` will be read."""
    return Want("symlink", (ino,))


def want_has_entries(ino: int) -> Want:
    """`has_entries(ino)` will be read."""
    return Want("has_entries", (ino,))


def want_flocks(ino: int) -> Want:
    """`flocks(ino)` will be read."""
    return Want("flocks", (ino,))


def want_plocks(ino: int) -> Want:
    """`plocks(ino)` will be read."""
    return Want("plocks", (ino,))
