"""What every group of operations stands on: the volume, the options, how long the kernel may believe an answer."""

from __future__ import annotations

from typing import Final

from fscore.domain.attr import Attr
from fscore.domain.errors import FsError, StoreError
from fscore.domain.ids import ROOT
from fscore.mount.api import DAY_S, AttrReply, BackingIds, EntryReply, Notifier
from fscore.mount.observer import Observer
from fscore.mount.options import MountOptions
from fscore.mount.passthrough import Passthrough
from fscore.runtime import log
from fscore.vfs.internal import Internal
from fscore.vfs.vfs import Vfs

HOUR_S: Final = 3600.0
MAX_SEEN: Final = 1 << 20
EIO: Final = 5

_log = log.get(__name__)


class OperationsCore:
    """State that the groups share. Thread-safe."""

    def __init__(
        self, vfs: Vfs, options: MountOptions, internal: Internal | None = None, *, root: int = int(ROOT)
    ) -> None:
        self.vfs: Final = vfs
        self.meta: Final = vfs.meta
        self.options: Final = options
        self.internal: Final = internal
        self.notifier: Notifier | None = None
        """Set by a transport that can tell the kernel what it should forget."""
        self.observer: Observer | None = None
        """Told of every request by the transport."""
        self.passthrough: Passthrough | None = None
        """Set where the transport lets the kernel read local files by itself."""
        self._root: Final = root
        self._seen: dict[int, tuple[int, int]] = {}
        self._told: set[str] = set()

    def offer_backing(self, ids: BackingIds) -> None:
        """A transport can have the kernel read local files by itself."""
        self.passthrough = Passthrough(self.vfs, ids)

    def entry(self, ino: int, attr: Attr, parent: int, since: int) -> EntryReply:
        """The reply for a name in `parent`; `attr` (see `Vfs.overlaid`) with what is not committed yet."""
        options = self.options
        ttl = options.dir_entry_cache_s if attr.kind == 2 else options.entry_cache_s
        if attr.flags & 1:
            above = self.meta.cached_node(parent)
            if above is not None and above.flags & 1:
                ttl = DAY_S
            return EntryReply(ino, self.vfs.overlaid(ino, attr, since), ttl, DAY_S)
        return EntryReply(ino, self.vfs.overlaid(ino, attr, since), ttl, options.attr_cache_s)

    def attr(self, ino: int, attr: Attr, since: int) -> AttrReply:
        """The reply for a node's attributes (see `Vfs.overlaid`), under the kernel's number."""
        ttl = DAY_S if attr.flags & 1 else self.options.attr_cache_s
        return AttrReply(1 if ino == self._root else ino, self.vfs.overlaid(ino, attr, since), ttl)

    def number(self, error: BaseException) -> int:
        """The errno that a program gets for an error; what is not a refusal is logged, a kind of StoreError once."""
        if isinstance(error, FsError):
            return error.errno or EIO
        if isinstance(error, StoreError):
            kind = type(error).__name__
            if kind not in self._told:
                self._told.add(kind)
                _log.error("the volume fails, programs get EIO: %s: %s", kind, error)
            return EIO
        _log.error("an error of our own, a program gets EIO", exc_info=error)
        return EIO

    def _told_anew(self, ino: int, attr: Attr) -> bool:
        """Remember which state of a file's bytes the kernel works with from now on; whether it was another one."""
        state = state_of(attr)
        if self._seen.get(ino) == state:
            return False
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen[ino] = state
        return True

    def _node(self, ino: int) -> int:
        """The volume's inode for the kernel's number: 1 is the mount's root, wherever that lies."""
        return self._root if ino == 1 else ino


def state_of(attr: Attr) -> tuple[int, int]:
    """What tells one state of a file's bytes from another."""
    return attr.mtime_ns, attr.length
