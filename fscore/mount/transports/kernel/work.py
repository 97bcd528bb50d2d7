"""What the function of a request sees of the worker that read it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fscore.domain.caller import Caller
from fscore.mount.operations import Operations
from fscore.mount.transports.kernel import wire
from fscore.runtime.buffer import Buffer

Answer = bytes | tuple[bytes, Buffer] | None


class Work(Protocol):
    """What a request's function sees of the worker that read it."""

    buffer: bytearray
    length: int
    unique: int
    node: int
    operations: Operations
    lifetimes: wire.Lifetimes
    fixed_lifetimes: wire.Lifetimes

    def who(self, umask: int = 0) -> Caller:
        """Who asks."""
        ...

    def name(self, start: int = 0) -> bytes:
        """The name at that place of the body."""
        ...

    def names(self, start: int) -> tuple[bytes, bytes]:
        """The two names at that place of the body."""
        ...

    def wait(self) -> None:
        """From here on the request may wait: see that others are served."""
        ...

    def later(self, attempt: Callable[[], None]) -> None:
        """Try again until it succeeds or the program gives up, and answer then."""
        ...
