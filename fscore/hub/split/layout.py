"""The order of tensors in a rank's file: few records, few new bytes, every tensor aligned. Pure.

Rule 1  first one run of new bytes: the header, gathered columns, tensors too small to be worth a record.
Rule 2  then ranges of the source in its own order, so that neighbours merge; the short runs before the long ones,
        so that few records share a chunk wherever they can.
Rule 3  short runs become new bytes only within a budget, those that save most records a byte first.
Rule 4  every tensor starts at a multiple of its element's size, or its reader could not map it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fscore.hub.formats.api import DTYPE_BITS
from fscore.hub.formats.safetensors import build_header
from fscore.hub.split.pieces import Fill, Fresh, Gather, Inline, Made, Piece, Ref

LONG = 16 << 20
"""Runs of this many bytes: at most five records share a chunk of 64 MiB."""

Part = Ref | Fill | Gather
Key = tuple[str, tuple[tuple[int, int], ...]]


class Item(msgspec.Struct, frozen=True):
    """A tensor of a rank: what it is called, and where its bytes come from."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    nbytes: int
    pattern: str
    dims: str
    how: str
    key: Key | None = None
    """Set where other ranks need the same gathered bytes."""

    @property
    def gathered(self) -> bool:
        """Whether its bytes must be written anew."""
        return any(isinstance(part, Gather) for part in self.parts)

    @property
    def element(self) -> int:
        """Bytes of an element, 1 for less."""
        return max(1, DTYPE_BITS[self.dtype] // 8)


class Run(msgspec.Struct, frozen=True):
    """Tensors whose ranges follow each other in the source."""

    items: tuple[Item, ...]
    nbytes: int
    records: int


class Laid(msgspec.Struct, frozen=True):
    """A file's pieces, which items became new bytes, and where each item with a key lies."""

    pieces: tuple[Piece, ...]
    size: int
    fresh: frozenset[str]
    places: dict[Key, tuple[int, int]]


def runs_of(items: Iterable[Item]) -> list[Run]:
    """Group referred tensors, given in source order, into runs of consecutive ranges."""
    runs: list[Run] = []
    held: list[Item] = []
    nbytes = records = 0
    last: Part | None = None
    for item in items:
        first = item.parts[0] if item.parts else None
        joined = isinstance(first, Ref) and isinstance(last, Ref) and follows(last, first)
        if held and item.parts and not joined:
            runs.append(Run(tuple(held), nbytes, records))
            held, nbytes, records = [], 0, 0
        held.append(item)
        nbytes += item.nbytes
        records += len(item.parts) - (1 if joined else 0)
        last = item.parts[-1] if item.parts else last
    if held:
        runs.append(Run(tuple(held), nbytes, records))
    return runs


def follows(last: Ref, first: Ref) -> bool:
    """Whether one range begins where the other ends."""
    return last.file == first.file and last.offset + last.length == first.offset


def choose_small(runs: Iterable[Run], *, small: int, budget: int) -> set[int]:
    """The runs (by id) to write anew: below `small` bytes a record, most records a byte first, within the budget."""
    chosen: set[int] = set()
    for run in sorted(runs, key=lambda run: run.nbytes / max(1, run.records)):
        if run.nbytes >= small * max(1, run.records) or run.nbytes > budget:
            break
        budget -= run.nbytes
        chosen.add(id(run))
    return chosen


def lay_out(runs: Sequence[Run], gathered: Sequence[Item], small: set[int], made: dict[Key, Made]) -> Laid:
    """Order a file's tensors and build its pieces. `made` are gathered bytes that an earlier rank's file holds."""
    fresh = [item for item in gathered if item.key not in made]
    fresh += [item for run in runs if id(run) in small for item in run.items]
    fresh.sort(key=lambda item: -item.element)
    kept = [run for run in runs if id(run) not in small]
    kept.sort(key=lambda run: run.nbytes >= LONG)
    shared = [item for run in kept for item in run.items]
    shared += [item for item in gathered if item.key in made]
    order = [(item, True) for item in fresh] + [(item, False) for item in shared]
    if not _aligned(item for item, _ in order):
        order.sort(key=lambda entry: -entry[0].element)
    return _assemble(order, made)


def _aligned(items: Iterable[Item]) -> bool:
    at = 0
    for item in items:
        if at % item.element:
            return False
        at += item.nbytes
    return True


def _assemble(order: Sequence[tuple[Item, bool]], made: dict[Key, Made]) -> Laid:
    header = build_header((item.name, item.dtype, item.shape) for item, _ in order)
    pieces: list[Piece] = []
    new: list[Inline | Gather | Ref | Fill] = [Inline(header)]
    places: dict[Key, tuple[int, int]] = {}
    at = len(header)
    for item, is_fresh in order:
        if is_fresh:
            new.extend(item.parts)
            if item.key is not None:
                places[item.key] = (at, item.nbytes)
        else:
            if new:
                pieces.append(Fresh(tuple(new)))
                new = []
            source = (made[item.key],) if item.key in made and item.key is not None else item.parts
            for part in source:
                _append(pieces, part)
        at += item.nbytes
    if new:
        pieces.append(Fresh(tuple(new)))
    return Laid(tuple(pieces), at, frozenset(item.name for item, is_fresh in order if is_fresh), places)


def _append(pieces: list[Piece], part: Part | Made) -> None:
    last = pieces[-1] if pieces else None
    if isinstance(part, Gather):
        pieces.append(Fresh((part,)))
    elif isinstance(last, Ref) and isinstance(part, Ref) and follows(last, part):
        pieces[-1] = Ref(last.file, last.offset, last.length + part.length)
    elif (
        isinstance(last, Made)
        and isinstance(part, Made)
        and (last.path == part.path and last.offset + last.length == part.offset)
    ):
        pieces[-1] = Made(last.path, last.offset, last.length + part.length)
    else:
        pieces.append(part)
