"""Which records of a chunk are worth replacing by fewer, and by what (volume-format.md 4.4). Pure.

Rule 1  the oldest records, at most `MOST`; leading ones that are big, whole and alone in their place stay as they are.
Rule 2  holes at both ends are dropped, for nothing lies below; inner ones become zeros, save one that is wide.
Rule 3  what would not make the list shorter is left alone.
Rule 4  while a chunk is being written it pays to rewrite it only after enough new bytes: small random writes over a
        whole chunk would else copy 64 MiB for every few hundred KiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fscore.domain.slices import SliceRecord, hole, overlay

MOST: Final = 2500
"""Records of one compaction. The official client takes 1,000; each round rewrites the chunk, so we take them all."""

BIG: Final = 1 << 20
"""A record at least this long may stay in front, if what follows is at most `SHARE` times as long."""

SHARE: Final = 5

WIDE: Final = 1 << 20
"""An inner hole at least this long is not written; one at most, so that no client sees five pieces again."""


PAYS: Final = 8
"""A compaction may write so many times the bytes that came since the longest record, which is the last compaction's."""


class Plan(NamedTuple):
    """Replace `replaced`, which follow `kept` at a list's head, by one new slice: `pieces`, laid as `spans` say."""

    kept: tuple[SliceRecord, ...]
    replaced: tuple[SliceRecord, ...]
    pieces: tuple[SliceRecord, ...]
    spans: tuple[tuple[int, int, int], ...]
    """(position in the chunk, offset in the new slice, length)."""

    @property
    def size(self) -> int:
        """Bytes of the new slice; 0 when only a hole is left."""
        return sum(piece.length for piece in self.pieces)

    @property
    def pays(self) -> bool:
        """Whether what is written is in proportion to what is new."""
        lengths = [record.length for record in self.replaced if record.id]
        return self.size <= PAYS * (sum(lengths) - max(lengths, default=0))

    @property
    def snapshot(self) -> tuple[SliceRecord, ...]:
        """What must still be the head of the list."""
        return self.kept + self.replaced

    def records(self, slice_id: int) -> tuple[SliceRecord, ...]:
        """The records in place of the replaced ones, when the new slice has this id."""
        if not self.size:
            first = self.replaced[0]  # nothing that is kept lies below it
            return (hole(first.pos, first.length),)
        return tuple(SliceRecord(pos, slice_id, self.size, off, length) for pos, off, length in self.spans)


def plan(records: Sequence[SliceRecord], *, whole: bool = False) -> Plan | None:
    """What to do with a chunk's list, oldest first; None when nothing is to be gained.

    With `whole` every inner hole is written: a line of the change log knows one record only.
    """
    head = tuple(records[:MOST])
    skipped = _skipped(head)
    rest = head[skipped:]
    if len(rest) < 2:
        return None
    view = _trimmed(rest)
    wide = None if whole else _wide(view)
    pieces = tuple(piece for piece in view if piece is not wide)
    found = Plan(head[:skipped], rest, pieces, _spans(view, wide))
    return found if len(found.records(1)) < len(rest) else None


def _skipped(records: tuple[SliceRecord, ...]) -> int:
    skipped = 0
    while skipped < len(records):
        first = records[skipped]
        if first.length < BIG or not first.id:
            break
        view = _trimmed(records[skipped:])
        size = sum(piece.length for piece in view)
        if not view or first.length * SHARE < size or view[0] != first or first in records[skipped + 1 :]:
            break
        skipped += 1
    return skipped


def _trimmed(records: Sequence[SliceRecord]) -> list[SliceRecord]:
    view = overlay(records)
    first, last = 0, len(view)
    while first < last and not view[first].id:
        first += 1
    while last > first and not view[last - 1].id:
        last -= 1
    return _joined(view[first:last])


def _joined(view: Sequence[SliceRecord]) -> list[SliceRecord]:
    """Holes that touch are one."""
    joined: list[SliceRecord] = []
    for piece in view:
        if joined and not piece.id and not joined[-1].id:
            joined[-1] = hole(joined[-1].pos, joined[-1].length + piece.length)
        else:
            joined.append(piece)
    return joined


def _wide(view: Sequence[SliceRecord]) -> SliceRecord | None:
    holes = [piece for piece in view if not piece.id and piece.length >= WIDE]
    return max(holes, key=lambda piece: piece.length, default=None)


def _spans(view: Sequence[SliceRecord], wide: SliceRecord | None) -> tuple[tuple[int, int, int], ...]:
    if not view:
        return ()
    start, end = view[0].pos, view[-1].end
    if wide is None:
        return ((start, 0, end - start),)
    before = wide.pos - start
    return (start, 0, before), (wide.end, before, end - wide.end)
