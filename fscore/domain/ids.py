"""Numbers that name things in a volume, and the limits on them (volume-format.md 2.2, 2.17, 7)."""

from __future__ import annotations

from typing import Final, NewType

Ino = NewType("Ino", int)
"""A node's number; 64 bits, never 0."""

ROOT: Final = Ino(1)
TRASH: Final = Ino(0x7FFFFFFF10000000)
"""The trash root; every inode at or above it counts as trash, the hour directories follow it."""

MAX_NAME: Final = 255
MAX_SYMLINK: Final = 4096
MAX_XATTR_NAME: Final = 255
MAX_XATTR_VALUE: Final = 65536
MAX_CHUNKS: Final = 1 << 31
RESERVED_ROOT_NAMES: Final = frozenset({b".trash", b".control", b".accesslog", b".stats", b".config"})


def in_trash(ino: int) -> bool:
    """Whether this inode is the trash root or one of its hour directories."""
    return ino >= TRASH
