"""The end of the deletion pipeline: what the metadata declares dead is deleted from the store, then forgotten.

Objects go before the record that names them, so a crash repeats a deletion and never loses track of one
(volume-format.md 2.9). Dead slices are pulled; metadata never calls back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import takewhile
from typing import NamedTuple

from fscore.blocks.store import BlockStore
from fscore.domain.errors import FsError, StoreError
from fscore.meta.service import MetaService
from fscore.runtime import log
from fscore.runtime.clock import Clock
from fscore.runtime.threads import Pool

_log = log.get(__name__)


class Collected(NamedTuple):
    """What one round deleted."""

    slices: int
    size: int
    failed: int


class Collector:
    """Runs the pipeline, one round at a time. Thread-safe."""

    def __init__(self, meta: MetaService, blocks: BlockStore, pool: Pool, clock: Clock) -> None:
        self._meta = meta
        self._blocks = blocks
        self._pool = pool
        self._clock = clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failures = 0

    def stop(self) -> None:
        """The client goes: a round that is under way ends with what has begun, another does nothing. Does not wait.

        `finish` still works.
        """
        self._stopped.set()
        self._meta.leaving()

    def collect(self) -> Collected:
        """Drop the records of deleted files and expired trash, then delete every dead slice."""
        with self._lock:
            self._purge(gated=True)
            return self._delete_dead(self._stopped.is_set)

    def collect_all(self) -> Collected:
        """As collect, whether or not another client did its part of it this hour: for gc."""
        with self._lock:
            self._purge(gated=False)
            return self._delete_dead(self._stopped.is_set)

    def finish(self, seconds: float) -> Collected:
        """For a client that goes: what it deleted itself leaves the store, as far as that is done in this time.

        A store that fails is left alone.
        """
        until = self._clock.monotonic() + seconds
        before = self._failures
        with self._lock:
            self._meta.purge_deleted()
            return self._delete_dead(lambda: self._clock.monotonic() > until or self._failures > before)

    def _purge(self, *, gated: bool) -> None:
        now_ns = self._clock.now_ns()
        for purge in (self._meta.purge_trash, self._meta.purge_deleted, self._meta.purge_delayed):
            if not self._stopped.is_set():
                purge(now_ns, gated=gated)

    def _delete_dead(self, over: Callable[[], bool]) -> Collected:
        slices = size = 0
        given_up: set[tuple[int, int]] = set()
        while True:
            dead = [] if over() else [item for item in self._meta.dead() if item not in given_up]
            if not dead:
                return Collected(slices, size, len(given_up))
            in_time = takewhile(lambda _: not over(), dead)
            outcome = list(zip(dead, self._pool.map_bounded(self._delete, in_time), strict=False))
            gone = [item for item, done in outcome if done]
            given_up.update(item for item, done in outcome if not done)
            self._meta.forget(gone)
            slices += len(gone)
            size += sum(length for _, length in gone)

    def _delete(self, item: tuple[int, int]) -> bool:
        try:
            self._blocks.delete(*item)
        except (FsError, StoreError) as error:
            self._failures += 1
            _log.warning("slice %d is dead and its objects could not be deleted, they stay queued: %s", item[0], error)
            return False
        return True
