"""Counts the cost of a planned split, while it is planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fscore.hub.split.layout import Item, Laid
from fscore.hub.split.pieces import Fill, Fresh, Gather, Piece
from fscore.hub.split.report import ClassReport, RankReport, SplitReport
from fscore.hub.split.rules import Grid

_WHY = {
    "whole": "whole, by reference",
    "even": "contiguous rows, by reference",
    "vocabulary": "rows of the padded vocabulary, by reference",
    "kv heads": "rows of a key-value head that several ranks hold, by reference",
    "packed": "rows of each part, by reference",
    "columns": "columns, gathered into new bytes",
}


class HasPieces(Protocol):
    """A planned file."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What it is made of."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class Tally:
    """Adds up ranks, and classes of tensors over all ranks."""

    def __init__(self, bytes_source: int) -> None:
        self._source = bytes_source
        self._ranks: list[RankReport] = []
        self._classes: dict[tuple[str, str, str], list[int]] = {}
        self._padding = 0
        self._gathered = 0

    def add_rank(
        self, name: str, layers: tuple[int, int], files: Sequence[HasPieces], laid: Sequence[tuple[Laid, list[Item]]]
    ) -> None:
        """One rank is planned."""
        new = sum(piece.length for piece in _pieces(files) if isinstance(piece, Fresh))
        padding = sum(piece.length for piece in _pieces(files) if isinstance(piece, Fill))
        total = sum(file.size for file in files)
        tensors = sum(len(items) for _, items in laid)
        self._padding += padding
        for piece in _pieces(files):
            if isinstance(piece, Fresh):
                self._gathered += sum(part.length for part in piece.parts if isinstance(part, Gather))
        self._ranks.append(RankReport(name, layers, tensors, len(files), total, total - new - padding, new))
        for one, items in laid:
            for item in items:
                self._add_item(item, fresh=item.name in one.fresh)

    def report(self, family: str, grid: Grid) -> SplitReport:
        """The sums."""
        classes = [
            ClassReport(pattern, dims, reason, *counts)
            for (pattern, dims, reason), counts in sorted(self._classes.items())
        ]
        return SplitReport(
            family=family,
            tp=grid.tp,
            pp=grid.pp,
            ep=grid.ep,
            ranks=self._ranks,
            classes=classes,
            bytes_total=sum(rank.bytes_total for rank in self._ranks),
            bytes_shared=sum(rank.bytes_shared for rank in self._ranks),
            bytes_new=sum(rank.bytes_new for rank in self._ranks),
            bytes_padding=self._padding,
            bytes_gathered=self._gathered,
            bytes_source=self._source,
        )

    def _add_item(self, item: Item, *, fresh: bool) -> None:
        reason = _WHY[item.how]
        if fresh and item.how != "columns":
            reason = "too small for a reference of its own, copied"
        elif not fresh and item.how == "columns":
            reason = "columns that another expert rank has gathered, by reference"
        counts = self._classes.setdefault((item.pattern, item.dims, reason), [0, 0, 0])
        padding = sum(part.length for part in item.parts if isinstance(part, Fill))
        counts[0] += 1
        counts[2 if fresh else 1] += item.nbytes - (0 if fresh else padding)


def _pieces(files: Sequence[HasPieces]) -> Iterator[Piece]:
    for file in files:
        yield from file.pieces
