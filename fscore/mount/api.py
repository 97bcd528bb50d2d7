"""What crosses the kernel edge: plain values between operations and transports. Knows no transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.locks import LockKind

DAY_S: Final = 86400.0
"""How long the kernel may believe what never changes."""

GROUPS_TTL_S: Final = 5.0
MAX_CALLERS: Final = 4096


class EntryReply(msgspec.Struct, frozen=True, gc=False):
    """A node that a name led to. `ino` 0 is a name that does not exist, believed for `entry_ttl_s`."""

    ino: int
    attr: Attr
    entry_ttl_s: float
    attr_ttl_s: float


class AttrReply(msgspec.Struct, frozen=True, gc=False):
    """A node's attributes, and for how long the kernel may believe them."""

    ino: int
    attr: Attr
    ttl_s: float


class OpenReply(msgspec.Struct, frozen=True):
    """An open file or directory: its handle, and how the kernel may cache it."""

    fh: int
    keep_cache: bool = False
    direct_io: bool = False
    cache_dir: bool = False
    no_flush: bool = False
    """Nothing can be waiting in this handle: close(2) need not ask."""
    backing_id: int = 0
    """The kernel's number of the local file that it reads and writes by itself; 0 for none."""


class AttrRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What SETATTR shall change; None keeps. Times of `fscore.meta.ops.change.NOW` mean this moment."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    fh: int | None = None
    """The open handle through which the size is set."""
    kill_privileges: bool = False
    """The kernel leaves it to us to take setuid and setgid from a file whose length is set."""


class StatfsReply(msgspec.Struct, frozen=True):
    """Totals of the volume, in blocks of `block_size` bytes."""

    block_size: int
    blocks: int
    blocks_free: int
    files: int
    files_free: int
    name_max: int = 255


class LockRequest(msgspec.Struct, frozen=True):
    """A range of a file to lock or to unlock for an owner, or to ask about; `end` is its last byte."""

    owner: int
    kind: LockKind
    start: int
    end: int
    pid: int


class BackingIds(Protocol):
    """What a transport with passthrough offers: local files that the kernel reads by itself."""

    def register(self, fd: int) -> int:
        """The kernel's number (> 0) for an open local file. Raises OSError; EPERM without the privilege."""
        ...

    def close(self, backing_id: int) -> None:
        """Forget a number."""
        ...


class Notifier(Protocol):
    """What a transport offers for telling the kernel that it believes something old. Never raises, and blocks only when
    asked to."""

    def inode(self, ino: int, *, data: bool = True, wait_s: float = 0.0) -> None:
        """Forget the attributes of a node, and with `data` its cached pages. With `wait_s` it is done on return, where
        the transport can and the kernel does not take longer."""
        ...

    def entry(self, parent: int, name: bytes) -> None:
        """Forget a name."""
        ...


class Mounted(Protocol):
    """A mount that a transport serves."""

    mountpoint: Path

    def wait(self) -> None:
        """Return when it is unmounted, by whomever. Raises what ended it otherwise."""
        ...

    def stop(self) -> None:
        """Unmount, answer what is under way, and return. Idempotent; from any thread but a worker's."""
        ...


class Callers:
    """Callers by what a request's header says; supplementary groups come from /proc when somebody else than uid 0 asks.

    Remembered for a few seconds, as a process seldom changes its groups. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int, int, int], tuple[float, Caller]] = {}

    def of(self, uid: int, gid: int, pid: int, umask: int = 0) -> Caller:
        """Who asks. `umask` is what the caller's mode bits of new nodes lose here, 0 where the kernel applied it."""
        key = (uid, gid, pid, umask)
        found = self._known.get(key)
        if found is not None and found[0] > self._clock():
            return found[1]
        caller = Caller(uid, gid, _groups(pid) if uid else (), pid, umask)
        with self._lock:
            if len(self._known) >= MAX_CALLERS:
                self._known.clear()
            self._known[key] = (self._clock() + GROUPS_TTL_S, caller)
        return caller


def _groups(pid: int) -> tuple[int, ...]:
    """Supplementary groups of a process; none if it is gone, or hidden in another namespace."""
    try:
        with Path(f"/proc/{pid}/status").open("rb") as status:
            for line in status:
                if line.startswith(b"Groups:"):
                    return tuple(map(int, line.split()[1:]))
    except OSError:
        pass
    return ()
