"""Marks by which a transaction that was sent twice is known: `F<client>.<place>`, a number, gone after ten minutes.

The commit script writes the mark together with everything else, and does nothing where it finds its own number or a
later one. So it may be sent again after a lost connection, and after a failover, whatever other clients wrote
meanwhile. A mark belongs to one transaction at a time, and its numbers only rise: a transaction that was given up and
arrives when the next has had its mark does nothing. A client has as many as it has transactions under way at once.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections import deque
from typing import Final

from fscore.meta.engines.redis.keys import Keys

KEPT_S: Final = 600
"""Longer than anybody is patient."""


class Marks:
    """The marks of one engine. Thread-safe; a forked child makes its own."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._numbers = itertools.count(1)
        self._begin()

    def _begin(self) -> None:
        self._free: deque[bytes] = deque()
        self._places = itertools.count()
        self._client = secrets.token_hex(8).encode()
        self._pid = os.getpid()

    def take(self) -> tuple[bytes, int]:
        """A mark's key that nobody uses now, and a number above all that it ever had."""
        if self._pid != os.getpid():
            self._begin()
        try:
            key = self._free.pop()
        except IndexError:
            key = self._keys.mark(self._client, next(self._places))
        return key, next(self._numbers)

    def give(self, key: bytes) -> None:
        """The transaction is over."""
        self._free.append(key)
