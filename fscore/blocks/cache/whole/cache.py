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
from fscore.blocks.cache.whole.folder import BYTES, PART, SUMS, Folder, name_of, parse
from fscore.blocks.cache.whole.layout import Layout
from fscore.blocks.cache.whole.record import CELL, Record, look_of
from fscore.domain.errors import CorruptError
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.metrics import Metrics
from fscore.runtime.threads import Pool

P = ParamSpec("P")

_REFUSED_S: Final = 60.0
"""How long a content that could not be assembled is left alone."""

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
        self._clock = clock or SystemClock()
        self._folder = Folder(home, self._clock)
        self._shelf = shelf
        self._metrics = metrics or Metrics()
        self._pool = Pool("whole", threads)
        self._lock = threading.Lock()
        self._live: dict[str, Assembly] = {}
        self._refused: dict[str, float] = {}
        self._checking: set[str] = set()
        self._chores: set[Future[None]] = set()
        self._turn: Iterator[tuple[str, int]] = iter(())
        self._later(self._scan)

    def might_hold(self, length: int) -> bool:
        """Whether any file of this length lies here: cheap, to be asked before a layout is looked up."""
        return self._folder.has_length(length)

    def open(self, layout: Layout) -> WholeFile | None:
        """The file with this content, if it lies here, whole and believed."""
        name = name_of(layout.key, layout.length)
        record = self._record(name)
        if record is None or record.length != layout.length:
            return None
        try:
            fd = self._folder.open(name)
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
        self._shelf.touch(name, layout.length, self._folder.remove)
        self._metrics.add("cache.whole.opens")
        return file

    def assemble(self, layout: Layout, load: Load) -> Assembly | None:
        """Begin to fill a file, or join whoever fills it in this process.

        None when it lies here already, when another process fills it, when there is no room, and for a while after it
        went wrong. Whoever got one calls `leave` once.
        """
        name = name_of(layout.key, layout.length)
        with self._lock:
            live = self._live.get(layout.key)
            if live is not None:
                if live.failed:
                    return None
                live.users += 1
                return live
            if self._refused.get(layout.key, 0) > self._clock.monotonic() or not layout.length:
                return None
        try:
            fd = self._folder.claim(name)
        except OSError as error:
            self._failed(name, str(error))
            return None
        if fd is None:
            return None
        if not self._shelf.reserve(name, layout.length, self._folder.remove):
            self._failed(name, "")
            self._refuse(layout.key)
            os.close(fd)
            return None
        try:
            made = Assembly(layout, fd, load, self._pool, self._ended)
        except OSError as error:  # longer than this filesystem lets a file be
            self._give_up(name, str(error))
            return None
        made.users = 1
        with self._lock:
            self._live[layout.key] = made
        return made

    def leave(self, assembly: Assembly, read: int, *, useless: bool = False) -> None:
        """Somebody reads through it no more. After the last, what was read, or filled, by half is filled to the end,
        else let go, as is what is `useless`.
        """
        with self._lock:
            assembly.users -= 1
            used = assembly.users > 0
        if used or assembly.whole or assembly.failed:
            return
        if not useless and 2 * max(assembly.filled, read) >= assembly.layout.length:
            assembly.prefetch(0, assembly.layout.length)
        else:
            assembly.fail()

    def verify(self, key: str, length: int) -> bool:
        """Read a file from end to end: believed again when every sum is right, dropped when one is not."""
        name = name_of(key, length)
        record = self._record(name)
        if record is None:
            return False
        try:
            fd = self._folder.open(name)
        except OSError:
            return False
        try:
            before = look_of(fd)
            if os.fstat(fd).st_size != length or not _sums_are_right(fd, record):
                self._spoiled(name, "a sum is wrong")
                return False
            if before != record.look and look_of(fd) == before:
                self._folder.write_record(name, record._replace(look=before))
            return True
        except OSError as error:
            logger.warning("whole file %s cannot be read: %s", name, error)
            return False
        finally:
            os.close(fd)

    def files(self) -> Iterator[tuple[str, int]]:
        """(key, length) of every file that lies here with its record."""
        for name, found in self._folder.walk():
            if found == {BYTES, SUMS}:
                yield parse(name)

    def scrub(self) -> int:
        """Verify every file; returns how many were wrong, and are gone."""
        return sum(not self.verify(key, length) for key, length in list(self.files()))

    def scrub_next(self) -> None:
        """Verify one file, the next in turn."""
        key, length = next(self._turn, ("", 0))
        if key:
            self.verify(key, length)
        else:
            self._turn = self.files()

    def flush(self) -> None:
        """Wait until what is whole has its name, and what was to be checked is checked."""
        with self._lock:
            live = list(self._live.values())
        for assembly in live:
            assembly.flush()
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
        for assembly in live:
            if not assembly.whole:
                assembly.fail()  # nobody listens any more
            self._finish(assembly)

    def _later(self, fn: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do it in the background; not at all once this is closed, which does the rest itself."""
        with suppress(RuntimeError):
            chore = self._pool.submit(fn, *args, **kwargs)
            with self._lock:
                self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)

    def _ended(self, assembly: Assembly) -> None:
        self._later(self._finish, assembly)

    def _finish(self, assembly: Assembly) -> None:
        layout = assembly.layout
        name = name_of(layout.key, layout.length)
        path = self._folder.path
        try:
            if assembly.failed:
                self._give_up(name, assembly.failure)
                return
            publish(assembly, path(name, PART), path(name, BYTES), path(name, SUMS))
            self._shelf.unpin(name)
            self._metrics.add("cache.whole.files")
            self._metrics.add("cache.whole.bytes", layout.length)
        except OSError as error:
            self._give_up(name, str(error))
        finally:
            with self._lock:
                self._live.pop(layout.key, None)

    def _give_up(self, name: str, why: str) -> None:
        self._shelf.unpin(name)
        self._shelf.forget(name)
        self._failed(name, why)

    def _failed(self, name: str, why: str) -> None:
        """Leave nothing behind; what went wrong is said, and the content left alone for a while."""
        self._folder.give_up(name)
        if why:
            self._refuse(parse(name)[0])
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
        self._folder.remove(name)
        self._shelf.forget(name)

    def _record(self, name: str) -> Record | None:
        try:
            return self._folder.record(name)
        except FileNotFoundError:
            return None
        except (OSError, CorruptError) as error:
            self._spoiled(name, str(error))
            return None

    def _check_later(self, name: str) -> None:
        with self._lock:
            if name in self._checking:
                return
            self._checking.add(name)
        self._later(self._check, name)

    def _check(self, name: str) -> None:
        try:
            self.verify(*parse(name))
        finally:
            with self._lock:
                self._checking.discard(name)

    def _scan(self) -> None:
        """Learn what lies here, and remove what processes that died left behind."""
        known: list[tuple[float, str]] = []
        for name, found in self._folder.walk():
            if found == {BYTES, SUMS}:
                with suppress(OSError):
                    known.append((self._folder.last_used(name), name))
            else:
                self._folder.sweep(name, found)
        known.sort(reverse=True)
        self._shelf.learn(((name, parse(name)[1]) for _, name in known), self._folder.remove)
        self._shelf.evict()


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
