"""One thread that reads requests from /dev/fuse and answers them.

Rule 1  any worker serves any request, from the read to the reply: nothing is handed over between threads.
Rule 2  a request that may have to wait says so first (`wait`); the crew then sees to it that another worker reads on.
Rule 3  what waits for other programs (SETLKW) holds no worker: it is put aside and tried again by the crew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, Protocol

from fscore.domain.caller import Caller
from fscore.mount.api import Callers
from fscore.mount.operations import Operations
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.protocol import BODY, FORGET_OPCODES, HEADER, INTERRUPT_IN, OUT, Opcode
from fscore.mount.transports.kernel.requests import HANDLERS
from fscore.mount.transports.kernel.work import Answer
from fscore.runtime import log
from fscore.runtime.buffer import Buffer

AGAIN: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})
"""What a read may say for a request that was taken back: there is nothing to answer."""
ENDED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.EBADF})


_log = log.get(__name__)


class Crew(Protocol):
    """What a worker needs of the session it belongs to."""

    def busy(self) -> None:
        """A worker is going to wait."""
        ...

    def idle(self) -> None:
        """It is back."""
        ...

    def put_aside(self, unique: int, attempt: Callable[[], None]) -> None:
        """Answer this request when its attempt succeeds."""
        ...

    def interrupt(self, unique: int) -> None:
        """The program behind a request was signalled."""
        ...


class Worker:
    """The buffer and the header's fields of the request under way; see `requests.Work`."""

    def __init__(
        self, fd: int, room: int, operations: Operations, lifetimes: wire.Lifetimes, callers: Callers, crew: Crew
    ) -> None:
        self.fd = fd
        self.buffer = bytearray(room)
        self.operations = operations
        self.lifetimes = lifetimes
        self.fixed_lifetimes = lifetimes._replace(fixed_entry=lifetimes.fixed)
        self._callers = callers
        self._crew = crew
        self._waits = False
        self.length = self.unique = self.node = 0
        self._uid = self._gid = self._pid = 0

    def run(self) -> None:
        """Serve until the mount is gone."""
        buffers, fd = [self.buffer], self.fd
        while True:
            try:
                length = os.readv(fd, buffers)
            except OSError as error:
                if error.errno in AGAIN:
                    continue
                if error.errno in ENDED:
                    return
                raise
            self._serve(self.take(length))

    def take(self, length: int) -> int:
        """Decode the header of the request of that length in the buffer; its opcode."""
        self.length = length
        _, opcode, self.unique, self.node, self._uid, self._gid, self._pid, _, _ = HEADER.unpack_from(self.buffer)
        return int(opcode)

    def who(self, umask: int = 0) -> Caller:
        """Who asks."""
        return self._callers.of(self._uid, self._gid, self._pid, umask)

    def name(self, start: int = 0) -> bytes:
        """The name at that place of the body."""
        start += BODY
        return bytes(self.buffer[start : self.buffer.index(0, start)])

    def names(self, start: int) -> tuple[bytes, bytes]:
        """The two names at that place of the body."""
        return wire.names_at(self.buffer, BODY + start, self.length)

    def wait(self) -> None:
        """From here on the request may wait: see that others are served."""
        if not self._waits:
            self._waits = True
            self._crew.busy()

    def later(self, attempt: Callable[[], None]) -> None:
        """Try again until it succeeds or the program gives up, and answer then."""
        self._crew.put_aside(self.unique, attempt)

    def _serve(self, opcode: int) -> None:
        handler = HANDLERS.get(opcode)
        answer: Answer
        try:
            if handler is not None:
                answer = handler(self)
            elif opcode == Opcode.INTERRUPT:
                self._crew.interrupt(INTERRUPT_IN.unpack_from(self.buffer, BODY)[0])
                return
            else:
                answer = wire.error(self.unique, errno.ENOSYS)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the program behind it must get an answer
            answer = None if opcode in FORGET_OPCODES else wire.error(self.unique, self.operations.number(error))
        if answer is not None:
            reply(self.fd, answer)
        if self._waits:
            self._waits = False
            self._crew.idle()


def reply(fd: int, answer: bytes | tuple[bytes, Buffer]) -> None:
    """Give the kernel an answer. Nobody minds when the program is gone; one that is not taken becomes EIO."""
    try:
        _write(fd, answer)
    except OSError as error:
        head = answer if isinstance(answer, bytes) else answer[0]
        _, number, unique = OUT.unpack_from(head)
        _log.exception("the kernel does not take an answer of %d bytes (%d)", len(head), number)
        if error.errno == errno.EINVAL:
            _write(fd, wire.error(unique, errno.EIO))


def _write(fd: int, answer: bytes | tuple[bytes, Buffer]) -> None:
    try:
        if isinstance(answer, bytes):
            os.write(fd, answer)
        else:
            os.writev(fd, answer)
    except OSError as error:
        if error.errno not in AGAIN | ENDED:
            raise
