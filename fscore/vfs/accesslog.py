"""The stream behind `.accesslog`: one line a request, in the shape of JuiceFS; nobody reading costs one look.

2026.11.24 10:15:02.003330 [uid:0,gid:0,pid:4403] write (17669,8666,4993160,3) - OK <0.000010>
"""

from __future__ import annotations

import os
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Final

from fscore.domain.errors import BadHandle
from fscore.runtime.clock import Clock

KEPT: Final = 10_240
"""Lines that wait for one reader; the oldest give way, and the reader is told how many."""
WAIT_S: Final = 1.0
IDLE: Final = b"#\n"
"""What a reader gets when nothing happened for so long: the stream never ends."""


class _Reader:
    __slots__ = ("lines", "lost", "rest")

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self.rest = b""
        self.lost = 0


class AccessLog:
    """Lines for whoever has the stream open. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._news = threading.Condition()
        self._readers: dict[int, _Reader] = {}
        self._closed = False

    @property
    def on(self) -> bool:
        """Whether anybody reads. Look here before a line is made."""
        return bool(self._readers)

    def open(self, fh: int) -> None:
        """Begin a stream for a handle: it sees what happens from now on."""
        with self._news:
            self._readers[fh] = _Reader()

    def close(self, fh: int) -> None:
        """End it; a read that waits returns."""
        with self._news:
            self._readers.pop(fh, None)
            self._news.notify_all()

    def shut(self) -> None:
        """Nobody waits any more: the mount goes."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def record(self, identity: tuple[int, int, int], what: str, errno: int, seconds: float) -> None:
        """One request: (uid, gid, pid), `operation (arguments)...`, its outcome and how long it took."""
        if not self._readers:
            return
        line = render(self._clock.now_ns(), identity, what, errno, seconds)
        with self._news:
            for reader in self._readers.values():
                if len(reader.lines) >= KEPT:
                    reader.lines.popleft()
                    reader.lost += 1
                reader.lines.append(line)
            self._news.notify_all()

    def read(self, fh: int, size: int) -> bytes:
        """The next bytes of a handle's stream: what there is, after at most a second's wait for it."""
        with self._news:
            reader = self._readers.get(fh)
            if reader is None:
                raise BadHandle(f"handle {fh} reads no access log")
            self._news.wait_for(lambda: self._waits_for_nothing(fh), WAIT_S)
            return IDLE[:size] if not reader.lines and not reader.rest else _take(reader, size)

    def _waits_for_nothing(self, fh: int) -> bool:
        reader = self._readers.get(fh)
        return self._closed or reader is None or bool(reader.lines or reader.rest)


def render(now_ns: int, identity: tuple[int, int, int], what: str, errno: int, seconds: float) -> bytes:
    """One line. What is no plain text in a name is escaped, so that a line stays a line."""
    seconds_now, rest = divmod(now_ns, 1_000_000_000)
    local = datetime.fromtimestamp(seconds_now, tz=UTC).astimezone()
    uid, gid, pid = identity
    if not what.isprintable():
        what = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in what)
    outcome = os.strerror(errno).lower() if errno else "OK"
    stamp = f"{local:%Y.%m.%d %H:%M:%S}.{rest // 1000:06d}"
    return f"{stamp} [uid:{uid},gid:{gid},pid:{pid}] {what} - {outcome} <{seconds:.6f}>\n".encode()


def _take(reader: _Reader, size: int) -> bytes:
    parts, room = [], size
    if reader.lost and not reader.rest:
        parts.append(f"# {reader.lost} lines lost\n".encode())
        reader.lost = 0
        room -= len(parts[0])
    if reader.rest:
        parts.append(reader.rest)
        room -= len(reader.rest)
        reader.rest = b""
    while reader.lines and room > 0:
        line = reader.lines.popleft()
        parts.append(line)
        room -= len(line)
    data = b"".join(parts)
    reader.rest = data[size:]
    return data[:size]
