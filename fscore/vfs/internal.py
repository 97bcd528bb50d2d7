"""Files that a mount shows and no volume holds: `.accesslog`, `.control`, `.stats`, `.config` (volume-format.md 7).

They lie in the root. `.trash` is listed beside them, but its inode is the volume's own. `.control` is found in every
directory and listed in none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, Protocol

from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle, Denied, Invalid, NotPermitted
from fscore.domain.ids import ROOT, TRASH
from fscore.runtime.clock import Clock
from fscore.runtime.threads import Pool
from fscore.vfs.accesslog import AccessLog
from fscore.vfs.handles import ACCESS

FIRST: Final = 0x7FFFFFFF00000000
"""Inodes from here up are a mount's own, or the trash's."""
LOG: Final = FIRST + 1
CONTROL: Final = FIRST + 2
STATS: Final = FIRST + 3
CONFIG: Final = FIRST + 4
FIRST_HANDLE: Final = 1 << 62
"""Handles from here up belong to internal files; those of volume files stay far below."""
REMEMBERED: Final = 1 << 20
"""Answers of `.control` that one handle keeps; what was read before may be dropped beyond that."""
ANSWER_WAIT_S: Final = 0.2
LONGEST_MESSAGE: Final = 64 << 20

_MODES: Final = {LOG: 0o400, CONTROL: 0o666, STATS: 0o444, CONFIG: 0o400}
_NAMES: Final = {b"accesslog": LOG, b"control": CONTROL, b"stats": STATS, b"config": CONFIG}
_LISTED: Final = (b"accesslog", b"stats", b"config")

Answer = Callable[[bytes], None]
"""Takes a piece of the answer to a message: a progress frame, the data, the final byte."""


class Control(Protocol):
    """Does what a message to `.control` asks."""

    def __call__(self, who: Caller, message: bytes, answer: Answer, cancelled: Callable[[], bool]) -> None:
        """Do it and answer; stop early when `cancelled` says that nobody listens any more."""

    def is_urgent(self, message: bytes) -> bool:
        """Whether this one must not wait for others to end."""

    def close(self) -> None:
        """Have what goes on in the background stop early."""


class Internal:
    """The internal files of one mount. Thread-safe.

    `stats` and `config` give a file's bytes as of now. `prefix` is what stands before the names (`.` or `.jfs.`);
    `hidden` lists none of them, and finds them all the same; without `trash` the root lists no `.trash`. `root` is the
    directory of the volume that the mount shows as its root.
    """

    def __init__(
        self,
        clock: Clock,
        stats: Callable[[], bytes],
        config: Callable[[], bytes],
        control: Control,
        *,
        prefix: bytes = b".",
        hidden: bool = False,
        trash: bool = True,
        root: int = ROOT,
    ) -> None:
        self._root = root
        self.log: Final = AccessLog(clock)
        self._contents: Final = {STATS: stats, CONFIG: config}
        self._control = control
        self._names: Final = {prefix + name: ino for name, ino in _NAMES.items()}
        now_ns = clock.now_ns()
        self._attrs: Final = {
            ino: Attr(Kind.FILE, mode, os.getuid(), os.getgid(), now_ns, now_ns, now_ns) for ino, mode in _MODES.items()
        }
        self._listed: Final = (
            [] if hidden else [Entry(prefix + n, _NAMES[n], Kind.FILE, self._attrs[_NAMES[n]]) for n in _LISTED]
        )
        if trash and not hidden:
            self._listed.append(Entry(b".trash", TRASH, Kind.DIRECTORY))
        self._numbers = count(FIRST_HANDLE)
        self._snapshots: dict[int, bytes] = {}
        self._talks: dict[int, _Talk] = {}
        self._streams: set[int] = set()
        self._pool = Pool("control", 4)
        self._urgent = Pool("control-urgent", 1)

    def lookup(self, parent: int, name: bytes) -> tuple[int, Attr] | None:
        """The internal file of that name; None for every other name."""
        if not name.startswith(b"."):
            return None
        ino = self._names.get(name)
        if ino is None or (ino != CONTROL and parent != self._root):
            return None
        return ino, self._attrs[ino]

    def reserves(self, parent: int, name: bytes) -> bool:
        """Whether nobody may make, remove or rename an entry of that name."""
        return parent == self._root and name.startswith(b".") and (name in self._names or name == b".trash")

    def owns(self, ino: int) -> bool:
        """Whether this inode is an internal file (the trash is not: the volume holds it)."""
        return ino in self._attrs

    def owns_handle(self, fh: int) -> bool:
        """Whether `open` of this object gave out that handle."""
        return fh >= FIRST_HANDLE

    def getattr(self, ino: int) -> Attr:
        """Attributes of an internal file: no length, it is read until it ends."""
        return self._attrs[ino]

    def entries(self) -> Sequence[Entry]:
        """What the listing of the root shows besides the volume's own entries."""
        return self._listed

    def open(self, who: Caller, ino: int, flags: int) -> int:
        """Open one. The kernel must not cache it (direct I/O). `.stats` and `.config` stand still for the handle."""
        write = flags & ACCESS != os.O_RDONLY
        attr = self._attrs[ino]
        if write and ino != CONTROL:
            raise NotPermitted("this file tells about the mount and takes nothing")
        if not attr.mode & 0o004 and who.uid not in {0, attr.uid}:
            raise Denied("only who mounted may read this")
        fh = next(self._numbers)
        if ino == LOG:
            self.log.open(fh)
            self._streams.add(fh)
        elif ino == CONTROL:
            self._talks[fh] = _Talk()
        else:
            self._snapshots[fh] = self._contents[ino]()
        return fh

    def peek(self, fh: int, offset: int, size: int) -> bytes | None:
        """As read, where that needs no waiting; None where it does."""
        snapshot = self._snapshots.get(fh)
        return None if snapshot is None else snapshot[offset : offset + size]

    def read(self, fh: int, offset: int, size: int) -> bytes:
        """Bytes of a handle. The access log's come in order whatever the offset; reading it may wait a second."""
        if fh in self._streams:
            return self.log.read(fh, size)
        talk = self._talks.get(fh)
        if talk is not None:
            return talk.read(offset, size)
        try:
            return self._snapshots[fh][offset : offset + size]
        except KeyError:
            raise BadHandle(f"handle {fh} is not open") from None

    def write(self, who: Caller, fh: int, data: bytes) -> int:
        """Take a part of a message to `.control`; a whole one is begun at once, on a thread of its own."""
        talk = self._talks.get(fh)
        if talk is None:
            raise BadHandle(f"handle {fh} takes no messages")
        message = talk.take(data)
        if message is not None:
            pool = self._urgent if self._control.is_urgent(message) else self._pool
            pool.submit(self._answer, who, message, talk)
        return len(data)

    def flush(self, fh: int) -> None:
        """Whoever closes a handle of `.control` does not wait for the answer any more."""
        talk = self._talks.get(fh)
        if talk is not None:
            talk.cancel()

    def release(self, fh: int) -> None:
        """Forget a handle."""
        self._snapshots.pop(fh, None)
        talk = self._talks.pop(fh, None)
        if talk is not None:
            talk.cancel()
        if fh in self._streams:
            self._streams.discard(fh)
            self.log.close(fh)

    def close(self) -> None:
        """End every stream and every command."""
        self.log.shut()
        for talk in list(self._talks.values()):
            talk.cancel()
        self._control.close()
        self._pool.close()
        self._urgent.close()

    def _answer(self, who: Caller, message: bytes, talk: _Talk) -> None:
        try:
            self._control(who, message, talk.answer, talk.is_cancelled)
        finally:
            talk.end()


