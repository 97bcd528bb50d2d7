"""Which opens the kernel serves from a local file by itself: one decision an inode, from first open to last close.

Rule 1  all opens of one inode agree: while one is native, every other is, with the same number; while one goes through
        the daemon, all do. The kernel answers EIO to a program whose open does not agree, so it must never be asked.
Rule 2  native opens read. One that would write while natives live is refused with ETXTBSY, as for a program that runs:
        the kernel would write into the cache. (Immutable files refuse it anyway.)
Rule 3  a file that became another one while a native open of its old bytes lives is opened native and direct: read(2)
        asks the daemon and sees the new bytes, a mapping sees the old ones until the last old open is closed.
Rule 4  where the kernel refuses (no privilege, no support) that is said once, and the daemon serves.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from typing import Final, NamedTuple

from fscore.blocks.cache.whole.file import WholeFile
from fscore.domain.errors import TextBusy
from fscore.mount.api import BackingIds
from fscore.runtime import log
from fscore.runtime.metrics import Metrics
from fscore.vfs.handles import ACCESS
from fscore.vfs.vfs import Vfs

_REFUSALS: Final = {
    errno.EPERM: "it takes CAP_SYS_ADMIN",
    errno.ENOTTY: "this kernel has none (6.9 and newer do)",
    errno.EOPNOTSUPP: "this kernel has none (6.9 and newer do)",
    errno.EINVAL: "this kernel has none (6.9 and newer do)",
    errno.ELOOP: "the cache lies on a stacked filesystem; take a cache directory on a disk's own",
}

logger = log.get(__name__)


class Opening(NamedTuple):
    """How one open is answered: the number of the local file, 0 for none, and whether reads ask the daemon anyway."""

    backing_id: int = 0
    direct_io: bool = False


_DAEMON: Final = Opening()
CLOSING_S: Final = 1.0
"""How long a writer waits for readers to be gone: the kernel tells of a close(2) after it has returned."""


class _Inode:
    """An inode that is open: how often, and from which local file, if any."""

    __slots__ = ("backing_id", "file", "opens")

    def __init__(self, backing_id: int, file: WholeFile | None) -> None:
        self.backing_id = backing_id
        self.file = file
        self.opens = 0


class Passthrough:
    """The open inodes of one mount. Thread-safe."""

    def __init__(self, vfs: Vfs, ids: BackingIds) -> None:
        self._vfs = vfs
        self._ids = ids
        self._metrics: Metrics = vfs.blocks.metrics
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inodes: dict[int, _Inode] = {}
        self._off = False

    @property
    def on(self) -> bool:
        """Whether the kernel has not refused so far."""
        return not self._off

    def admit(self, ino: int, flags: int) -> None:
        """Before an open, or a change of the length: TextBusy if it would write to a file that stays open natively."""
        if flags & ACCESS == os.O_RDONLY and not flags & os.O_TRUNC:
            return
        if not self._is_native(ino):
            return
        known = self._vfs.meta.cached_node(ino)
        if known is not None and known.immutable:
            return  # it is refused for that
        with self._changed:
            if not self._changed.wait_for(lambda: not self._is_native(ino), CLOSING_S):
                raise TextBusy("it is being read from the local cache by the kernel; close its readers first")

    def _is_native(self, ino: int) -> bool:
        inode = self._inodes.get(ino)
        return inode is not None and inode.backing_id != 0

    def opened(self, ino: int, flags: int) -> Opening:
        """The handle of an inode is open: how to answer. `released` must follow for each, whatever becomes of it."""
        reads = flags & ACCESS == os.O_RDONLY
        whole = self._vfs.whole(ino) if reads and not self._off else None
        with self._lock:
            inode = self._inodes.get(ino)
            if inode is None:
                inode = self._inodes[ino] = self._first(whole)
            elif not reads and inode.backing_id:
                raise TextBusy("it was opened natively meanwhile; close its readers first")
            inode.opens += 1
            if inode.file is None:
                return _DAEMON
            same = whole is not None and whole.key == inode.file.key
            if same:
                self._metrics.add("mount.native.opens")
                self._metrics.add("mount.native.bytes", inode.file.length)
            return Opening(inode.backing_id, direct_io=not same)

    def released(self, ino: int) -> None:
        """One open is over; with the last one the kernel forgets the local file."""
        with self._lock:
            inode = self._inodes.get(ino)
            if inode is None:
                return
            inode.opens -= 1
            if inode.opens > 0:
                return
            del self._inodes[ino]
            if inode.backing_id:
                self._forget(inode.backing_id)
                self._changed.notify_all()

    def close(self) -> None:
        """The mount is over."""
        with self._lock:
            for inode in self._inodes.values():
                if inode.backing_id:
                    self._forget(inode.backing_id)
            self._inodes.clear()
            self._off = True

    def _first(self, whole: WholeFile | None) -> _Inode:
        """What an inode is from its first open on."""
        if whole is not None:
            try:
                return _Inode(self._ids.register(whole.fd), whole)
            except OSError as error:
                self._refused(error)
        return _Inode(0, None)

    def _forget(self, backing_id: int) -> None:
        with suppress(OSError):  # the connection may be over
            self._ids.close(backing_id)

    def _refused(self, error: OSError) -> None:
        why = _REFUSALS.get(error.errno or 0)
        if why is None:
            logger.warning("a file is served by the daemon, the kernel does not take it: %s", error)
            return
        if not self._off:
            logger.warning("no passthrough: %s; the daemon serves every file", why)
        self._off = True
