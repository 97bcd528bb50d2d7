"""Locks that this client's programs hold, in the volume's own records, so that other clients respect them.

Every call tries once; who wants to wait asks again: after 1 ms for an exclusive lock and 10 ms for a shared one, as the
official client does. Asking again costs one read and disturbs no writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fscore.domain.caller import Caller
from fscore.domain.errors import Invalid, Stale, StoreError, Unsupported
from fscore.domain.locks import EOF, LockKind, LockRange
from fscore.domain.setting import Setting
from fscore.meta.engine import MetaEngine
from fscore.meta.ops import locks
from fscore.meta.ops.work import Work
from fscore.meta.records import LockOwner
from fscore.meta.service.core import MetaOptions
from fscore.meta.service.data import Data
from fscore.meta.session import LockClaim
from fscore.runtime import log
from fscore.runtime.clock import Clock

logger = log.get(__name__)
_ROOT: Final = Caller.root()

EVERYTHING: Final = LockRange(LockKind.UNLOCK, 0, 0, EOF)
"""Every byte of a file, as close(2) unlocks it."""


class Locks(Data):
    """A lock lives as long as its owner holds it, and never longer than the session (volume-format.md 2.7)."""

    def __init__(self, engine: MetaEngine, clock: Clock, setting: Setting, options: MetaOptions) -> None:
        super().__init__(engine, clock, setting, options)
        self._repaying = threading.RLock()

    def flock(self, ino: int, owner: int, kind: LockKind) -> bool:
        """Lock a file as a whole, or unlock it; False when others are in the way, and what was held is given up."""
        return self._flock(ino, owner, kind) or (self._expel_dead(ino) and self._flock(ino, owner, kind))

    def _flock(self, ino: int, owner: int, kind: LockKind) -> bool:
        who, claim = self._owner(owner), ("flock", ino, owner)
        if kind == LockKind.UNLOCK:
            self._check_kept(claim, lost=self._unlock(claim, EVERYTHING))
            return True
        self._check_in_time()
        self._check_kept(claim)
        if self._claims.refused(claim):
            with self.engine.view() as view:
                if not locks.may_flock(view, ino, who, kind):
                    return False
        return self._try(claim, EVERYTHING._replace(kind=kind), lambda work: locks.flock(work, ino, who, kind))

    def getlk(self, ino: int, owner: int, kind: LockKind, start: int, end: int) -> LockRange | None:
        """The first lock of another owner in the way of this one; pid 0 when another client holds it."""
        self._check_alive()
        _check_range(start, end)
        self._check_kept(("plock", ino, owner))
        who = LockOwner(self.sid or 0, owner)
        with self.engine.view() as view:
            return locks.getlk(view, ino, who, kind, start, end)

    def setlk(self, ino: int, owner: int, kind: LockKind, start: int, end: int, pid: int) -> bool:
        """Lock or unlock the bytes from `start` to `end`, that one included; False when others are in the way."""
        _check_range(start, end)
        new = LockRange(kind, pid, start, end)
        return self._setlk(ino, owner, new) or (self._expel_dead(ino) and self._setlk(ino, owner, new))

    def _setlk(self, ino: int, owner: int, new: LockRange) -> bool:
        who, claim = self._owner(owner), ("plock", ino, owner)
        kind, _, start, end = new
        if kind == LockKind.UNLOCK:
            self._check_kept(claim, lost=self._unlock(claim, new))
            return True
        self._check_in_time()
        self._check_kept(claim)
        if self._claims.refused(claim) and self.getlk(ino, owner, kind, start, end) is not None:
            return False
        return self._try(claim, new, lambda work: locks.setlk(work, ino, who, new))

    def release_locks(self, ino: int, owner: int) -> None:
        """Unlock every range of an owner, as close(2) does; costs nothing when it never locked any."""
        claim = ("plock", ino, owner)
        self._check_kept(claim, lost=self._unlock(claim, EVERYTHING))

    def _try(self, claim: LockClaim, new: LockRange, operation: Callable[[Work], bool]) -> bool:
        """One attempt to lock; what its owner still owes comes first."""
        self._repay(claim)
        era = self._claims.add(claim)
        try:
            done = self._run(_ROOT, operation)
        except StoreError:
            self._claims.add(claim)
            raise
        self._claims.tried(claim, new, era, done=done)
        self._check_kept(claim)
        return done

    def _check_kept(self, claim: LockClaim, *, lost: bool = False) -> None:
        """Tell an owner whose lock was lost that what it protected may have changed (decision 012)."""
        if lost or self._claims.lost(claim):
            raise Stale(
                f"a lock of inode {claim[1]} is lost, for this client was away until its peers took it for dead: "
                "unlock or close the file, look at it again, and lock anew"
            )

    def _unlock(self, claim: LockClaim, gone: LockRange) -> bool:
        """Unlock a range; whether its owner had lost a lock of the file. What fails because the server is away is owed,
        for few programs ask twice.
        """
        if not self._claims.has(claim):
            return False
        kind, ino, owner = claim
        who = self._owner(owner)
        try:
            self._check_in_time()  # where a late client may learn that its locks are lost
            lost = self._claims.lost(claim)
            if kind == "flock":
                self._run(_ROOT, lambda work: locks.flock(work, ino, who, LockKind.UNLOCK))
            else:
                self._run(_ROOT, lambda work: locks.setlk(work, ino, who, gone))
        except StoreError:
            self._claims.owe(claim, gone)
            raise
        self._claims.unlocked(claim, gone)
        return lost

    def _repay(self, claim: LockClaim) -> None:
        """Unlock what an owner owes. One at a time: an owner that locks again must not lose what it gets then."""
        if not self._claims.owed(claim):
            return
        with self._repaying:
            for one in self._claims.owed(claim):
                self._unlock(claim, one._replace(kind=LockKind.UNLOCK))

    def _repay_all(self) -> None:
        """Unlock what owners owe since the server was away; what fails again waits for the next heartbeat."""
        for claim in self._claims.debts():
            try:
                self._repay(claim)
            except StoreError as error:
                logger.warning("locks that programs gave back still stand: %s", error)
                return
            logger.info("inode %d: a lock that was given back while the server was away is gone now", claim[1])

    def _expel_dead(self, ino: int) -> bool:
        """Remove locks whose session is no more; looked for once in a heartbeat. Whether there were any.

        The official client 1.4.1 leaves shared locks behind on Redis when it dies (volume-format.md 2.7).
        """
        if not self._claims.due(ino, self._clock.monotonic(), max(self.options.heartbeat_s, 1.0)):
            return False
        with self.engine.view() as view:
            holders = {owner.sid for owner in (*view.flocks(ino), *view.plocks(ino))}
        dead = holders - {session.sid for session in (*self.engine.sessions(), *self.engine.legacy_sessions())}
        if dead:
            logger.info("removing the locks of inode %d that sessions %s left behind", ino, sorted(dead))
            self._run(_ROOT, lambda work: locks.expel(work, ino, dead))
        return bool(dead)

    def _owner(self, owner: int) -> LockOwner:
        self._check_writable()
        if self._session is None:
            raise Unsupported("locks need a session, and this client has opened the volume without one")
        return LockOwner(self._session.sid, owner)


def _check_range(start: int, end: int) -> None:
    if not 0 <= start <= end <= EOF:
        raise Invalid(f"a lock from byte {start} to {end}")
