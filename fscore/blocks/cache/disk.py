"""Blocks in files of a directory of our own: `<cache-dir>/<volume UUID>/raw/<key>`, plain bytes and a trailer of sums.

Rule 1  every byte that comes out was checked against the trailer; an entry that fails is dropped and counted.
Rule 2  the files are the truth, the index only remembers them: it is built in the background after a start, and a file
        that another process wrote is found, one that it removed is missed, without harm.
Rule 3  files appear by rename, whole; nothing is synced, for a cache may lose anything.
Rule 4  least recently used out first, when the files outgrow the limit or the disk runs out of free space.
Raw system calls: this is the hot path of every warm read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final

from fscore.blocks.cache.eviction import Shelf
from fscore.blocks.cache.opened import OpenBlock, OpenBlocks
from fscore.blocks.cache.sums import trailer, trailer_size
from fscore.domain.errors import SettingError
from fscore.runtime import log
from fscore.runtime.buffer import Buffer, as_view
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.metrics import Metrics
from fscore.runtime.threads import Pool

_MARK: Final = ".fscore"
_RAW: Final = "raw/"
_STALE_TEMP_S: Final = 3600
_RESCAN_S: Final = 600.0  # between two looks at what other processes did
_WRITE: Final = 128 << 10
"""Bytes that are written to a file at a time. For a write of megabytes the kernel takes one large piece of memory,
the kind that it uses last and that a hypervisor takes back first: where that had to be given anew, blocks came three
times slower."""
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

logger = log.get(__name__)


class DiskCache:
    """At most `limit` bytes of files, and at least `free_ratio` of the disk left free."""

    def __init__(
        self,
        directory: str,
        uuid: str,
        *,
        limit: int,
        free_ratio: float = 0.1,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._raw = f"{directory.rstrip('/')}/{uuid}/raw/"
        self._metrics = metrics or Metrics()
        self._lock = threading.Lock()
        self._opened = OpenBlocks()
        self._numbers = itertools.count(1)
        self._pool = Pool("cache-index", 1)
        self._scanned = threading.Event()
        self._scan_due = float("-inf")
        self.home: Final = f"{directory.rstrip('/')}/{uuid}"
        _claim(self.home)
        self.shelf: Final = Shelf(
            self.home, limit=limit, free_ratio=free_ratio, clock=self._clock, metrics=self._metrics
        )

    @property
    def used(self) -> int:
        """Bytes of the files, trailers included, as far as this process knows."""
        self._scan_if_due()
        self._scanned.wait(30)
        return self.shelf.used

    def get(self, key: str, off: int, length: int) -> bytes | None:
        """Part of a block, checked."""
        size = _size_of(key)
        if size is None or length <= 0 or off + length > size:
            return None
        found: list[bytes] = []

        def read(block: OpenBlock) -> bool:
            data = block.read(off, length)
            found.extend(() if data is None else (data,))
            return data is not None

        return found[0] if self._checked(key, size, length, read) else None

    def get_into(self, key: str, off: int, buffer: memoryview) -> bool:
        """Part of a block straight into `buffer`, checked."""
        size = _size_of(key)
        length = len(buffer)
        if size is None or not length or off + length > size:
            return False
        return self._checked(key, size, length, lambda block: bool(block.read_into(off, buffer)))

    def peek(self, key: str, off: int, length: int) -> Buffer | None:
        """Part of a block whose file is open and in the page cache, checked; else None, at once."""
        block = self._opened.get(key)
        if block is None or length <= 0 or off + length > block.size:
            return None
        data = bytearray(length)
        if not block.read_into(off, memoryview(data), wait=False):
            return None  # a damaged one is for `get` to drop
        self._touch(key, block.size)
        self._metrics.add("cache.disk.peek.bytes", length)
        return data

    def put(self, key: str, data: Buffer, *, wait: bool = False) -> None:
        """Write a block beside and rename it into place; what goes wrong is counted, never raised."""
        view = as_view(data)
        if len(view) != _size_of(key) or not self.keeps(len(view)) or not self.shelf.room(len(view)):
            return
        path = self._raw + key
        temp = f"{path}.{os.getpid()}-{next(self._numbers)}.tmp"
        try:
            fd = _create(temp)
            try:
                _write_all(fd, view, trailer(view))
            finally:
                os.close(fd)
            os.rename(temp, path)  # noqa: PTH104
        except OSError as error:
            self._metrics.add("cache.disk.errors")
            logger.warning("block %s cannot be cached: %s", key, error)
            with contextlib.suppress(OSError):
                os.unlink(temp)  # noqa: PTH108
            return
        self._metrics.add("cache.disk.put.bytes", len(view))
        self._touch(key, len(view))
        self.shelf.evict()
        self._scan_if_due()

    def keeps(self, size: int) -> bool:
        """Whether it fits."""
        return size + trailer_size(size) <= self.shelf.limit

    def contains(self, key: str) -> bool:
        """Whether the file is there now."""
        if _RAW + key in self.shelf:
            return True
        return os.access(self._raw + key, os.F_OK)

    def drop(self, key: str) -> None:
        """Remove the file."""
        self._opened.drop(key)
        with contextlib.suppress(OSError):
            os.unlink(self._raw + key)  # noqa: PTH108
        self.shelf.forget(_RAW + key)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Join the index thread, close the files; they stay."""
        self._scanned.set()
        self._pool.close()
        self._opened.clear()

    def _checked(self, key: str, size: int, length: int, read: Callable[[OpenBlock], bool]) -> bool:
        """Let `read` take from the block's file what is sound; drop the file if it is not."""
        start = self._clock.monotonic()
        block = self._opened.get(key)
        if block is None:
            try:
                block = OpenBlock(self._raw + key, size)
            except OSError:
                self.shelf.forget(_RAW + key)
                self._metrics.add("cache.disk.miss")
                return False
        try:
            sound = read(block)
        except OSError as error:
            logger.warning("cached block %s cannot be read: %s", key, error)
            sound = False
        if not sound:
            self._metrics.add("cache.disk.corrupt")
            logger.warning("cached block %s is damaged; it is fetched again", key)
            self.drop(key)
            return False
        self._opened.put(key, block)
        self._touch(key, size)
        self._metrics.observe("cache.disk.hit", self._clock.monotonic() - start)
        self._metrics.add("cache.disk.hit.bytes", length)
        return True

    def _touch(self, key: str, size: int) -> None:
        self.shelf.touch(_RAW + key, size + trailer_size(size), self._remove)

    def _remove(self, name: str) -> bool:
        """Remove the file that the shelf calls `name`."""
        key = name.removeprefix(_RAW)
        self._opened.drop(key)
        try:
            os.unlink(self._raw + key)  # noqa: PTH108
        except OSError:
            return False
        return True

    def _scan_if_due(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if now < self._scan_due:
                return
            self._scan_due = now + _RESCAN_S
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._pool.submit(self._scan)

    def _scan(self) -> None:
        """Learn what lies on the disk: what we did not know counts as older than what we used."""
        try:
            found = sorted(self._walk(), reverse=True)
            self.shelf.learn(((_RAW + key, total) for _, key, total in found), self._remove)
            self.shelf.evict()
        finally:
            self._scanned.set()

    def _walk(self) -> Iterator[tuple[float, str, int]]:
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self._raw + folder) as entries:
                    for entry in entries:
                        key = folder + entry.name
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(key + "/")
                            continue
                        with contextlib.suppress(OSError):
                            found = entry.stat(follow_symlinks=False)
                            if entry.name.endswith(".tmp"):
                                _drop_stale(entry.path, found.st_mtime, self._clock.now_ns() / 1e9)
                            else:
                                yield max(found.st_atime, found.st_mtime), key, found.st_size
            except OSError:
                continue


