"""Requests about locks: whole files (flock) and byte ranges (fcntl), held between mounts by the volume itself.

Rule 1  a lock that is got makes the file fresh: what the kernel and this process cached of an older state is dropped,
        so that programs which lock before they read see what the holder before them wrote.
Rule 2  a lock that is given back makes what was written under it durable and visible first.
Rule 3  an attempt never waits for the holder: WouldBlock says that the lock is held, and whoever wants to wait asks
        again (`FIRST_WAIT_S`, `LONGEST_WAIT_S`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fscore.domain.caller import Caller
from fscore.domain.errors import WouldBlock
from fscore.domain.locks import LockKind, LockRange
from fscore.mount.api import LockRequest
from fscore.mount.operations_attrs import AttrOperations
from fscore.mount.operations_core import state_of
from fscore.mount.options import MountOptions
from fscore.vfs.internal import Internal
from fscore.vfs.vfs import Vfs

FIRST_WAIT_S: Final = 0.001
"""How soon to ask again for a lock that is held; then half as long again, and again."""
LONGEST_WAIT_S: Final = 0.1
NOTICE_WAIT_S: Final = 1.0
"""How long a lock's answer waits for the kernel to forget: a page that it waits for itself may need this worker."""


class LockOperations(AttrOperations):
    """Synchronous; any may raise FsError (its errno is the answer) or StoreError (EIO)."""

    def __init__(self, vfs: Vfs, options: MountOptions, internal: Internal | None = None, *, root: int = 1) -> None:
        super().__init__(vfs, options, internal, root=root)
        self._record_locks: set[tuple[int, int]] = set()
        self._locking = threading.Lock()

    def getlk(self, who: Caller, ino: int, request: LockRequest) -> LockRange | None:
        """The first lock that would be in the way of this one."""
        del who
        return self.meta.getlk(self._node(ino), request.owner, request.kind, request.start, request.end)

    def setlk(self, who: Caller, ino: int, request: LockRequest) -> None:
        """Lock or unlock a range. WouldBlock when somebody else has it."""
        del who
        ino = self._node(ino)
        kind, owner = request.kind, request.owner
        if kind != LockKind.UNLOCK:
            with self._locking:
                self._record_locks.add((ino, owner))
        self._lock(
            ino,
            kind,
            lambda: self.meta.setlk(ino, owner, kind, request.start, request.end, request.pid),
        )

    def flock(self, who: Caller, ino: int, owner: int, kind: LockKind) -> None:
        """Lock or unlock a whole file. WouldBlock when somebody else has it."""
        del who
        ino = self._node(ino)
        self._lock(ino, kind, lambda: self.meta.flock(ino, owner, kind))

    def drop_record_locks(self, ino: int, owner: int) -> None:
        """Give back every range of an owner in a file, as close(2) does."""
        with self._locking:
            if (ino, owner) not in self._record_locks:
                return
            self._record_locks.discard((ino, owner))
        try:
            self.meta.release_locks(ino, owner)
        except BaseException:
            with self._locking:  # the next descriptor that is closed tries again
                self._record_locks.add((ino, owner))
            raise

    def drop_flock(self, ino: int, owner: int) -> None:
        """Give back an owner's lock of a whole file."""
        self._lock(ino, LockKind.UNLOCK, lambda: self.meta.flock(ino, owner, LockKind.UNLOCK))

    def _lock(self, ino: int, kind: LockKind, attempt: Callable[[], bool]) -> None:
        if kind == LockKind.UNLOCK:
            try:
                self.vfs.settle(ino)
            finally:  # what could not be written is told, and the lock is nobody's all the same
                attempt()
            return
        if not attempt():
            raise WouldBlock("somebody else holds it")
        self._make_fresh(ino)

    def _make_fresh(self, ino: int) -> None:
        """Drop what is cached of a file that somebody else has changed."""
        attr, other = self.vfs.refresh(ino)  # what this process believes may be newer than what the kernel was told
        if other or self._seen.get(ino) != state_of(attr):
            if self.notifier is not None:
                self.notifier.inode(ino, wait_s=NOTICE_WAIT_S)
            self._told_anew(ino, attr)
