"""What a split costs: bytes referred to and bytes written anew, for each rank and each class of tensor."""

from __future__ import annotations

import msgspec


class ClassReport(msgspec.Struct, frozen=True):
    """One class of tensors over all ranks, and why its bytes are shared or new."""

    pattern: str
    dims: str
    reason: str
    tensors: int
    bytes_shared: int
    bytes_new: int


class RankReport(msgspec.Struct, frozen=True):
    """One rank's folder."""

    name: str
    layers: tuple[int, int]
    tensors: int
    files: int
    bytes_total: int
    bytes_shared: int
    bytes_new: int


class SplitReport(msgspec.Struct, frozen=True):
    """A whole split. `bytes_padding` are zero rows of the vocabulary, which take no space.

    `bytes_reused` are gathered bytes that an earlier layout had, part of `bytes_shared`; it, `records` and `seconds`
    are 0 until the split was written.
    """

    family: str
    tp: int
    pp: int
    ep: int
    ranks: list[RankReport]
    classes: list[ClassReport]
    bytes_total: int
    bytes_shared: int
    bytes_new: int
    bytes_padding: int
    bytes_gathered: int
    bytes_source: int
    bytes_reused: int = 0
    records: int = 0
    seconds: float = 0.0

    @property
    def zero_copy(self) -> float:
        """The part of the output that did not move."""
        return self.bytes_shared / self.bytes_total if self.bytes_total else 1.0
