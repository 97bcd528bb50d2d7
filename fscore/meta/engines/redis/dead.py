"""Slices that have lost their last reference: what this client let go at once, what others left behind once an hour.

`sliceRef` alone decides: a slice is dead while its stored count is below zero (volume-format.md 2.9). What is kept here
are suspects, every slice that a transaction of this client dropped a reference of, and they are looked up before they
are given out. So a suspect too many costs a field of one HMGET, and one too few, in a process that died or under a lost
connection, is found by the sweep of the whole hash, which is due when this client wins the gate of that job.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

from fscore.meta.engines.redis import scans, scripts
from fscore.meta.engines.redis.keys import Keys, parse_ref, ref_field
from fscore.meta.engines.redis.link import Link

SWEEP_GATE: Final = "nextCleanupSlices"
MOST_SUSPECTS: Final = 100_000
"""More are not remembered: the hash is swept instead."""

Slice = tuple[int, int]


class DeadSlices:
    """The suspects of one engine. Thread-safe."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._lock = threading.Lock()
        self._suspects: dict[Slice, int] = {}
        self._dropped = itertools.count()
        self._sweep = False

    def dropped(self, writes: Iterable[Sequence[Any]]) -> None:
        """These writes were sent: remember the slices that they drop references of."""
        refs = self._keys.slice_ref
        fields = [write[2] for write in writes if write[1] == refs and write[0] == "HINCRBY" and write[3] < 0]
        self.suspect(pair for pair in map(parse_ref, fields) if pair is not None)

    def suspect(self, slices: Iterable[Slice]) -> None:
        """Remember slices that may be dead now."""
        with self._lock:
            for pair in slices:
                if len(self._suspects) >= MOST_SUSPECTS and pair not in self._suspects:
                    self._sweep = True
                    return
                self._suspects[pair] = next(self._dropped)

    def sweep(self) -> None:
        """This client's turn to look through the whole hash; it does when it is asked for dead slices."""
        with self._lock:
            self._sweep = True

    def take(self, limit: int) -> list[Slice]:
        """Up to `limit` dead slices; they come again until they are forgotten."""
        dead = self._confirmed(limit)
        if len(dead) < limit and self._sweep:
            self._look_through()
            dead = self._confirmed(limit)
        return dead

    def forget(self, slices: Iterable[Slice]) -> None:
        """Remove the records of dead slices; those that nobody refers to."""
        pairs = list(slices)
        fields = [ref_field(*pair) for pair in pairs]
        for start in range(0, len(fields), scripts.MOST_ARGUMENTS):
            part = fields[start : start + scripts.MOST_ARGUMENTS]
            self._link.script(scripts.FORGET_DEAD, (self._keys.slice_ref,), part)
        with self._lock:
            for pair in pairs:
                self._suspects.pop(pair, None)

    def _confirmed(self, limit: int) -> list[Slice]:
        with self._lock:
            suspects = list(self._suspects.items())
        dead: list[Slice] = []
        for start in range(0, len(suspects), scripts.MOST_ARGUMENTS):
            part = suspects[start : start + scripts.MOST_ARGUMENTS]
            counts = self._link.ask("HMGET", self._keys.slice_ref, *(ref_field(*pair) for pair, _ in part))
            alive = []
            for (pair, when), count in zip(part, counts, strict=True):
                if count is not None and int(count) < 0:
                    dead.append(pair)
                else:
                    alive.append((pair, when))
            self._acquit(alive)
            if len(dead) >= limit:
                break
        return dead[:limit]

    def _acquit(self, alive: Iterable[tuple[Slice, int]]) -> None:
        """Forget suspects, save those that lost another reference since they were looked up."""
        with self._lock:
            for pair, when in alive:
                if self._suspects.get(pair) == when:
                    del self._suspects[pair]

    def _look_through(self) -> None:
        with self._lock:
            self._sweep = False
        try:
            refs = scans.refs(self._link, self._keys)
            self.suspect((slice_id, size) for slice_id, size, count in refs if count <= 0)
        except BaseException:
            self.sweep()
            raise