class _Talk:
    """One handle of `.control`: messages in, answers out, at the offsets that a reader of one file expects."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._pending = b""
        self._data = bytearray()
        self._dropped = 0
        self._running = 0
        self._cancelled = False

    def take(self, data: bytes) -> bytes | None:
        """The whole message, once its last part is here: command and payload length, both be32, then the payload."""
        with self._news:
            self._pending += data
            length = int.from_bytes(self._pending[4:8], "big") if len(self._pending) >= 8 else 0
            if length > LONGEST_MESSAGE:
                self._pending = b""
                raise Invalid(f"a message of {length} bytes")
            if len(self._pending) < 8 + length:
                return None
            message, self._pending = self._pending[: 8 + length], self._pending[8 + length :]
            self._data += message  # reading goes on where writing ended
            self._running += 1
            return message

    def answer(self, piece: bytes) -> None:
        """Append to what readers get."""
        with self._news:
            self._data += piece
            self._news.notify_all()

    def end(self) -> None:
        """One message is answered."""
        with self._news:
            self._running -= 1
            self._news.notify_all()

    def read(self, offset: int, size: int) -> bytes:
        """What is there at `offset`, after a short wait while an answer is being made; empty: ask again."""
        with self._news:
            self._news.wait_for(lambda: self._end() > offset or not self._running or self._cancelled, ANSWER_WAIT_S)
            start = offset - self._dropped
            if start < 0:
                raise BadHandle("this part of the answer was read before and is gone")
            found = bytes(self._data[start : start + size])
            if start > REMEMBERED:
                del self._data[: start - REMEMBERED]
                self._dropped = offset - REMEMBERED
            return found

    def cancel(self) -> None:
        """Nobody waits for answers any more."""
        with self._news:
            self._cancelled = True
            self._news.notify_all()

    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled

    def _end(self) -> int:
        return self._dropped + len(self._data)
