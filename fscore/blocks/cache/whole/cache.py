"""Whole files in a directory of our own: `<cache-dir>/<volume UUID>/whole/<length>/<key>.bytes`, and `.sums` beside it.

Rule 1  a file is believed only with its record, and only while it looks as it did when the record was written; one that
        looks otherwise is read again from end to end, and dropped when a sum is wrong.
Rule 2  who fills a file holds its lock (`<key>.part`), so that of several processes one does; what a process that died
        left behind has no lock, and is removed.
Rule 3  the budget is the one of the block cache; open files and those that fill are pinned. A file that was removed by
        somebody else is missed without harm, and open ones outlive it.
Rule 4  a cache swallows its own troubles.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final, ParamSpec

from crc32c import crc32c

from fscore.blocks.cache.eviction import Shelf
from fscore.blocks.cache.whole.assembly import Assembly, Load, publish
from fscore.blocks.cache.whole.file import WholeFile, fill
from fscore.blocks.cache.whole.layout import Layout
from fscore.blocks.cache.whole.record import CELL, Record, look_of, unpack
from fscore.domain.errors import CorruptError
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.metrics import Metrics
from fscore.runtime.threads import Pool

FOLDER: Final = "whole/"
_REFUSED_S: Final = 60.0
"""How long a content that could not be assembled is left alone."""

_STALE_TEMP_S: Final = 3600
_TRIES: Final = 3
_TRY_AGAIN_S: Final = 0.005

P = ParamSpec("P")

logger = log.get(__name__)


class WholeCache:
    """The whole files of one volume. Thread-safe."""

    def __init__(
        self,
        home: str,
        shelf: Shelf,
        *,
        threads: int = 8,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`home` is the volume's directory in the cache, `shelf` the budget that it shares with the blocks there."""
        self._home = home.rstrip("/") + "/"
        self._shelf = shelf
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self._pool = Pool("whole", threads)
        self._lock = threading.Lock()
        self._live: dict[str, Assembly] = {}
        self._refused: dict[str, float] = {}
        self._checking: set[str] = set()
        self._chores: set[Future[None]] = set()
        self._later(self._scan)

    def might_hold(self, length: int) -> bool:
        """Whether any file of this length lies here: cheap, to be asked before a layout is looked up."""
        return os.access(f"{self._home}{FOLDER}{length}", os.F_OK)

    def open(self, layout: Layout) -> WholeFile | None:
        """The file with this content, if it lies here, whole and believed."""
        name = _name(layout.key, layout.length)
        record = self._record(name)
        if record is None or record.length != layout.length:
            return None
        try:
            fd = os.open(self._home + name + ".bytes", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._shelf.forget(name)
            return None
        self._shelf.pin(name)
        file = WholeFile(layout.key, layout.length, fd, partial(self._shelf.unpin, name))
        if os.fstat(fd).st_size != layout.length:
            self._spoiled(name, "its length is wrong")
            return None
        if look_of(fd) != record.look:
            self._check_later(name)
            return None
        self._shelf.touch(name, layout.length, self._remove)
        self._metrics.add("cache.whole.opens")
        return file

    def assembly(self, key: str) -> Assembly | None:
        """The file of this content that is being filled here."""
        return self._live.get(key)

    def assemble(self, layout: Layout, load: Load) -> Assembly | None:
        """Begin to fill a file, or join whoever fills it in this process.

        None when it lies here already, when another process fills it, when there is no room, and for a while after it
        went wrong.
        """
        name = _name(layout.key, layout.length)
        with self._lock:
            live = self._live.get(layout.key)
            if live is not None:
                return live
            if self._refused.get(layout.key, 0) > self._clock.monotonic() or not layout.length:
                return None
        try:
            fd = self._claim(name)
        except OSError as error:
            self._failed(name, str(error))
            return None
        if fd is None:
            return None
        if not self._shelf.reserve(name, layout.length, self._remove):
            self._failed(name, "")
            self._refuse(layout.key)
            os.close(fd)
            return None
        try:
            made = Assembly(layout, fd, load, self._pool, self._ended)
        except OSError as error:  # longer than this filesystem lets a file be
            self._give_up(name, str(error))
            return None
        with self._lock:
            self._live[layout.key] = made
        return made

    def leave(self, assembly: Assembly, read: int) -> None:
        """Nobody reads through it any more: what was read, or filled, by half is filled to the end, else let go."""
        if assembly.whole or assembly.failed:
            return
        if 2 * max(assembly.filled, read) >= assembly.layout.length:
            assembly.prefetch(0, assembly.layout.length)
        else:
            assembly.fail()

    def verify(self, key: str, length: int) -> bool:
        """Read a file from end to end: believed again when every sum is right, dropped when one is not."""
        name = _name(key, length)
        record = self._record(name)
        try:
            fd = os.open(self._home + name + ".bytes", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if record is None:
                return False
            before = look_of(fd)
            if os.fstat(fd).st_size != length or not _sums_are_right(fd, record):
                self._spoiled(name, "a sum is wrong")
                return False
            if before != record.look and look_of(fd) == before:
                self._write_record(name, record._replace(look=before))
            return True
        except OSError as error:
            logger.warning("whole file %s cannot be read: %s", name, error)
            return False
        finally:
            os.close(fd)

    def files(self) -> Iterator[tuple[str, int]]:
        """(key, length) of every file that lies here with its record."""
        for name, found in self._walk():
            if found == {".bytes", ".sums"}:
                length, key = name.removeprefix(FOLDER).split("/")
                yield key, int(length)

    def scrub(self) -> int:
        """Verify every file; returns how many were wrong, and are gone."""
        return sum(not self.verify(key, length) for key, length in list(self.files()))

    def flush(self) -> None:
        """Wait until what is whole has its name, and what was to be checked is checked."""
        with self._lock:
            chores = list(self._chores)
        for chore in chores:
            chore.exception()

    def close(self) -> None:
        """Join the threads; what is not whole is let go, what is stays."""
        self.flush()
        self._pool.close()
        with self._lock:
            live = list(self._live.values())
            self._live.clear()
        for assembly in live:
            if assembly.whole:
                self._finish(assembly)
            else:
                self._give_up(_name(assembly.layout.key, assembly.layout.length), "")

    def _claim(self, name: str) -> int | None:
        """An empty file to fill, locked; None if it is there already or somebody else's."""
        path = self._home + name
        os.makedirs(path.rsplit("/", 1)[0], exist_ok=True)  # noqa: PTH103
        if os.access(path + ".sums", os.F_OK) and os.access(path + ".bytes", os.F_OK):
            return None
        for _ in range(_TRIES):
            fd = os.open(path + ".part", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_ours(fd, path):
                os.ftruncate(fd, 0)
                return fd
            os.close(fd)
            self._clock.sleep(_TRY_AGAIN_S)  # who sweeps holds the lock for a moment
        return None

    def _ended(self, assembly: Assembly) -> None:
        self._later(self._finish, assembly)

    def _later(self, fn: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do it in the background; not at all once this is closed, which does the rest itself."""
        with suppress(RuntimeError):
            chore = self._pool.submit(fn, *args, **kwargs)
            with self._lock:
                self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)

    def _finish(self, assembly: Assembly) -> None:
        layout = assembly.layout
        name = _name(layout.key, layout.length)
        path = self._home + name
        try:
            if not assembly.failed:
                publish(assembly, path + ".part", path + ".bytes", path + ".sums")
        except OSError as error:
            self._give_up(name, str(error))
        else:
            if assembly.failed:
                self._give_up(name, assembly.failure)
            else:
                self._shelf.unpin(name)
                self._metrics.add("cache.whole.files")
                self._metrics.add("cache.whole.bytes", layout.length)
        finally:
            with self._lock:
                self._live.pop(layout.key, None)

    def _give_up(self, name: str, why: str) -> None:
        self._shelf.unpin(name)
        self._shelf.forget(name)
        self._failed(name, why)

    def _failed(self, name: str, why: str) -> None:
        """Leave nothing behind; what went wrong is said, and the content left alone for a while."""
        for suffix in (".part", ".sums", ".bytes"):
            with suppress(OSError):
                os.unlink(self._home + name + suffix)  # noqa: PTH108
        if why:
            self._refuse(name.rsplit("/", 1)[1])
            self._metrics.add("cache.whole.failed")
            logger.warning("%s cannot be kept whole: %s", name, why)

    def _refuse(self, key: str) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._refused = {other: until for other, until in self._refused.items() if until > now}
            self._refused[key] = now + _REFUSED_S

    def _spoiled(self, name: str, why: str) -> None:
        self._metrics.add("cache.whole.corrupt")
        logger.error("cached file %s is damaged (%s): it is dropped and fetched again", name, why)
        self._remove(name)
        self._shelf.forget(name)

    def _check_later(self, name: str) -> None:
        with self._lock:
            if name in self._checking:
                return
            self._checking.add(name)
        self._later(self._check, name)

    def _check(self, name: str) -> None:
        try:
            length, key = name.removeprefix(FOLDER).split("/")
            self.verify(key, int(length))
        finally:
            with self._lock:
                self._checking.discard(name)

    def _record(self, name: str) -> Record | None:
        try:
            with open(self._home + name + ".sums", "rb", buffering=0) as file:  # noqa: PTH123
                return unpack(file.read())
        except FileNotFoundError:
            return None
        except (OSError, CorruptError) as error:
            self._spoiled(name, str(error))
            return None

    def _write_record(self, name: str, record: Record) -> None:
        path = f"{self._home}{name}.sums"
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:  # noqa: PTH123
            file.write(record.pack())
        os.rename(temporary, path)  # noqa: PTH104

    def _remove(self, name: str) -> bool:
        """Remove a file, the record first; whether it was there."""
        with suppress(OSError):
            os.unlink(self._home + name + ".sums")  # noqa: PTH108
        try:
            os.unlink(self._home + name + ".bytes")  # noqa: PTH108
        except OSError:
            return False
        return True

    def _scan(self) -> None:
        """Learn what lies here, and remove what processes that died left behind."""
        known: list[tuple[float, str, int]] = []
        for name, found in self._walk():
            if found == {".bytes", ".sums"}:
                with suppress(OSError):
                    seen = os.stat(self._home + name + ".sums")  # noqa: PTH116
                    known.append((max(seen.st_atime, seen.st_mtime), name, int(name.split("/")[1])))
            else:
                self._sweep(name, found)
        known.sort(reverse=True)
        self._shelf.learn(((name, size) for _, name, size in known), self._remove)
        self._shelf.evict()

    def _walk(self) -> Iterator[tuple[str, set[str]]]:
        """Names, each with the suffixes that are there."""
        top = self._home + FOLDER
        for length in _listed(top):
            names: dict[str, set[str]] = {}
            for entry in _listed(top + length) if length.isdecimal() else ():
                key, dot, suffix = entry.partition(".")
                names.setdefault(f"{FOLDER}{length}/{key}", set()).add(dot + suffix)
            yield from names.items()

    def _sweep(self, name: str, found: set[str]) -> None:
        path = self._home + name
        for suffix in sorted(found - {".sums"}):
            with suppress(OSError):
                fd = os.open(path + suffix, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self._sweep_one(fd, path, suffix)
                finally:
                    os.close(fd)
        if ".bytes" not in found:
            with suppress(OSError):
                os.unlink(path + ".sums")  # noqa: PTH108

    def _sweep_one(self, fd: int, path: str, suffix: str) -> None:
        if suffix.endswith(".tmp"):
            if self._clock.now_ns() / 1e9 - os.fstat(fd).st_mtime > _STALE_TEMP_S:
                os.unlink(path + suffix)  # noqa: PTH108
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever fills it has it locked until the record is written
        if suffix == ".part" or not os.access(path + ".sums", os.F_OK):
            os.unlink(path + suffix)  # noqa: PTH108


def _name(key: str, length: int) -> str:
    return f"{FOLDER}{length}/{key}"


def _is_ours(fd: int, path: str) -> bool:
    """Lock the file that shall be filled. False if another has it, or had it until a moment ago."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path + ".part").st_ino != os.fstat(fd).st_ino:  # noqa: PTH116
            return False
    except (BlockingIOError, FileNotFoundError):
        return False
    if os.access(path + ".sums", os.F_OK):
        os.unlink(path + ".part")  # noqa: PTH108
        return False
    return True


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _sums_are_right(fd: int, record: Record) -> bool:
    buffer = memoryview(bytearray(min(CELL, record.length)))
    for cell, value in enumerate(record.sums):
        start = cell * CELL
        view = buffer[: min(CELL, record.length - start)]
        try:
            fill(fd, start, view)
        except CorruptError:
            return False
        if crc32c(view) != value:
            return False
    return True
