"""Who replays a history of `tests.kit.deeds`: the kernel on a mount, or our `Vfs`. They answer with an errno or 0."""

# Names are bytes that no Path can hold.
# ruff: noqa: PTH101, PTH102, PTH106, PTH108, PTH112, PTH116, PTH120, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from fscore.domain.attr import Attr, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import NotFound
from fscore.domain.ids import TRASH
from fscore.meta.service import AttrChange, RenameFlag
from fscore.volume import Volume
from tests.interop import official
from tests.kit.deeds import Deed, bytes_of

KINDS: Final = {0o010000: Kind.FIFO, 0o020000: Kind.CHAR, 0o060000: Kind.BLOCK, 0o140000: Kind.SOCKET}
AT_FDCWD: Final = -100
SUID: Final = 0o4000
SGID: Final = 0o2000
GROUP_EXECUTE: Final = 0o0010
_libc: Final = ctypes.CDLL(None, use_errno=True)


class OnMount:
    """System calls below a directory of a mount. Clones go by the command of the official client."""

    def __init__(self, top: Path) -> None:
        self.top = os.fsencode(top)

    def play(self, deed: Deed) -> int:
        """The errno of a deed."""
        try:
            getattr(self, deed.name)(*deed.args)
        except OSError as error:
            return error.errno or -1
        return 0

    def at(self, path: bytes) -> bytes:
        return self.top + b"/" + path

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def create(self, path: bytes, mode: int) -> None:
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def mknod(self, path: bytes, kind: int, mode: int, device: int) -> None:
        os.mknod(self.at(path), kind | mode, device)

    def write(self, path: bytes, number: int, parts: tuple[tuple[int, int], ...]) -> None:
        with self.opened(path, os.O_WRONLY) as fd:
            for place, (offset, size) in enumerate(parts):
                assert os.pwrite(fd, bytes_of(number + place, size), offset) == size

    def truncate(self, path: bytes, length: int) -> None:
        _need(stat.S_ISREG(os.lstat(self.at(path)).st_mode))
        os.truncate(self.at(path), length)

    def fallocate(self, path: bytes, mode: int, offset: int, length: int) -> None:
        with self.opened(path, os.O_WRONLY) as fd:
            _check(_libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))

    def copy(self, source: bytes, target: bytes, start: int, offset: int, length: int) -> None:
        with self.opened(source, os.O_RDONLY) as here, self.opened(target, os.O_WRONLY) as there:
            os.copy_file_range(here, there, length, start, offset)

    def rename(self, source: bytes, target: bytes, flags: int) -> None:
        _need(flags != 0 or not self.kept(target))
        _check(_libc.renameat2(AT_FDCWD, self.at(source), AT_FDCWD, self.at(target), flags))

    def kept(self, path: bytes) -> bool:
        """Whether a file with several names was removed at this path before and lies in the trash.

        Renaming over it, the official client fails on SQL (the same entry twice) and counts a link too many on Redis.
        """
        place = self.at(path)
        if not os.path.lexists(place) or os.lstat(place).st_nlink == 1:
            return False
        above, _, name = place.rpartition(b"/")
        entry = b"%d-%d-%s" % (os.stat(above).st_ino, os.lstat(place).st_ino, name)
        trash = os.path.dirname(self.top) + b"/.trash"
        return any(os.path.lexists(trash + b"/" + hour + b"/" + entry[:255]) for hour in _listed(trash))

    def link(self, source: bytes, target: bytes) -> None:
        os.link(self.at(source), self.at(target), follow_symlinks=False)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self.at(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self.at(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self.at(path))

    def chmod(self, path: bytes, mode: int) -> None:
        _need(not stat.S_ISLNK(os.lstat(self.at(path)).st_mode))
        os.chmod(self.at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        self.need_plain(path)
        os.setxattr(self.at(path), name, value, flags, follow_symlinks=False)

    def removexattr(self, path: bytes, name: bytes) -> None:
        self.need_plain(path)
        os.removexattr(self.at(path), name, follow_symlinks=False)

    def clone(self, source: bytes, target: bytes, preserve: bool) -> None:
        mode = os.lstat(self.at(source)).st_mode
        above = os.stat(os.path.dirname(self.at(target)) + b"/.").st_mode
        _need(not stat.S_ISLNK(mode) and stat.S_ISDIR(above) and not os.path.lexists(self.at(target)))
        _need(not (target + b"/").startswith(source + b"/"))
        inside = (_uncloneable(os.lstat(path), self.values(path)) for path in self.below(source))
        _need(b"" not in self.values(self.at(source)) and not any(inside))
        arguments = [os.fsdecode(self.at(source)), os.fsdecode(self.at(target))]
        done = official.juicefs("clone", *(("-p",) if preserve else ()), *arguments, check=False)
        assert done.returncode == 0, done.stderr

    def below(self, path: bytes) -> Iterator[bytes]:
        """Everything in a directory and its directories."""
        for folder, _, names in os.walk(self.at(path)):
            yield from (folder + b"/" + name for name in names)

    def values(self, path: bytes) -> list[bytes]:
        """The values of all extended attributes."""
        names = os.listxattr(path, follow_symlinks=False)
        return [os.getxattr(path, name, follow_symlinks=False) for name in names]

    def need_plain(self, path: bytes) -> None:
        """Only files and directories carry attributes of users."""
        mode = os.lstat(self.at(path)).st_mode
        _need(stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    @contextlib.contextmanager
    def opened(self, path: bytes, flags: int) -> Iterator[int]:
        """An open file that is no device, no pipe and no link."""
        _need(stat.S_ISREG(os.lstat(self.at(path)).st_mode))
        fd = os.open(self.at(path), flags)
        try:
            yield fd
        finally:
            os.close(fd)


class OnVfs:
    """The same over `Vfs` and `MetaService`, with what a kernel does before it asks a filesystem."""

    def __init__(self, volume: Volume, top: bytes) -> None:
        self.meta, self.vfs = volume.meta, volume.vfs
        self.who = Caller(uid=0, gid=0, umask=0o022)
        self.top = self.meta.resolve(self.who, top)[0]

    def play(self, deed: Deed) -> int:
        """The errno of a deed."""
        try:
            getattr(self, deed.name)(*deed.args)
        except OSError as error:
            return error.errno or -1
        return 0

    def at(self, path: bytes) -> tuple[int, Attr]:
        return self.meta.resolve(self.who, path, follow=False, parent=self.top)

    def split(self, path: bytes) -> tuple[int, bytes]:
        """The directory of a path, and the last name."""
        above, _, name = path.rpartition(b"/")
        return self.meta.resolve(self.who, above + b"/", parent=self.top)[0], name

    def mkdir(self, path: bytes, mode: int) -> None:
        self.meta.mkdir(self.who, *self.split(path), mode & 0o1777)

    def create(self, path: bytes, mode: int) -> None:
        _, _, fh = self.vfs.create(self.who, *self.split(path), mode, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        self.vfs.release(fh)

    def mknod(self, path: bytes, kind: int, mode: int, device: int) -> None:
        self.meta.mknod(self.who, *self.split(path), KINDS[kind], mode, rdev=device)

    def write(self, path: bytes, number: int, parts: tuple[tuple[int, int], ...]) -> None:
        with self.opened(path, os.O_WRONLY) as fh:
            for place, (offset, size) in enumerate(parts):
                assert self.vfs.write(fh, offset, bytes_of(number + place, size)) == size

    def truncate(self, path: bytes, length: int) -> None:
        self.vfs.truncate(self.who, self.file(path), length)

    def fallocate(self, path: bytes, mode: int, offset: int, length: int) -> None:
        with self.opened(path, os.O_WRONLY) as fh:
            self.vfs.fallocate(fh, mode, offset, length)

    def copy(self, source: bytes, target: bytes, start: int, offset: int, length: int) -> None:
        with self.opened(source, os.O_RDONLY) as here, self.opened(target, os.O_WRONLY) as there:
            self.vfs.copy_file_range(here, start, there, offset, length)

    def rename(self, source: bytes, target: bytes, flags: int) -> None:
        _need(flags != 0 or not self.kept(target))
        here, there = self.split(source), self.split(target)
        ino = self.meta.lookup(self.who, *here)[0]
        old = self.child(*there)
        if flags == RenameFlag.NO_REPLACE and old:
            raise OSError(errno.EEXIST, "the kernel looks first")
        if flags == RenameFlag.EXCHANGE and not old:
            raise OSError(errno.ENOENT, "the kernel looks first")
        if ino in self.lineage(there[0]) or (flags == RenameFlag.EXCHANGE and old in self.lineage(here[0])):
            raise OSError(errno.EINVAL, "the kernel lets no directory lie below itself")
        if old in self.lineage(here[0]):
            raise OSError(errno.ENOTEMPTY, "the kernel knows that it is not empty")
        self.meta.rename(self.who, *here, *there, flags=RenameFlag(flags))

    def link(self, source: bytes, target: bytes) -> None:
        ino, place = self.at(source)[0], self.split(target)
        if self.child(*place):
            raise OSError(errno.EEXIST, "the kernel looks first")
        self.meta.link(self.who, ino, *place)

    def kept(self, path: bytes) -> bool:
        """As on a mount."""
        try:
            (above, name), (ino, attr) = self.split(path), self.at(path)
        except OSError:
            return False
        if attr.nlink == 1 or not self.meta.setting.trash_days:
            return False
        entry = (b"%d-%d-%s" % (above, ino, name))[:255]
        return any(self.child(hour.ino, entry) for hour in self.meta.readdir(self.who, TRASH))

    def child(self, parent: int, name: bytes) -> int:
        """The inode of an entry, 0 for none."""
        try:
            return self.meta.lookup(self.who, parent, name)[0]
        except NotFound:
            return 0

    def lineage(self, ino: int) -> set[int]:
        """A directory and all above it, up to the top of the history."""
        found = {ino}
        while ino != self.top:
            ino = self.meta.getattr(ino).parent
            found.add(ino)
        return found

    def symlink(self, target: bytes, path: bytes) -> None:
        self.meta.symlink(self.who, *self.split(path), target)

    def unlink(self, path: bytes) -> None:
        if self.at(path)[1].is_dir:
            raise OSError(errno.EISDIR, "the kernel asks for no such thing")
        self.meta.unlink(self.who, *self.split(path))

    def rmdir(self, path: bytes) -> None:
        self.meta.rmdir(self.who, *self.split(path))

    def chmod(self, path: bytes, mode: int) -> None:
        ino, attr = self.at(path)
        _need(attr.kind != Kind.SYMLINK)
        self.meta.setattr(self.who, ino, AttrChange(mode=mode))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        ino, attr = self.at(path)
        mode = attr.mode & ~SUID
        if mode & GROUP_EXECUTE:
            mode &= ~SGID
        kept = None if attr.is_dir or mode == attr.mode else mode
        self.meta.setattr(self.who, ino, AttrChange(uid=uid, gid=gid, mode=kept))

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        mode: Literal["set", "create", "replace"] = ("set", "create", "replace")[flags]
        self.meta.setxattr(self.who, self.plain(path), name, value, mode=mode)

    def removexattr(self, path: bytes, name: bytes) -> None:
        self.meta.removexattr(self.who, self.plain(path), name)

    def clone(self, source: bytes, target: bytes, preserve: bool) -> None:
        ino, attr = self.at(source)
        above, name = self.split(target)
        _need(attr.kind != Kind.SYMLINK and not self.child(above, name))
        _need(not (target + b"/").startswith(source + b"/"))
        inside = (_uncloneable(attr, self.values(ino)) for ino, attr in self.below(ino, attr))
        _need(b"" not in self.values(ino) and not any(inside))
        self.meta.clone(self.who, ino, above, name, preserve=preserve)

    def values(self, ino: int) -> list[bytes]:
        """The values of all extended attributes."""
        return [self.meta.getxattr(ino, name) for name in self.meta.listxattr(ino)]

    def below(self, ino: int, attr: Attr) -> Iterator[tuple[int, Attr]]:
        """Inodes and attributes of everything in a directory and its directories."""
        for entry in self.meta.readdir(self.who, ino) if attr.is_dir else ():
            assert entry.attr is not None
            yield entry.ino, entry.attr
            yield from self.below(entry.ino, entry.attr)

    def file(self, path: bytes) -> int:
        """The inode of a regular file."""
        ino, attr = self.at(path)
        _need(attr.is_file)
        return ino

    def plain(self, path: bytes) -> int:
        """The inode of a file or directory."""
        ino, attr = self.at(path)
        _need(attr.is_file or attr.is_dir)
        return ino

    @contextlib.contextmanager
    def opened(self, path: bytes, flags: int) -> Iterator[int]:
        """A handle of a regular file."""
        fh = self.vfs.open(self.who, self.file(path), flags)
        try:
            yield fh
        finally:
            self.vfs.release(fh)


def _uncloneable(attr: os.stat_result | Attr, values: list[bytes]) -> bool:
    """What the official client loses in a cloned directory: special files, and the link count of a symbolic link (on
    Redis). On SQL it fails over an extended attribute that has no value."""
    if isinstance(attr, Attr):
        special = attr.kind not in {Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK}
        many = attr.kind == Kind.SYMLINK and attr.nlink > 1
    else:
        mode = attr.st_mode
        special = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
        many = stat.S_ISLNK(mode) and attr.st_nlink > 1
    return special or many or b"" in values


def _listed(path: bytes) -> list[bytes]:
    return os.listdir(path) if os.path.isdir(path) else []


def _need(holds: bool) -> None:
    """What neither player does, because it asks nothing of a filesystem or is the kernel's to refuse."""
    if not holds:
        raise OSError(errno.ENOTSUP, "not played")


def _check(answer: int) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), "refused")
