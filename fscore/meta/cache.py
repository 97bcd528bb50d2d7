"""What this process saw of the tree a moment ago: entries and attributes, for at most a second.

Rule 1  own changes show at once: they replace what is cached, or drop it when another change ran at the same time.
Rule 2  peers' changes show within the ceiling that JuiceFS users expect, one second; nodes that are immutable, and
        entries of directories that are, may stay longer.
Rule 3  nothing is cached that was read before a change of our own and arrives after it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Final, TypeVar

from fscore.domain.attr import Attr, Flag
from fscore.meta.records import Edge

K = TypeVar("K")
V = TypeVar("V")

CEILING_S: Final = 1.0
FIXED_S: Final = 10.0
CAPACITY: Final = 100_000
OWN: Final = 65_536
"""Nodes whose last own change is remembered; of others it is taken for as late as any that was forgotten."""
TOUCHED: Final = 8192
"""Own changes of entries that are remembered, for listings that began before them."""

_IMMUTABLE: Final = int(Flag.IMMUTABLE)


class NodeCache:
    """Entries by (directory, name), attributes by inode. Thread-safe; time is given, in monotonic seconds."""

    def __init__(self, ceiling_s: float = CEILING_S, capacity: int = CAPACITY) -> None:
        self._ceiling_s = ceiling_s
        self._capacity = capacity
        self._lock = threading.Lock()
        self._nodes: dict[int, tuple[float, Attr]] = {}
        self._edges: dict[tuple[int, bytes], tuple[float, Edge]] = {}
        self._touched: deque[tuple[int, tuple[int, bytes]]] = deque(maxlen=TOUCHED)
        self._own: dict[int, int] = {}
        self._forgotten = 0
        self.epoch = 0
        """Number of own changes so far; take it before reading what shall be cached."""

    def node(self, ino: int, now: float) -> Attr | None:
        """The attributes, if they are fresh enough."""
        found = self._nodes.get(ino)
        return found[1] if found is not None and found[0] > now else None

    def edge(self, parent: int, name: bytes, now: float) -> Edge | None:
        """The entry, if it is fresh enough."""
        found = self._edges.get((parent, name))
        return found[1] if found is not None and found[0] > now else None

    def known_ino(self, parent: int, name: bytes) -> int:
        """The inode that the entry named when it was last seen, however long ago; 0 when it was not. A hint."""
        found = self._edges.get((parent, name))
        return found[1].ino if found is not None else 0

    def known_node(self, ino: int) -> Attr | None:
        """The attributes when they were last seen, however long ago. A hint."""
        found = self._nodes.get(ino)
        return found[1] if found is not None else None

    def learn_node(self, ino: int, attr: Attr, now: float, epoch: int) -> None:
        """Keep attributes that were read at `epoch`."""
        with self._lock:
            if epoch == self.epoch:
                self._put_node(ino, attr, now)

    def learn_edge(self, parent: int, name: bytes, edge: Edge, attr: Attr, now: float, epoch: int) -> None:
        """Keep an entry and its node's attributes that were read at `epoch`."""
        with self._lock:
            if epoch == self.epoch:
                self._put_edge(parent, name, edge, now)
                self._put_node(edge.ino, attr, now)

    def touched(self, parent: int, since: int) -> frozenset[bytes] | None:
        """Names in a directory that own changes touched after `since`; None when that is too long ago."""
        with self._lock:
            log = self._touched
            if len(log) == TOUCHED and log[0][0] > since:
                return None
            names = set()
            for epoch, (above, name) in reversed(log):
                if epoch <= since:
                    break
                if above == parent:
                    names.add(name)
            return frozenset(names)

    def changed_since(self, ino: int, epoch: int) -> bool:
        """Whether a change of our own touched this node after `epoch`: what was read then may be old."""
        return self.epoch != epoch and self._own.get(ino, self._forgotten) > epoch

    def changed(
        self,
        nodes: Mapping[int, Attr | None],
        edges: Mapping[tuple[int, bytes], Edge | None],
        now: float,
        epoch: int,
    ) -> None:
        """A change of our own, begun at `epoch`, is done: None is what it removed."""
        with self._lock:
            alone = epoch == self.epoch
            self.epoch += 1
            for key, edge in edges.items():
                self._touched.append((self.epoch, key))
                if alone and edge is not None:
                    self._put_edge(*key, edge, now)
                else:
                    self._edges.pop(key, None)
            for ino, attr in nodes.items():
                self._note(ino)
                if alone and attr is not None:
                    self._put_node(ino, attr, now)
                else:
                    self._nodes.pop(ino, None)

    def forget(self, ino: int) -> None:
        """Drop a node's attributes."""
        with self._lock:
            self.epoch += 1
            self._note(ino)
            self._nodes.pop(ino, None)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self.epoch += 1
            self._own.clear()
            self._forgotten = self.epoch
            self._nodes.clear()
            self._edges.clear()

    def _note(self, ino: int) -> None:
        self._own.pop(ino, None)  # the latest go to the end
        if len(self._own) >= OWN:
            self._forgotten = max(list(self._own.values())[: OWN // 2])
            _halve(self._own)
        self._own[ino] = self.epoch

    def _put_node(self, ino: int, attr: Attr, now: float) -> None:
        stay = FIXED_S if attr.flags & _IMMUTABLE else self._ceiling_s
        if self._ceiling_s <= 0:
            return
        if len(self._nodes) >= self._capacity and ino not in self._nodes:
            _halve(self._nodes)
        self._nodes[ino] = (now + stay, attr)

    def _put_edge(self, parent: int, name: bytes, edge: Edge, now: float) -> None:
        if self._ceiling_s <= 0:
            return
        above = self._nodes.get(parent)
        fixed = above is not None and above[0] > now and above[1].flags & _IMMUTABLE
        key = (parent, name)
        if len(self._edges) >= self._capacity and key not in self._edges:
            _halve(self._edges)
        self._edges[key] = (now + (FIXED_S if fixed else self._ceiling_s), edge)


def _halve(table: dict[K, V]) -> None:
    """Drop the older half: what was put first."""
    for key in list(table)[: len(table) // 2]:
        del table[key]
