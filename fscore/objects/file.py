"""Objects as files below a directory, laid out as JuiceFS's `file` storage does: the path is root + key.

A put writes `.jfs.<base>.tmp.<n>` beside the target, makes it durable, and renames it into place; then the directory is
made durable too, once for all puts that wait for it. Raw system calls throughout: this is a hot path.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final

from fscore.domain.errors import (
    Denied,
    FsError,
    Invalid,
    NoSpace,
    NotFound,
    ReadOnly,
    StoreError,
    TooLong,
    TransientError,
    UnavailableError,
)
from fscore.objects.api import Buffer, Durable, ObjectInfo, ObjectStore, as_view, check_key
from fscore.objects.unsynced import Unsynced

_TEMP_BASE: Final = 200  # JuiceFS cuts the base of a temporary name here; a name may have 255 bytes
_AGAIN: Final = frozenset(
    {errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
_KINDS: Final[dict[int, type[FsError]]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.EISDIR: NotFound,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EROFS: ReadOnly,
    errno.ENAMETOOLONG: TooLong,
    errno.EINVAL: Invalid,
}
_BLOCKED: Final = frozenset({errno.ENOTDIR, errno.EISDIR})
"""For a put: another key ends where this one goes on, or goes on where this one ends; files cannot be both."""


class FileStore(ObjectStore):
    """A directory of objects. A crash of this process takes nothing; a power cut may take what was put since the last
    `sync` with `durable="fsync"`, what the system had not written yet with False, and nothing by default.
    """

    def __init__(self, root: str, *, durable: Durable = True) -> None:
        self._root = root if root.endswith("/") else root + "/"
        self.location = f"file://{self._root}"
        self._durable = durable
        self._numbers = itertools.count(1)
        self._syncs = _DirectorySyncs()
        self._unsynced = Unsynced(self._root)

    @property
    def fills(self) -> bool:
        """By read(2)."""
        return True

    def put(self, key: str, data: Buffer) -> None:
        """Write beside, make durable, rename into place."""
        path = self._path(key)
        with _seam(key, self.location, _BLOCKED):
            temp = self._write_temp(path, data)
            try:
                os.rename(temp, path)  # noqa: PTH104
            except OSError:
                self._discard(temp)
                raise
            self._settle(path)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """As put, but the name is taken by a link, which fails where the key exists."""
        path = self._path(key)
        with _seam(key, self.location, _BLOCKED):
            temp = self._write_temp(path, data)
            try:
                os.link(temp, path)
            except FileExistsError:
                return False
            finally:
                self._discard(temp)
            self._settle(path)
        return True

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Bytes of the file, by one read where the system gives them at once."""
        path = self._path(key)
        with _seam(key, self.location):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if length is None:
                    length = max(0, os.fstat(fd).st_size - offset)
                data = os.pread(fd, length, offset)
                if len(data) == length or not data:
                    return data
                parts = [data]
                got = len(data)
                while got < length and (data := os.pread(fd, length - got, offset + got)):
                    parts.append(data)
                    got += len(data)
                return b"".join(parts)
            finally:
                os.close(fd)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """The whole file straight into `buffer`."""
        path = self._path(key)
        with _seam(key, self.location), open(path, "rb", buffering=0) as file:  # noqa: PTH123  a hot path
            size = os.fstat(file.fileno()).st_size
            got = 0
            while got < size <= len(buffer):
                n = file.readinto(buffer[got:size])
                if not n:
                    return got, {}  # it was cut off meanwhile
                got += n
            return size, {}

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Bytes of the file straight into `buffer`."""
        path = self._path(key)
        got = 0
        with _seam(key, self.location):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while got < len(buffer):
                    n = os.preadv(fd, [buffer[got:]], offset + got)
                    if n == 0:
                        break
                    got += n
            finally:
                os.close(fd)
        return got

    def head(self, key: str) -> ObjectInfo:
        """Size and time of the file."""
        path = self._path(key)
        with _seam(key, self.location):
            found = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(f"{key!r} in {self.location} is no object")
        return ObjectInfo(key, found.st_size, found.st_mtime_ns)

    def delete(self, key: str) -> None:
        """Unlink the file. Its directory stays, as JuiceFS leaves it."""
        path = self._path(key)
        with contextlib.suppress(NotFound), _seam(key, self.location):
            os.unlink(path)  # noqa: PTH108

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects in key order; holds the names of one directory a level, never all."""
        folder = prefix[: prefix.rfind("/") + 1]
        if prefix:
            check_key((prefix + "x") if prefix.endswith("/") else prefix)
        yield from self._walk(folder, os.fsencode(prefix), os.fsencode(start_after))

    def _walk(self, folder: str, prefix: bytes, after: bytes) -> Iterator[ObjectInfo]:
        for raw, key, entry in self._entries(folder):
            if raw.endswith(b"/"):
                wanted = raw.startswith(prefix) or prefix.startswith(raw)
                if wanted and (raw > after or after.startswith(raw)):
                    yield from self._walk(key, prefix, after)
            elif raw.startswith(prefix) and raw > after:
                try:
                    with _seam(key, self.location):
                        found = entry.stat()
                except NotFound:
                    continue  # deleted while we listed
                if stat.S_ISREG(found.st_mode):
                    yield ObjectInfo(key, found.st_size, found.st_mtime_ns)

    def _entries(self, folder: str) -> list[tuple[bytes, str, os.DirEntry[str]]]:
        """One directory in key order: a folder sorts by its name with the `/`, as it does in its objects' keys."""
        entries: list[tuple[bytes, str, os.DirEntry[str]]] = []
        try:
            with _seam(folder, self.location), os.scandir(self._root + folder) as listing:
                for entry in listing:
                    if entry.name.startswith(".jfs.") and ".tmp." in entry.name:
                        continue
                    key = folder + entry.name + ("/" if entry.is_dir() else "")
                    entries.append((os.fsencode(key), key, entry))
        except NotFound:
            return []
        entries.sort(key=lambda item: item[0])
        return entries

    def _path(self, key: str) -> str:
        return self._root + check_key(key)

    def _write_temp(self, path: str, data: Buffer) -> str:
        folder, base = path.rsplit("/", 1)
        view = as_view(data)
        temp, fd = self._open_temp(folder, base)
        try:
            try:
                written = 0
                while written < len(view):
                    written += os.write(fd, view[written:])
                if self._durable is True:
                    os.fdatasync(fd)
            finally:
                os.close(fd)
        except BaseException:
            self._discard(temp)
            raise
        return temp

    def _open_temp(self, folder: str, base: str) -> tuple[str, int]:
        while True:
            temp = f"{folder}/.jfs.{base[:_TEMP_BASE]}.tmp.{os.getpid()}{next(self._numbers):06d}"
            try:
                return temp, os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                continue  # a crash of an earlier process with our number left it
            except FileNotFoundError:
                self._make_folder(folder)

    def _make_folder(self, folder: str) -> None:
        made: list[str] = []
        parent = folder
        while parent and not os.path.isdir(parent):  # noqa: PTH112
            made.append(parent)
            parent = parent.rsplit("/", 1)[0]
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        for path in made:
            above = path.rsplit("/", 1)[0] or "/"
            if self._durable is True:
                self._syncs.sync(above)
            elif self._durable:
                self._unsynced.add_folder(above)

    def _settle(self, path: str) -> None:
        if self._durable is True:
            self._syncs.sync(path.rsplit("/", 1)[0])
        elif self._durable:
            self._unsynced.add(path)

    def sync(self) -> None:
        """Make durable what was put before and is not yet."""
        with _seam("", self.location):
            self._unsynced.sync()

    def _discard(self, temp: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(temp)  # noqa: PTH108


class _DirectorySyncs:
    """Makes directory entries durable; those who wait for the same directory share one fsync."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: dict[str, _Folder] = {}

    def sync(self, path: str) -> None:
        with self._lock:
            folder = self._folders.get(path)
            if folder is None:
                folder = self._folders[path] = _Folder()
            folder.users += 1
            folder.asked += 1
            ticket = folder.asked
        try:
            with folder.turn:
                if folder.synced < ticket:
                    upto = folder.asked  # every rename that asked before this line is on the disk after the fsync
                    _fsync_path(path)
                    folder.synced = upto
        finally:
            with self._lock:
                folder.users -= 1
                if not folder.users:
                    del self._folders[path]


class _Folder:
    __slots__ = ("asked", "synced", "turn", "users")

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.users = 0
        self.asked = 0
        self.synced = 0


def _fsync_path(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _seam(key: str, location: str, invalid: frozenset[int] = frozenset()) -> Iterator[None]:
    """The one place where the system's errors become ours; those in `invalid` mean that the key cannot be."""
    try:
        yield
    except (FsError, StoreError):
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        reason = f"object {key!r} in {location}: {os.strerror(number)}"
        kind = Invalid if number in invalid else _KINDS.get(number)
        if kind is not None:
            raise kind(reason) from error
        if number in _AGAIN:
            raise TransientError(reason) from error
        raise UnavailableError(reason) from error