def _create(temp: str) -> int:
    try:
        return os.open(temp, _CREATE, 0o600)
    except FileNotFoundError:
        os.makedirs(temp.rsplit("/", 1)[0], exist_ok=True)  # noqa: PTH103
        return os.open(temp, _CREATE, 0o600)


def _write_all(fd: int, view: memoryview, tail: bytes) -> None:
    for data in (view, memoryview(tail)):
        written = 0
        while written < len(data):
            written += os.write(fd, data[written : written + _WRITE])


def _size_of(key: str) -> int | None:
    """The plain length that a block's key ends with."""
    tail = key.rsplit("_", 1)[-1]
    return int(tail) if tail.isdecimal() and len(tail) < 12 else None


def _drop_stale(path: str, mtime: float, now: float) -> None:
    if now - mtime > _STALE_TEMP_S:
        os.unlink(path)  # noqa: PTH108


def _claim(directory: str) -> None:
    """Make the directory ours. SettingError if a JuiceFS client writes there: sharing it could lose its data."""
    mark = f"{directory}/{_MARK}"
    try:
        if os.path.exists(f"{directory}/.lock") and not os.path.exists(mark):  # noqa: PTH110
            raise SettingError(
                f"cache directory {directory} belongs to a JuiceFS client; give fscore a cache directory of its own"
            )
        os.makedirs(f"{directory}/raw", exist_ok=True)  # noqa: PTH103
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SettingError(f"cache directory {directory} cannot be used: {error.strerror}") from error
