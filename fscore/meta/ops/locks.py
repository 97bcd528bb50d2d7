"""Locks of files, whole and by ranges (volume-format.md 2.7). One try each: who must wait asks again.

Rule 1  a lock belongs to (session, owner); it conflicts with those of every other owner, of this session too.
Rule 2  a whole lock that changes its kind is given up first, as flock(2) has it: two readers who both want to write
        do not wait for each other for ever. Ranges stay what they were until all of the new one can be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from fscore.domain import locks
from fscore.domain.locks import LockKind, LockRange, Ranges
from fscore.meta.ops.work import Work
from fscore.meta.records import LockOwner, want_flocks, want_plocks
from fscore.meta.txn import MetaView

LETTERS: Final = {LockKind.READ: "R", LockKind.WRITE: "W", LockKind.UNLOCK: "U"}
"""Kinds as the change log has them."""


def flock(work: Work, ino: int, owner: LockOwner, kind: LockKind) -> bool:
    """Lock a file as a whole, or unlock it; whether that could be done."""
    txn = work.txn
    txn.prefetch(want_flocks(ino))
    held = txn.flocks(ino)
    own = held.get(owner, LockKind.UNLOCK)
    free = _free(held, owner, kind)
    if not free:
        kind = LockKind.UNLOCK
    if own != kind:
        txn.put_flock(ino, owner, kind)
        work.log("FLOCK(%d,%d,%s)", ino, owner.owner, LETTERS[kind])
    return free


def setlk(work: Work, ino: int, owner: LockOwner, new: LockRange) -> bool:
    """Lock or unlock a range; whether that could be done."""
    txn = work.txn
    txn.prefetch(want_plocks(ino))
    held = txn.plocks(ino)
    if _clashes(held, owner, new.kind, new.start, new.end):
        return False
    before = held.get(owner, ())
    after = locks.apply(before, new)
    if after != before:
        txn.put_plock(ino, owner, after)
        work.log("SETLK(%d,%d,%s,%d,%d,%d)", ino, owner.owner, LETTERS[new.kind], new.start, new.end, new.pid)
    return True


def expel(work: Work, ino: int, sids: AbstractSet[int]) -> None:
    """Remove the locks of sessions that are no more."""
    txn = work.txn
    txn.prefetch(want_flocks(ino), want_plocks(ino))
    whole = [owner for owner in txn.flocks(ino) if owner.sid in sids]
    ranges = [owner for owner in txn.plocks(ino) if owner.sid in sids]
    for owner in whole:
        txn.put_flock(ino, owner, LockKind.UNLOCK)
    for owner in ranges:
        txn.put_plock(ino, owner, ())


def may_flock(view: MetaView, ino: int, owner: LockOwner, kind: LockKind) -> bool:
    """Whether `flock` would succeed now."""
    return _free(view.flocks(ino), owner, kind)


def getlk(view: MetaView, ino: int, owner: LockOwner, kind: LockKind, start: int, end: int) -> LockRange | None:
    """The first lock of another owner that stands in the way; its process number only means something here, so that
    it is 0 for a lock of another session.
    """
    found = _clashes(view.plocks(ino), owner, kind, start, end)
    if not found:
        return None
    who, clash = min(found, key=lambda pair: pair[1].start)
    return clash if who.sid == owner.sid else clash._replace(pid=0)


def _free(held: Mapping[LockOwner, LockKind], owner: LockOwner, kind: LockKind) -> bool:
    others = [other for who, other in held.items() if who != owner]
    if kind == LockKind.WRITE:
        return not others
    return kind == LockKind.UNLOCK or LockKind.WRITE not in others


def _clashes(
    held: Mapping[LockOwner, Ranges], owner: LockOwner, kind: LockKind, start: int, end: int
) -> list[tuple[LockOwner, LockRange]]:
    """The first lock of each other owner in the way."""
    return [
        (who, clash)
        for who, ranges in held.items()
        if who != owner and (clash := locks.conflict(ranges, kind, start, end)) is not None
    ]
