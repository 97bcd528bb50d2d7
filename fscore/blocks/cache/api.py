"""What a cache of plain blocks promises."""

from __future__ import annotations

from typing import Protocol

from fscore.runtime.buffer import Buffer


class BlockCache(Protocol):
    """Plain blocks by object key. May forget at any time; never returns bytes that were not put. Thread-safe.

    A cache swallows its own troubles (a full disk, a corrupt entry): it answers None or does not keep, and counts.
    """

    @property
    def used(self) -> int:
        """Bytes held."""
        ...

    def get(self, key: str, off: int, length: int) -> Buffer | None:
        """`length` bytes of a block from `off`, or None."""
        ...

    def get_into(self, key: str, off: int, buffer: memoryview) -> bool:
        """Fill `buffer` from `off` of a block; False (and `buffer` undefined) if the block is not here."""
        ...

    def peek(self, key: str, off: int, length: int) -> Buffer | None:
        """As get, from what can be read without waiting for a disk or a peer; the caller only looks at the bytes."""
        ...

    def put(self, key: str, data: Buffer, *, wait: bool = False) -> None:
        """Keep a whole block, if there is room. `data` is kept as it is where nobody can write to it.

        A disk that does not keep up holds nobody up: the block is not kept then, unless `wait` says that it shall be.
        """
        ...

    def keeps(self, size: int) -> bool:
        """Whether a block of `size` bytes would be kept at all; if not, fetching one whole for later is a waste."""
        ...

    def contains(self, key: str) -> bool:
        """Whether the block seems to be here; the next get may still say None."""
        ...

    def drop(self, key: str) -> None:
        """Forget a block."""
        ...

    def flush(self) -> None:
        """Wait until what was put is where it stays."""
        ...

    def close(self) -> None:
        """Give back threads and descriptors; what is on disk stays."""
        ...


class NoCache:
    """Keeps nothing."""

    used = 0

    def get(self, key: str, off: int, length: int) -> Buffer | None:
        """Nothing."""
        return None

    def get_into(self, key: str, off: int, buffer: memoryview) -> bool:
        """Nothing."""
        return False

    def peek(self, key: str, off: int, length: int) -> Buffer | None:
        """Nothing."""
        return None

    def put(self, key: str, data: Buffer, *, wait: bool = False) -> None:
        """Not kept."""

    def keeps(self, size: int) -> bool:
        """No."""
        return False

    def contains(self, key: str) -> bool:
        """No."""
        return False

    def drop(self, key: str) -> None:
        """Nothing to forget."""

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to give back."""
