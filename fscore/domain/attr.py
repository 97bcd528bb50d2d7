"""Attributes of a node as values; how they are stored is the engines' affair."""

from __future__ import annotations

import enum
from typing import Final

import msgspec


class Kind(enum.IntEnum):
    """The type of a node, with the numbers that the volume format stores."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    BLOCK = 5
    CHAR = 6
    SOCKET = 7


class Flag(enum.IntEnum):
    """Bits of `Attr.flags` (volume-format.md 2.17)."""

    IMMUTABLE = 1
    APPEND = 2
    HIDDEN = 4
    SYSTEM = 8
    ARCHIVE = 16
    SKIP_TRASH = 32


S_IFMT: Final = {
    Kind.FILE: 0o100000,
    Kind.DIRECTORY: 0o040000,
    Kind.SYMLINK: 0o120000,
    Kind.FIFO: 0o010000,
    Kind.BLOCK: 0o060000,
    Kind.CHAR: 0o020000,
    Kind.SOCKET: 0o140000,
}

DIRECTORY_LENGTH: Final = 4096


class Attr(msgspec.Struct, frozen=True):
    """One node's attributes. Times are nanoseconds since 1970; `length` is bytes; `mode` has 12 bits.

    `parent` is 0 for a file that has, or once had, several names (the engines keep its parents).
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    nlink: int = 1
    length: int = 0
    rdev: int = 0
    parent: int = 0
    flags: int = 0
    access_acl: int = 0
    default_acl: int = 0
    tier: int = 0

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.kind == Kind.DIRECTORY

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return self.kind == Kind.FILE

    @property
    def immutable(self) -> bool:
        """Whether the immutable flag is set."""
        return bool(self.flags & Flag.IMMUTABLE)

    @property
    def st_mode(self) -> int:
        """Type and mode as `st_mode` of stat(2)."""
        return S_IFMT[self.kind] | self.mode


class Entry(msgspec.Struct, frozen=True):
    """One directory entry; `attr` is there when it was asked for, or None when its node is missing."""

    name: bytes
    ino: int
    kind: Kind
    attr: Attr | None = None


def space_of(kind: Kind, length: int) -> int:
    """Bytes that a node is charged for (volume-format.md 2.5): never less than 4096."""
    return align4k(length) if kind == Kind.FILE else 4096


def align4k(length: int) -> int:
    """`length` rounded up to 4096, never 0."""
    return 4096 if length <= 0 else (length + 4095) & ~4095
