"""How many names of a file programs count: those that lie in the trash are left out (decision 012).

The count that the volume stores has them, because the official client's does. A file that only ever had one name says
by its parent where it is; for one that had several, its parents are read, once for each change of the file: every
change of its names moves its ctime.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from fscore.domain.attr import Attr, Kind
from fscore.domain.ids import TRASH

MOST: Final = 10_000
"""Files remembered; with more, all are forgotten."""


def is_plain(attr: Attr) -> bool:
    """Whether the stored count is what programs see: one name, outside the trash, or a directory's."""
    return 0 < attr.parent < TRASH or attr.kind == Kind.DIRECTORY or not attr.nlink


class LinkCounts:
    """What is known of files with several names. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, tuple[int, int, int]] = {}

    def shown(self, ino: int, attr: Attr) -> Attr | None:
        """The attributes as programs see them; None when the parents have to be read."""
        if is_plain(attr):
            return attr
        if attr.parent > TRASH:
            return replace(attr, nlink=0)
        known = self._known.get(ino)
        if known is None or known[0] != attr.ctime_ns or attr.nlink not in known[1:]:
            return None
        return attr if attr.nlink == known[2] else replace(attr, nlink=known[2])

    def learn(self, ino: int, attr: Attr, parents: Mapping[int, int]) -> Attr:
        """The attributes as programs see them, by the parents that were read after them."""
        outside = sum(count for parent, count in parents.items() if parent < TRASH)
        with self._lock:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[ino] = (attr.ctime_ns, attr.nlink, outside)
        return attr if attr.nlink == outside else replace(attr, nlink=outside)

    def forget(self, inos: Iterable[int]) -> None:
        """This client changed them."""
        if not self._known:
            return
        with self._lock:
            for ino in inos:
                self._known.pop(ino, None)
