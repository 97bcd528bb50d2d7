"""A picture of a volume that two clients can agree on: paths, not inodes, and no times.

Read by our engine and our block store, whoever wrote it. Entries of the trash go by the name that they had.
"""

# Names are bytes that no Path can hold.
# ruff: noqa: PTH115

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from typing import Any, NamedTuple

import fscore
from fscore.domain.attr import Attr, Kind
from fscore.domain.ids import ROOT, TRASH
from fscore.meta.engine import MetaEngine
from fscore.meta.records import DirStat
from fscore.volume import Volume

PIECE = 1 << 20
KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFSOCK: Kind.SOCKET,
}
_ZERO = bytes(PIECE)


class Seen(NamedTuple):
    """One node: everything about it but its number and its times."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    nlink: int
    length: int
    rdev: int
    flags: int
    linked: bool
    target: bytes | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    digest: str


class Picture(NamedTuple):
    """One volume. `stats` are those of directories as stored, `counted` as they should be."""

    nodes: dict[bytes, Seen]
    stats: dict[bytes, DirStat | None]
    counted: dict[bytes, DirStat]
    trash: Counter[tuple[Any, ...]]
    usage: tuple[int, int]


def digest_of(read: Any, length: int) -> str:
    """A hash of the pieces that are not all zero, and of where they are: a hole costs nothing to compare."""
    found = hashlib.sha256(b"%d" % length)
    for at in range(0, length, PIECE):
        data = read(at, min(PIECE, length - at))
        assert len(data) == min(PIECE, length - at), (at, len(data), length)
        if data != _ZERO[: len(data)]:
            found.update(b"%d:" % at)
            found.update(data)
    return found.hexdigest()


def take(url: str, skip: frozenset[bytes] = frozenset()) -> Picture:
    """The picture of the volume at `url`, which nobody is writing; the bytes of some paths are not looked at."""
    with fscore.open_volume(url, read_only=True, background=False) as volume:
        return _Painter(volume, skip).paint()


def through(mount: bytes, path: bytes, like: Seen) -> Seen:
    """One node of a mounted volume, as a picture has it; flags and hard links are taken from `like`."""
    place = mount + path
    found = os.lstat(place)
    target = os.readlink(place) if like.kind == Kind.SYMLINK else None
    names = os.listxattr(place, follow_symlinks=False)
    xattrs = tuple(sorted((os.fsencode(name), os.getxattr(place, name, follow_symlinks=False)) for name in names))
    digest = ""
    if stat.S_ISREG(found.st_mode):
        fd = os.open(place, os.O_RDONLY)
        try:
            digest = digest_of(lambda at, size: os.pread(fd, size, at), found.st_size)
        finally:
            os.close(fd)
    return Seen(
        KINDS[stat.S_IFMT(found.st_mode)], stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_nlink,
        found.st_size, found.st_rdev, like.flags, like.linked, target, xattrs, digest,
    )  # fmt: skip


class _Painter:
    def __init__(self, volume: Volume, skip: frozenset[bytes]) -> None:
        self.volume = volume
        self.skip = skip
        self.engine: MetaEngine = volume.meta.engine
        self.stored = dict(self.engine.scan_dir_stats())
        self.hours = 0
        self.result = Picture({}, {}, {}, Counter(), (0, 0))

    def paint(self) -> Picture:
        with self.engine.view() as view:
            usage, root, trash = view.usage(), view.node(ROOT), view.node(TRASH)
        assert root is not None
        paths: dict[int, bytes] = {ROOT: b""}
        self._walk(b"", ROOT, root, paths)
        if trash is not None:
            self._trash(paths)
        return self.result._replace(usage=(usage.space - 4096 * self.hours, usage.inodes - self.hours))

    def _walk(self, path: bytes, ino: int, attr: Attr, paths: dict[int, bytes]) -> None:
        self.result.nodes[path] = self._see(ino, attr)
        self.result.stats[path] = self.stored.get(ino)
        length = space = inodes = 0
        for batch in self.engine.scan_dir(ino, attrs=True):
            for entry in batch:
                assert entry.attr is not None, (path, entry)
                inner = path + b"/" + entry.name
                size = entry.attr.length if entry.kind == Kind.FILE else 0
                length, space, inodes = length + size, space + max(-(-size // 4096) * 4096, 4096), inodes + 1
                if entry.kind == Kind.DIRECTORY:
                    assert entry.attr.parent == ino
                    paths[entry.ino] = inner
                    self._walk(inner, entry.ino, entry.attr, paths)
                else:
                    self.result.nodes[inner] = self._see(entry.ino, entry.attr, whole=inner not in self.skip)
        self.result.counted[path] = DirStat(length, space, inodes)

    def _trash(self, paths: dict[int, bytes]) -> None:
        """Entries of all hours: where they were, the name, and the node; what lies below a directory goes with it."""
        for batch in self.engine.scan_dir(TRASH, attrs=False):
            for hour in batch:
                self.hours += 1
                for inner in self.engine.scan_dir(hour.ino, attrs=True):
                    for entry in inner:
                        assert entry.attr is not None
                        parent, _, rest = entry.name.partition(b"-")
                        place = paths.get(int(parent), b"(gone)")
                        name = rest.partition(b"-")[2][:200]  # the end may be cut, sooner where numbers are longer
                        self.result.trash[place, name, self._see(entry.ino, entry.attr)] += 1

    def _see(self, ino: int, attr: Attr, *, whole: bool = True) -> Seen:
        with self.engine.view() as view:
            target = view.symlink(ino) if attr.kind == Kind.SYMLINK else None
            xattrs = tuple(sorted(view.xattrs(ino).items()))
        digest = self._digest(ino, attr.length) if attr.kind == Kind.FILE and whole else ""
        return Seen(
            attr.kind, attr.mode, attr.uid, attr.gid, attr.nlink, attr.length, attr.rdev, attr.flags,
            attr.parent == 0, target, xattrs, digest,
        )  # fmt: skip

    def _digest(self, ino: int, length: int) -> str:
        vfs = self.volume.vfs
        fh = vfs.open(self.volume.files.who, ino, 0)
        try:
            return digest_of(lambda at, size: vfs.read(fh, at, size), length)
        finally:
            vfs.release(fh)
