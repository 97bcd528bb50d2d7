"""The pieces a new file can be made of, and what making it cost.

One primitive carries push with dedup, clones of ranges and the TP/PP split: bytes that the volume knows are referred
to, only new bytes move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from fscore.domain.errors import Invalid
from fscore.runtime.buffer import Buffer

__all__ = ["Buffer", "ComposeReport", "Data", "Piece", "Range", "Zeros", "data", "merge", "total"]


class Range(msgspec.Struct, frozen=True, tag=True):
    """`length` bytes at `offset` of an existing file; they are shared, not copied."""

    path: str
    offset: int
    length: int


class Data(msgspec.Struct, frozen=True, tag=True):
    """New bytes: `chunks()` gives `length` bytes in pieces of any size. Each Data starts a slice of its own."""

    chunks: Callable[[], Iterator[Buffer]]
    length: int


class Zeros(msgspec.Struct, frozen=True, tag=True):
    """`length` zero bytes that take no space."""

    length: int


Piece = Range | Data | Zeros


class ComposeReport(msgspec.Struct, frozen=True):
    """What a composition cost: bytes uploaded, bytes referred to, slice records that the file now has."""

    bytes_new: int = 0
    bytes_shared: int = 0
    records: int = 0


class Named(Protocol):
    """Whatever has a length; every Piece does."""

    @property
    def length(self) -> int:
        """Bytes."""


def data(content: Buffer) -> Data:
    """A Data piece of bytes in memory."""
    return Data(chunks=lambda: iter((content,)), length=len(content))


def total(pieces: Sequence[Named]) -> int:
    """Bytes of a file made of these pieces."""
    return sum(piece.length for piece in pieces)


def merge(pieces: Sequence[Piece]) -> list[Piece]:
    """The same content in fewer pieces: empty ones dropped, consecutive ranges of one file and zeros joined."""
    merged: list[Piece] = []
    for piece in pieces:
        if piece.length < 0 or (isinstance(piece, Range) and piece.offset < 0):
            raise Invalid(f"a piece with a negative offset or length: {piece!r}")
        if piece.length == 0:
            continue
        last = merged[-1] if merged else None
        if isinstance(piece, Range) and isinstance(last, Range):
            if last.path == piece.path and last.offset + last.length == piece.offset:
                merged[-1] = Range(last.path, last.offset, last.length + piece.length)
                continue
        elif isinstance(piece, Zeros) and isinstance(last, Zeros):
            merged[-1] = Zeros(last.length + piece.length)
            continue
        merged.append(piece)
    return merged
