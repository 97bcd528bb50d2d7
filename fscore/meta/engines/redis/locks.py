"""Locks in Redis (volume-format.md 2.2, 2.7): a hash for each file and kind of lock, its fields the owners.

A session's set `locked<sid>` names the hashes where it has fields, so that whoever buries it finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fscore.domain.locks import LockKind, Ranges, parse, render
from fscore.meta.engines.redis.keys import Keys, lock_field, parse_lock_field
from fscore.meta.engines.redis.recall import Read
from fscore.meta.records import LockOwner

SHARED: Final = b"R"
EXCLUSIVE: Final = b"W"


class LockReads:
    """The part of a view that reads locks: a whole hash each, so that an owner who joins is seen at commit."""

    _keys: Keys

    if TYPE_CHECKING:

        def _take(self, read: Read) -> Any: ...  # noqa: ANN401 - see txn.raw_of

    def flocks(self, ino: int) -> Mapping[LockOwner, LockKind]:
        """Who has locked a file as a whole."""
        found: dict[bytes, bytes] = self._take(Read("M", self._keys.flock(ino)))
        return {_owner(field): _kind(value) for field, value in found.items()}

    def plocks(self, ino: int) -> Mapping[LockOwner, Ranges]:
        """Who has locked ranges of a file."""
        found: dict[bytes, bytes] = self._take(Read("M", self._keys.plock(ino)))
        return {_owner(field): parse(value) for field, value in found.items()}


class LockWrites(LockReads):
    """The part of a transaction that writes locks."""

    reads: dict[Read, Any]
    writes: list[tuple[Any, ...]]

    def put_flock(self, ino: int, owner: LockOwner, kind: LockKind) -> None:
        """Set or remove an owner's field."""
        value = {LockKind.READ: SHARED, LockKind.WRITE: EXCLUSIVE}.get(kind)
        self._put_lock(self._keys.flock(ino), owner, value)

    def put_plock(self, ino: int, owner: LockOwner, ranges: Ranges) -> None:
        """Set or remove an owner's field."""
        self._put_lock(self._keys.plock(ino), owner, render(ranges) or None)

    def _put_lock(self, key: bytes, owner: LockOwner, value: bytes | None) -> None:
        field = lock_field(*owner)
        held = self._keys.locked(owner.sid)
        if value is not None:
            self.writes += (("HSET", key, field, value), ("SADD", held, key))
            return
        self.writes.append(("HDEL", key, field))
        others = set(self.reads[Read("M", key)]) - {field}
        if not any(parse_lock_field(other)[0] == owner.sid for other in others):
            self.writes.append(("SREM", held, key))


def _owner(field: bytes) -> LockOwner:
    return LockOwner(*parse_lock_field(field))


def _kind(value: bytes) -> LockKind:
    return LockKind.READ if value == SHARED else LockKind.WRITE
