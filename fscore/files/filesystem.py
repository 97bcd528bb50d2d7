"""A volume by paths, as one caller sees it. Every method raises the errors of `domain.errors`, with the path."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO, Any, Final, Literal, TypeVar, overload

from fscore.blocks.store import WarmReport
from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import Exists, FsError, Invalid, NotADir, NotFound
from fscore.domain.ids import ROOT
from fscore.files import paths, trees
from fscore.files.compose import ComposeReport, Data, Piece, Range, merge
from fscore.files.file import VolumeFile, parse_mode
from fscore.files.stat import Info, Stat
from fscore.meta.service import AttrChange, MetaService, RenameFlag, StatFs
from fscore.runtime.buffer import Buffer
from fscore.runtime.progress import Progress
from fscore.vfs.compose import InodePiece, NewPiece, SharedPiece, ZeroPiece
from fscore.vfs.vfs import Vfs

T = TypeVar("T")

BinaryMode = Literal["rb", "wb", "ab", "xb", "r+b", "w+b", "a+b", "x+b", "rb+", "wb+", "ab+", "xb+"]

MAX_LINKS: Final = 40
SETID: Final = 0o6000
"""Symbolic links that creating through a dangling one may follow."""


class Filesystem:
    """The tree of one volume. Paths are absolute inside the volume ("a/b" means "/a/b"). Thread-safe."""

    def __init__(self, meta: MetaService, vfs: Vfs, who: Caller) -> None:
        self._meta: Final = meta
        self._vfs: Final = vfs
        self.who: Final = who

    @overload
    def open(self, path: str, mode: BinaryMode = "rb", *, perm: int = 0o666) -> VolumeFile: ...
    @overload
    def open(
        self, path: str, mode: str, *, perm: int = 0o666, encoding: str = "utf-8", newline: str | None = None
    ) -> Any: ...  # noqa: ANN401  text or binary, as builtins.open: only the mode's value tells
    def open(
        self, path: str, mode: str = "rb", *, perm: int = 0o666, encoding: str = "utf-8", newline: str | None = None
    ) -> VolumeFile | IO[str]:
        """Open a file as builtins.open does: unbuffered VolumeFile for binary modes, text wrapped around it."""
        flags, text = parse_mode(mode)
        path = paths.normal(path)
        raw = VolumeFile(self._vfs, self._open(path, flags, perm), path, mode, flags)
        if not text:
            return raw
        if raw.readable() and raw.writable():
            return io.TextIOWrapper(io.BufferedRandom(raw), encoding, newline=newline)
        buffered = io.BufferedReader(raw) if raw.readable() else io.BufferedWriter(raw)
        return io.TextIOWrapper(buffered, encoding, newline=newline)

    def create(self, path: str, *, perm: int = 0o666) -> Stat:
        """A new, empty file; Exists when there is one."""
        ino, attr = self._in_parent(path, lambda parent, name: self._meta.create(self.who, parent, name, perm))
        return Stat(paths.normal(path), ino, attr)

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        """Attributes of a path, or of the link itself without `follow`."""
        since = self._meta.changes
        ino, attr = self._resolve(path, follow=follow)
        return Stat(paths.normal(path), ino, self._vfs.overlaid(ino, attr, since))

    def exists(self, path: str, *, follow: bool = True) -> bool:
        """Whether there is anything at a path."""
        try:
            self._resolve(path, follow=follow)
        except (NotFound, NotADir):
            return False
        return True

    def is_dir(self, path: str) -> bool:
        """Whether a path leads to a directory."""
        try:
            return self._resolve(path)[1].is_dir
        except (NotFound, NotADir):
            return False

    def is_file(self, path: str) -> bool:
        """Whether a path leads to a regular file."""
        try:
            return self._resolve(path)[1].is_file
        except (NotFound, NotADir):
            return False

    def listdir(self, path: str = "/") -> list[str]:
        """Names in a directory, sorted."""
        entries = self._on_node(path, lambda ino, _: list(self._meta.readdir(self.who, ino, attrs=False)))
        return sorted(paths.decode(entry.name) for entry in entries)

    def scandir(self, path: str = "/") -> Iterator[Stat]:
        """What a directory holds, with attributes, in no particular order."""
        ino, _ = self._resolve(path)
        base = paths.normal(path).rstrip("/")
        with _named(path):
            for entry in self._meta.readdir(self.who, ino, attrs=True):
                yield self._entry_stat(base, entry)

    def walk(self, path: str = "/") -> Iterator[tuple[str, list[Stat], list[Stat]]]:
        """(directory, its directories, everything else in it), sorted by name, top down. Links are not followed."""
        pending = [paths.normal(path)]
        while pending:
            here = pending.pop()
            found = sorted(self.scandir(here), key=lambda stat: stat.path)
            dirs = [stat for stat in found if stat.is_dir]
            yield here, dirs, [stat for stat in found if not stat.is_dir]
            pending.extend(stat.path for stat in reversed(dirs))

    def mkdir(self, path: str, mode: int = 0o755, *, parents: bool = False, exist_ok: bool = False) -> None:
        """A new directory; `parents` makes those above it, too."""
        path = paths.normal(path)
        if path == "/":
            if not exist_ok:
                raise Exists("the root", path)
            return
        try:
            self._in_parent(path, lambda parent, name: self._meta.mkdir(self.who, parent, name, mode))
        except NotFound:
            if not parents:
                raise
            self.mkdir(paths.parent_of(path), parents=True, exist_ok=True)
            self.mkdir(path, mode, exist_ok=exist_ok)
        except Exists:
            if not (exist_ok and self.is_dir(path)):
                raise

    def unlink(self, path: str, *, skip_trash: bool = False) -> None:
        """Remove a file or link."""
        self._in_parent(path, lambda parent, name: self._meta.unlink(self.who, parent, name, skip_trash=skip_trash))

    def rmdir(self, path: str, *, skip_trash: bool = False) -> None:
        """Remove an empty directory."""
        self._in_parent(path, lambda parent, name: self._meta.rmdir(self.who, parent, name, skip_trash=skip_trash))

    def rmtree(self, path: str, *, skip_trash: bool = False, progress: Progress | None = None) -> int:
        """Remove a path and all below it; returns how many entries went."""
        return trees.remove(self, path, skip_trash=skip_trash, progress=progress)

    def rename(self, source: str, target: str, *, replace: bool = True, exchange: bool = False) -> None:
        """Give a path another name; without `replace` Exists when the target is there; `exchange` swaps both."""
        flags = RenameFlag.EXCHANGE if exchange else RenameFlag.NONE if replace else RenameFlag.NO_REPLACE

        def act(sparent: int, sname: bytes, tparent: int, tname: bytes) -> None:
            try:
                self._meta.rename(self.who, sparent, sname, tparent, tname, flags=flags)
            except FsError as error:
                raise _at(error, target if isinstance(error, Exists) else source) from error

        self._in_parent(source, lambda sparent, sname: self._in_parent(target, partial(act, sparent, sname)))

    def link(self, source: str, target: str) -> None:
        """Another name for a file."""
        self._on_node(
            source,
            lambda ino, _: self._in_parent(target, lambda parent, name: self._meta.link(self.who, ino, parent, name)),
            follow=False,
        )

    def symlink(self, target: str, path: str) -> None:
        """A symbolic link at `path` to `target`."""
        raw = paths.encode(target)
        self._in_parent(path, lambda parent, name: self._meta.symlink(self.who, parent, name, raw))

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""
        ino, attr = self._resolve(path, follow=False)
        if attr.kind != Kind.SYMLINK:
            raise Invalid("not a symbolic link", path)
        return paths.decode(self._meta.readlink(ino))

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._change(path, AttrChange(mode=mode))

    def chown(self, path: str, uid: int | None, gid: int | None, *, follow: bool = True) -> None:
        """Set owner and group; None keeps one."""
        self._change(path, AttrChange(uid=uid, gid=gid), follow=follow)

    def utime(self, path: str, *, atime_ns: int | None = None, mtime_ns: int | None = None) -> None:
        """Set the times; None keeps one."""
        self._change(path, AttrChange(atime_ns=atime_ns, mtime_ns=mtime_ns))

    def truncate(self, path: str, length: int) -> None:
        """Cut or extend a file."""
        self._on_node(path, lambda ino, _: self._vfs.truncate(self.who, ino, length))

    def getxattr(self, path: str, name: str, *, follow: bool = True) -> bytes:
        """Value of an extended attribute."""
        return self._on_node(path, lambda ino, _: self._meta.getxattr(ino, paths.encode(name)), follow=follow)

    def setxattr(
        self,
        path: str,
        name: str,
        value: bytes,
        *,
        how: Literal["set", "create", "replace"] = "set",
        follow: bool = True,
    ) -> None:
        """Set an extended attribute; "create" wants it absent, "replace" present."""
        raw = paths.encode(name)
        self._on_node(path, lambda ino, _: self._meta.setxattr(self.who, ino, raw, value, mode=how), follow=follow)

    def listxattr(self, path: str, *, follow: bool = True) -> list[str]:
        """Names of the extended attributes, sorted."""
        names = self._on_node(path, lambda ino, _: self._meta.listxattr(ino), follow=follow)
        return sorted(paths.decode(name) for name in names)

    def removexattr(self, path: str, name: str, *, follow: bool = True) -> None:
        """Remove an extended attribute."""
        raw = paths.encode(name)
        self._on_node(path, lambda ino, _: self._meta.removexattr(self.who, ino, raw), follow=follow)

    def set_immutable(self, path: str, on: bool, *, recursive: bool = False) -> int:
        """Set or clear the immutable flag, of a whole tree too; returns how many nodes changed."""
        self._vfs.sync()
        return trees.set_immutable(self, path, on=on, recursive=recursive)

    def clone(self, source: str, target: str, *, preserve: bool = False) -> Stat:
        """A new file or tree that shares all bytes with `source`."""
        self._vfs.sync()
        ino, attr = self._on_node(
            source,
            lambda ino, _: self._in_parent(
                target, lambda parent, name: self._meta.clone(self.who, ino, parent, name, preserve=preserve)
            ),
        )
        return Stat(paths.normal(target), ino, attr)

    def copy_range(self, source: str, source_offset: int, target: str, target_offset: int, length: int) -> int:
        """Share a range of one file with another, in place; returns the bytes, fewer at the source's end."""

        def act(source_ino: int, target_ino: int) -> int:
            self._vfs.settle(source_ino)
            self._vfs.settle(target_ino)
            try:
                return self._meta.copy_file_range(
                    self.who, source_ino, source_offset, target_ino, target_offset, length
                )
            finally:
                self._vfs.changed(target_ino)

        return self._on_node(source, lambda one, _: self._on_node(target, lambda two, _: act(one, two)))

    def compose(self, path: str, pieces: Sequence[Piece], *, mode: int = 0o644) -> ComposeReport:
        """A new file of ranges of others, new bytes and zeros; it appears at `path` whole, or not at all."""
        path = paths.normal(path)
        if self.exists(path, follow=False):
            raise Exists("", path)
        inodes: list[InodePiece] = [self._piece(piece) for piece in merge(pieces)]
        temporary = _temporary(path)
        stat = self.create(temporary, perm=mode)
        with self._only_whole(temporary):
            done = self._vfs.compose(Caller.root(), stat.ino, inodes)
            self.rename(temporary, path, replace=False)
        return ComposeReport(done.bytes_new, done.bytes_shared, done.records)

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file."""
        with self.open(path, "rb") as file:
            return file.readall()

    def write_bytes(self, path: str, data: Buffer) -> None:
        """Replace the content of a file, made if absent. Readers may see it half; see `write_atomic`."""
        with self.open(path, "wb") as file:
            file.write(data)

    def write_atomic(self, path: str, data: Buffer, *, replace: bool, perm: int = 0o644) -> None:
        """Put a whole file in place by one rename; without `replace` one of many writers wins, others get Exists."""
        path = paths.normal(path)
        if not replace and self.exists(path, follow=False):
            raise Exists("", path)
        temporary = _temporary(path)
        with self._only_whole(temporary):
            with self.open(temporary, "xb", perm=perm) as file:
                file.write(data)
            self.rename(temporary, path, replace=replace)

    def info(self, path: str) -> Info:
        """Inode, chunks, slices and objects of a path; the link itself, not what it points at."""
        ino, attr = self._resolve(path, follow=False)
        self._vfs.settle(ino)
        return trees.info(self._meta, paths.normal(path), ino, attr)

    def warm(self, tops: Sequence[str], progress: Progress | None = None) -> WarmReport:
        """Bring every byte of these paths, and of what lies below them, into the cache."""
        self._vfs.sync()
        return self._vfs.warm((stat.ino for stat in trees.regular(self, tops)), progress)

    def is_whole(self, path: str) -> bool:
        """Whether a file lies whole in the cache."""
        ino, attr = self._resolve(path)
        return self._vfs.wholes.holds(ino, attr)

    def cached_bytes(self, tops: Sequence[str]) -> int:
        """How many bytes of the blocks under these paths are in the cache."""
        return self._vfs.blocks.cached_bytes(trees.extents(self._meta, self, tops))

    def statfs(self) -> StatFs:
        """Capacity and usage of the volume."""
        return self._meta.statfs()

    def sync(self) -> None:
        """Make everything written through this process durable."""
        self._vfs.sync()

    def change(self, ino: int, change: AttrChange) -> Attr:
        """Set attributes of a node (for walks that know inodes)."""
        return self._meta.setattr(self.who, ino, change)

    def _resolve(self, path: str, *, follow: bool = True) -> tuple[int, Attr]:
        path = paths.normal(path)
        try:
            return self._meta.resolve(self.who, paths.encode(path), follow=follow)
        except FsError as error:
            raise _at(error, path) from error

    def _parent(self, path: str) -> tuple[int, bytes]:
        """The directory that holds a path, and the name in it."""
        parent, name = paths.split(path)
        if not name:
            raise Invalid("the root has no name", path)
        raw = paths.check_name(name)
        if parent == "/":
            return ROOT, raw
        ino, attr = self._resolve(parent)
        if not attr.is_dir:
            raise NotADir("", parent)
        return ino, raw

    def _on_node(self, path: str, act: Callable[[int, Attr], T], *, follow: bool = True) -> T:
        """`act` on the node at a path; once more when that node, known for up to a second, is gone by now."""
        ino, attr = self._resolve(path, follow=follow)
        try:
            with _named(path):
                return act(ino, attr)
        except NotFound:
            if not self._is_gone(ino):
                raise
        ino, attr = self._resolve(path, follow=follow)
        with _named(path):
            return act(ino, attr)

    def _in_parent(self, path: str, act: Callable[[int, bytes], T]) -> T:
        """`act` in the directory that holds a path; once more when that directory is gone by now."""
        parent, name = self._parent(path)
        try:
            with _named(path):
                return act(parent, name)
        except NotFound:
            if parent == ROOT or not self._is_gone(parent):
                raise
        parent, name = self._parent(path)
        with _named(path):
            return act(parent, name)

    def _is_gone(self, ino: int) -> bool:
        try:
            self._meta.getattr(ino, fresh=True)
        except NotFound:
            return True
        return False

    def _open(self, path: str, flags: int, perm: int) -> int:
        fh = self._open_node(path, flags, perm)
        if self.who.uid != 0 and flags & (os.O_WRONLY | os.O_RDWR):
            attr = self._vfs.attr_of(fh)
            if attr.mode & SETID:  # who writes to it must not become its owner
                self._on_node(path, lambda ino, _: self._meta.strip_privileges(ino, attr))
        return fh

    def _open_node(self, path: str, flags: int, perm: int) -> int:
        if not flags & os.O_CREAT:
            return self._on_node(path, lambda ino, _: self._vfs.open(self.who, ino, flags))
        for _ in range(MAX_LINKS):
            try:
                return self._in_parent(
                    path, lambda parent, name: self._vfs.create(self.who, parent, name, perm, flags | os.O_EXCL)[2]
                )
            except Exists:
                if flags & os.O_EXCL:
                    raise
            try:
                return self._on_node(path, lambda ino, _: self._vfs.open(self.who, ino, flags))
            except NotFound:
                path = self._dangling(path) or path  # or it was removed in between: try again
        raise NotFound("it leads through too many dangling links", path)

    def _dangling(self, path: str) -> str | None:
        """Where the dangling link at `path` points, to create the file there."""
        try:
            ino, attr = self._resolve(path, follow=False)
        except NotFound:
            return None
        if attr.kind != Kind.SYMLINK:
            return None
        target = paths.decode(self._meta.readlink(ino))
        return paths.normal(target if target.startswith("/") else f"{paths.parent_of(path)}/{target}")

    def _change(self, path: str, change: AttrChange, *, follow: bool = True) -> None:
        def act(ino: int, _: Attr) -> None:
            if change.mtime_ns is not None:
                self._vfs.settle(ino)
            self._meta.setattr(self.who, ino, change)

        self._on_node(path, act, follow=follow)

    def _entry_stat(self, base: str, entry: Entry) -> Stat:
        attr = entry.attr if entry.attr is not None else Attr(kind=entry.kind, mode=0, nlink=0)
        shown = self._vfs.overlaid(entry.ino, attr, self._meta.changes)
        return Stat(f"{base}/{paths.decode(entry.name)}", entry.ino, shown)

    def _piece(self, piece: Piece) -> InodePiece:
        if isinstance(piece, Data):
            return NewPiece(piece.chunks, piece.length)
        if not isinstance(piece, Range):
            return ZeroPiece(piece.length)
        return self._on_node(piece.path, lambda ino, attr: self._shared(ino, attr, piece))

    def _shared(self, ino: int, attr: Attr, piece: Range) -> SharedPiece:
        if not attr.is_file:
            raise Invalid("ranges come from regular files")
        end = piece.offset + piece.length
        since = self._meta.changes
        if end > self._vfs.overlaid(ino, attr, since).length:
            attr = self._meta.getattr(ino, fresh=True)
        if end > self._vfs.overlaid(ino, attr, since).length:
            raise Invalid(f"a range up to {end} of a file of {attr.length} bytes")
        self._meta.access(self.who, ino, os.R_OK)
        return SharedPiece(ino, piece.offset, piece.length)

    @contextlib.contextmanager
    def _only_whole(self, temporary: str) -> Iterator[None]:
        """Remove the temporary file when the body fails."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.unlink(temporary, skip_trash=True)
            raise


class _named:  # noqa: N801  reads as a statement
    """Errors that leave the body get a path."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, FsError) and not isinstance(error.filename, str):  # below, names are bytes
            raise _at(error, self._path) from error


def _at(error: FsError, path: str) -> FsError:
    return type(error)(error.detail, paths.normal(path))


def _temporary(path: str) -> str:
    parent, name = paths.split(path)
    return f"{parent.rstrip('/')}/{paths.beside(name)}"
