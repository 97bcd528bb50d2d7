"""Random histories of what programs do to a tree, the same for every client that replays them: a seed says all.

A deed names paths below the top of its history and may well fail, with the same errno for everybody. What a file is
filled with follows from the deed, so that a history is small and its bytes are known.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

NAMES: Final = (b"a", b"b", b"c", b"d", b"long" * 63, b"\xff\xfe\x01 name")
MODES: Final = (0o600, 0o644, 0o755, 0o4755, 0o2770, 0o1777, 0o000)
EDGE: Final = 64 << 20
"""A chunk's border; files that reach over it are rare, since they are read whole at the end."""


class Deed(NamedTuple):
    """One operation: its name and its arguments, paths first."""

    name: str
    args: tuple[Any, ...]


def bytes_of(number: int, size: int) -> bytes:
    """What the writing deed of that number writes: no byte is zero, and blocks differ."""
    rng = random.Random(number)
    piece = bytes(rng.randrange(1, 256) for _ in range(min(size, 997)))
    return (piece * (size // len(piece) + 1))[:size] if piece else b""


class Historian:
    """Makes one history. It remembers roughly what exists, so that most deeds find something."""

    def __init__(self, seed: int, *, clones: bool = True) -> None:
        self.rng = random.Random(seed)
        self.clones = clones
        self.dirs = [b""]
        self.files: list[bytes] = []
        self.others: list[bytes] = []
        self.number = seed * 1000

    def history(self, length: int) -> list[Deed]:
        """A number of deeds, the first of which make something to work with."""
        start = [self.mkdir(), self.create(), self.create(), self.write()]
        rules: list[tuple[int, Callable[[], Deed]]] = [
            (3, self.mkdir), (5, self.create), (2, self.mknod), (9, self.write), (5, self.truncate),
            (3, self.fallocate), (5, self.copy), (7, self.rename), (4, self.link), (2, self.symlink), (5, self.unlink),
            (3, self.rmdir), (3, self.chmod), (3, self.chown), (3, self.setxattr), (2, self.removexattr),
            (int(self.clones), self.clone),
        ]  # fmt: skip
        weights, makers = [weight for weight, _ in rules], [maker for _, maker in rules]
        return start + [self.rng.choices(makers, weights)[0]() for _ in range(length - len(start))]

    def place(self, parents: list[bytes] | None = None) -> bytes:
        """A path that may be new."""
        parent = self.rng.choice(parents or self.dirs)
        name = self.rng.choice(NAMES)
        return parent + b"/" + name if parent else name

    def file(self) -> bytes:
        """A path at which a file was made."""
        return self.rng.choice(self.files) if self.files and self.rng.random() < 0.9 else self.place()

    def anything(self) -> bytes:
        """A path of anything."""
        known = self.files + self.others + self.dirs[1:]
        return self.rng.choice(known) if known and self.rng.random() < 0.9 else self.place()

    def offset(self) -> int:
        """Somewhere in a file: mostly near its start, at borders of blocks, seldom at one of chunks."""
        if self.rng.random() < 0.04:
            return EDGE + self.rng.choice((-70_000, -1, 0, 3))
        return self.rng.choice((0, 1, 100, 4095, 4096, 65_535, 65_536, self.rng.randrange(200_000)))

    def size(self) -> int:
        """How much."""
        return self.rng.choice((1, 100, 4096, 65_536, 65_537, self.rng.randrange(1, 150_000)))

    def mkdir(self) -> Deed:
        path = self.place()
        if path.count(b"/") < 3:
            self.dirs.append(path)
        return Deed("mkdir", (path, self.rng.choice(MODES)))

    def create(self) -> Deed:
        path = self.place()
        self.files.append(path)
        return Deed("create", (path, self.rng.choice(MODES)))

    def mknod(self) -> Deed:
        path = self.place()
        self.others.append(path)
        kind, device = self.rng.choice(((0o010000, 0), (0o020000, 0x0103), (0o060000, 0x11110370), (0o140000, 0)))
        return Deed("mknod", (path, kind, self.rng.choice(MODES), device))

    def write(self) -> Deed:
        self.number += 1
        parts = tuple((self.offset(), self.size()) for _ in range(self.rng.choice((1, 1, 1, 3))))
        return Deed("write", (self.file(), self.number, parts))

    def truncate(self) -> Deed:
        return Deed("truncate", (self.file(), self.rng.choice((0, 1, 99, 4096, 70_000, self.offset()))))

    def fallocate(self) -> Deed:
        mode = self.rng.choice((0, 1, 3, 16, 17))
        return Deed("fallocate", (self.file(), mode, self.offset(), self.size()))

    def copy(self) -> Deed:
        return Deed("copy", (self.file(), self.file(), self.offset() % 70_000, self.offset(), self.size()))

    def rename(self) -> Deed:
        source, target = self.anything(), self.place() if self.rng.random() < 0.6 else self.anything()
        flags = self.rng.choice((0, 0, 0, 1, 2))
        for known in (self.files, self.others):
            if source in known and flags != 2:
                known.append(target)
        return Deed("rename", (source, target, flags))

    def link(self) -> Deed:
        target = self.place()
        self.files.append(target)
        return Deed("link", (self.file() if self.rng.random() < 0.8 else self.anything(), target))

    def symlink(self) -> Deed:
        path = self.place()
        self.others.append(path)
        return Deed("symlink", (self.rng.choice((b"a", b"./d/a", b"nowhere", b"x" * 300)), path))

    def unlink(self) -> Deed:
        return Deed("unlink", (self.anything(),))

    def rmdir(self) -> Deed:
        return Deed("rmdir", (self.rng.choice(self.dirs[1:]) if len(self.dirs) > 1 else self.anything(),))

    def chmod(self) -> Deed:
        return Deed("chmod", (self.anything(), self.rng.choice(MODES)))

    def chown(self) -> Deed:
        return Deed("chown", (self.anything(), self.rng.choice((0, 1000, 70_000)), self.rng.choice((0, 100, 65_534))))

    def setxattr(self) -> Deed:
        name = self.rng.choice((b"user.a", b"user.b", b"trusted.c"))
        value = self.rng.choice((b"", b"v", b"\x00\xff" * 300))
        return Deed("setxattr", (self.anything(), name, value, self.rng.choice((0, 0, 1, 2))))

    def removexattr(self) -> Deed:
        return Deed("removexattr", (self.anything(), self.rng.choice((b"user.a", b"user.b"))))

    def clone(self) -> Deed:
        source = self.anything() if self.rng.random() < 0.7 else self.rng.choice(self.dirs)
        target = self.place()
        self.files.append(target)
        return Deed("clone", (source or b"a", target, self.rng.random() < 0.5))
