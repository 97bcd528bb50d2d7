"""The messages of `.control`: `juicefs info, rmr, warmup, clone, summary, compact` speak to our mount as to theirs.

A request is command and length of the payload (be32 each) and the payload; the answer is progress frames, then JSON or
one byte of errno (volume-format.md 7). What is done stands in `commands`.
"""

from __future__ import annotations

import errno
import json
import struct
import threading
from collections.abc import Callable
from typing import Any, Final

from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, Invalid, StoreError
from fscore.mount.commands import Commands
from fscore.runtime import log
from fscore.runtime.clock import Clock

logger = log.get(__name__)

RMR: Final = 1002
INFO_TEXT: Final = 1003
WARMUP: Final = 1004
INFO: Final = 1005
CLONE: Final = 1006
SUMMARY: Final = 1007
COMPACT: Final = 1008
SYNC: Final = 0x46530001
"""Ours: commit everything that was written; an answer of 0 means that it is durable."""
PROGRESS: Final = 0xFE
DATA: Final = 0xFF
PROGRESS_EVERY_S: Final = 0.3
PRESERVE: Final = 2
WARM, EVICT, CHECK = range(3)

Answer = Callable[[bytes], None]


class Payload:
    """Reads a message's payload; what a shorter, older message leaves out has its default."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: int, default: int | None = None) -> int:
        """An unsigned big-endian number. Invalid when it is missing and has no default."""
        if default is not None and self._at >= len(self._data):
            return default
        return int.from_bytes(self.text(size), "big")

    def text(self, size: int) -> bytes:
        """That many bytes. Invalid when there are fewer."""
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise Invalid(f"a message of {len(self._data)} bytes ends too early")
        self._at += size
        return part


class Told:
    """Two numbers that a command counts up; now and then a frame tells them. Raises EINTR when nobody listens."""

    def __init__(self, answer: Answer, cancelled: Callable[[], bool], clock: Clock) -> None:
        self._answer = answer
        self._cancelled = cancelled
        self._clock = clock
        self._next = clock.monotonic() + PROGRESS_EVERY_S
        self.first = 0
        self.second = 0

    def add(self, first: int, second: int = 0) -> None:
        """Count more of both."""
        self.first += first
        self.second += second
        if self._cancelled():
            raise InterruptedError(errno.EINTR, "nobody waits for the answer any more")
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + PROGRESS_EVERY_S
            self.tell()

    def tell(self) -> None:
        """Send the numbers as they are."""
        self._answer(struct.pack(">BQQ", PROGRESS, self.first, self.second))


class Control:
    """Answers messages, one call a message, on whatever thread."""

    def __init__(self, commands: Commands, clock: Clock) -> None:
        self._commands = commands
        self._clock = clock
        self._closing = threading.Event()
        self._handlers: Final[dict[int, Callable[[Caller, Payload, Told], bytes]]] = {
            RMR: self._rmr,
            INFO_TEXT: self._info_text,
            WARMUP: self._warmup,
            INFO: self._info,
            CLONE: self._clone,
            SUMMARY: self._summary,
            COMPACT: self._compact,
            SYNC: self._sync,
        }

    def __call__(self, who: Caller, message: bytes, answer: Answer, cancelled: Callable[[], bool]) -> None:
        """Do what the message asks as `who`, and answer."""
        command = int.from_bytes(message[:4], "big")
        told = Told(answer, cancelled, self._clock)
        try:
            handler = self._handlers.get(command, self._unknown)
            final = handler(who, Payload(message[8:]), told)
            if told.first or told.second:
                told.tell()
            answer(final)
        except Exception as error:  # whatever goes wrong, who asked is waiting for the last byte
            answer(_outcome(error))
            if not isinstance(error, OSError):
                logger.exception("command %d failed", command)

    def is_urgent(self, message: bytes) -> bool:
        """Whoever unmounts waits for SYNC, and not for the commands that others have begun."""
        return int.from_bytes(message[:4], "big") == SYNC

    def close(self) -> None:
        """The mount ends: what goes on in the background stops at the next file."""
        self._closing.set()

    def _unknown(self, _who: Caller, _payload: Payload, _told: Told) -> bytes:
        return bytes([errno.EINVAL])  # their commands take this for a mount that is too old

    def _rmr(self, who: Caller, payload: Payload, told: Told) -> bytes:
        parent, name = payload.number(8), payload.text(payload.number(1))
        skip_trash, threads = bool(payload.number(1, 0) & 1), payload.number(1, 4)
        self._commands.remove(who, parent, name, told.add, skip_trash=skip_trash, threads=threads)
        return b"\0"

    def _clone(self, who: Caller, payload: Payload, told: Told) -> bytes:
        source, _, parent = payload.number(8), payload.number(8), payload.number(8)
        name, umask, mode = payload.text(payload.number(1)), payload.number(2), payload.number(1)
        self._commands.clone(who, source, parent, name, umask=umask, preserve=bool(mode & PRESERVE))
        return b"\0"

    def _info(self, who: Caller, payload: Payload, told: Told) -> bytes:
        ino, recursive, raw = payload.number(8), payload.number(1, 1), payload.number(1, 0)
        try:
            document = self._commands.info(who, ino, told.add, recursive=bool(recursive), raw=bool(raw))
        except FsError as error:
            document = self._commands.no_info(ino, str(error.strerror))
        return _data(document)

    def _info_text(self, who: Caller, payload: Payload, told: Told) -> bytes:
        ino, recursive, raw = payload.number(8), payload.number(1, 1), payload.number(1, 0)
        text = self._commands.info_text(who, ino, recursive=bool(recursive), raw=bool(raw))
        return struct.pack(">I", len(text)) + text

    def _summary(self, who: Caller, payload: Payload, told: Told) -> bytes:
        ino, depth, top = payload.number(8), payload.number(1, 3), payload.number(1, 10)
        try:
            return _data({"Errno": 0, "Tree": self._commands.summary(who, ino, depth, top, told.add)})
        except FsError as error:
            return _data({"Errno": error.errno, "Tree": self._commands.no_summary(ino)})

    def _warmup(self, who: Caller, payload: Payload, told: Told) -> bytes:
        paths = payload.text(payload.number(4)).split(b"\n")
        payload.number(2)  # how many workers: the volume's own options bound them
        background, action = payload.number(1), payload.number(1, WARM)
        if action not in {WARM, EVICT, CHECK}:
            raise Invalid(f"cache action {action}")
        if background:  # as with their mount: the answer comes at once, the work goes on
            told = Told(lambda _: None, self._closing.is_set, self._clock)
        return _data(self._commands.cache(who, paths, ("warm", "evict", "check")[action], told.add))

    def _sync(self, _who: Caller, _payload: Payload, _told: Told) -> bytes:
        self._commands.sync()
        return b"\0"

    def _compact(self, who: Caller, payload: Payload, told: Told) -> bytes:
        ino = payload.number(8)
        self._commands.compact(who, ino, told.add)
        return b"\0"


def _data(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    return struct.pack(">BI", DATA, len(text)) + text


def _outcome(error: Exception) -> bytes:
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return bytes([number & 0xFF]) if not isinstance(error, StoreError) else bytes([errno.EIO])
