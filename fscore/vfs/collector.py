"""The end of the deletion pipeline: what the metadata declares dead is deleted from the store, then forgotten.

Objects go before the record that names them, so a crash repeats a deletion and never loses track of one
(volume-format.md 2.9). Dead slices are pulled; metadata never calls back.
"""

from __future__ import annotations

import threading
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

    def collect(self) -> Collected:
        """Drop the records of deleted files and expired trash, then delete every dead slice."""
        with self._lock:
            self._purge(gated=True)
            return self._delete_dead(float("inf"))

    def collect_all(self) -> Collected:
        """As collect, whether or not another client did its part of it this hour: for gc."""
        with self._lock:
            self._purge(gated=False)
            return self._delete_dead(float("inf"))

    def finish(self, seconds: float) -> Collected:
        """For a client that goes: what it deleted itself leaves the store, as far as that is done in this time."""
        with self._lock:
            until = self._clock.monotonic() + seconds
            self._meta.purge_deleted()
            return self._delete_dead(until)

    def _purge(self, *, gated: bool) -> None:
        now_ns = self._clock.now_ns()
        self._meta.purge_trash(now_ns, gated=gated)
        self._meta.purge_deleted(now_ns, gated=gated)
        self._meta.purge_delayed(now_ns, gated=gated)

    def _delete_dead(self, until: float) -> Collected:
        slices = size = 0
        given_up: set[tuple[int, int]] = set()
        while True:
            dead = [item for item in self._meta.dead() if item not in given_up]
            if not dead or self._clock.monotonic() > until:
                return Collected(slices, size, len(given_up))
            outcome = list(zip(dead, self._pool.map_bounded(self._delete, dead), strict=True))
            gone = [item for item, done in outcome if done]
            given_up.update(item for item, done in outcome if not done)
            self._meta.forget(gone)
            slices += len(gone)
            size += sum(length for _, length in gone)

    def _delete(self, item: tuple[int, int]) -> bool:
        try:
            self._blocks.delete(*item)
        except (FsError, StoreError) as error:
            _log.warning("slice %d is dead and its objects could not be deleted, they stay queued: %s", item[0], error)
            return False
        return True
