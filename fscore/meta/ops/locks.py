"""Locks of files, whole and by ranges (volume-format.md 2.7). One try each: who must wait asks again.

Rule 1  a lock belongs to (session, owner); it conflicts with those of every other owner, of this session too.
Rule 2  a whole lock that changes its kind is given up first, as flock(2) has it: two readers who both want to write
        do not wait for each other for ever. Ranges stay what they were until all of the new one can be had.
"""

from __future__ import annotations

from fscore.domain import locks
from fscore.domain.locks import LockKind, LockRange
from fscore.meta.ops.work import Work
from fscore.meta.records import LockOwner, want_flocks, want_plocks
from fscore.meta.txn import MetaView


def flock(work: Work, ino: int, owner: LockOwner, kind: LockKind) -> bool:
    """Lock a file as a whole, or unlock it; whether that could be done."""
    txn = work.txn
    txn.prefetch(want_flocks(ino))
    held = txn.flocks(ino)
    own = held.get(owner, LockKind.UNLOCK)
    if own == kind:
        return True
    others = [other for who, other in held.items() if who != owner]
    free = kind == LockKind.UNLOCK or LockKind.WRITE not in {kind, *others} or not others
    if free:
        txn.put_flock(ino, owner, kind)
    elif own != LockKind.UNLOCK:
        txn.put_flock(ino, owner, LockKind.UNLOCK)
    return free


def setlk(work: Work, ino: int, owner: LockOwner, new: LockRange) -> bool:
    """Lock or unlock a range; whether that could be done."""
    txn = work.txn
    txn.prefetch(want_plocks(ino))
    held = txn.plocks(ino)
    for who, ranges in held.items():
        if who != owner and locks.conflict(ranges, new.kind, new.start, new.end) is not None:
            return False
    before = held.get(owner, ())
    after = locks.apply(before, new)
    if after != before:
        txn.put_plock(ino, owner, after)
    return True


def getlk(view: MetaView, ino: int, owner: LockOwner, kind: LockKind, start: int, end: int) -> LockRange | None:
    """The first lock of another owner that stands in the way; its process number only means something here, so that
    it is 0 for a lock of another session.
    """
    found = [
        clash if who.sid == owner.sid else clash._replace(pid=0)
        for who, ranges in view.plocks(ino).items()
        if who != owner and (clash := locks.conflict(ranges, kind, start, end)) is not None
    ]
    return min(found, key=lambda clash: clash.start, default=None)
