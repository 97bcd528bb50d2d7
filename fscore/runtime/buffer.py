"""What counts as bytes between the floors, and how to look at it without a copy."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Anything whose bytes can be read in place; arrays come as `memoryview(array)`."""


def frozen(data: Buffer) -> Buffer:
    """`data` itself where nobody can write to it, a copy of what may change."""
    if isinstance(data, bytes) or (isinstance(data, memoryview) and data.readonly):
        return data
    return bytes(data)


def as_view(data: Buffer) -> memoryview:
    """A flat view of bytes over `data`, whatever shape and item size it had."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
