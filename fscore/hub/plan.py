"""Which bytes of a push are shared and which are new. Pure.

Rule 1  every byte range of every file is shared or new, never both, and together they are the file.
Rule 2  a file that is known whole is shared whole; else its segments (tensors and what lies between) one by one.
Rule 3  of several places that hold a segment, the one that continues the range before it: few, long ranges.
Rule 4  content that occurs more than once in the push and is known nowhere goes once into the pool; all refer to it.
Rule 5  new bytes are cut at tensors of at least 4 MiB; smaller ones beside each other travel as one run.
Rule 6  a shared run below 64 KiB between new bytes is sent again: a record costs more than the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fscore.domain.digest import FileDigest
from fscore.hub.scan import HashedFile, Segment

BIG: Final = 4 << 20
SMALL_SHARE: Final = 64 << 10

PartKey = tuple[str, int]
"""(SHA-256, length) of a byte range."""


class Location(msgspec.Struct, frozen=True):
    """A place in the volume that holds known bytes."""

    path: str
    offset: int


class Known(msgspec.Struct, frozen=True):
    """What the index knows of a push's contents."""

    files: Mapping[FileDigest, Sequence[Location]] = {}
    parts: Mapping[PartKey, Sequence[Location]] = {}


class Shared(msgspec.Struct, frozen=True):
    """Bytes that the volume has."""

    path: str
    offset: int
    length: int


class New(msgspec.Struct, frozen=True):
    """Bytes of a source file that must travel, with the segments by which they are checked on the way."""

    file: str
    segments: tuple[Segment, ...]

    @property
    def offset(self) -> int:
        """Where they begin in the source file."""
        return self.segments[0].offset

    @property
    def length(self) -> int:
        """How many."""
        return self.segments[-1].end - self.segments[0].offset


Piece = Shared | New


class FilePlan(msgspec.Struct, frozen=True):
    """One file and what it is made of, in order."""

    path: str
    size: int
    pieces: tuple[Piece, ...]

    @property
    def bytes_new(self) -> int:
        """Bytes that travel for this file."""
        return sum(piece.length for piece in self.pieces if isinstance(piece, New))


class PushPlan(msgspec.Struct, frozen=True):
    """A whole push. `pool` is written first, as a file of its own that goes away in the end."""

    files: tuple[FilePlan, ...]
    pool: tuple[New, ...] = ()

    @property
    def bytes_total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def bytes_new(self) -> int:
        """Bytes that travel."""
        return sum(new.length for new in self.pool) + sum(file.bytes_new for file in self.files)

    @property
    def bytes_shared(self) -> int:
        """Bytes that do not."""
        return self.bytes_total - self.bytes_new


def plan_push(files: Sequence[HashedFile], known: Known, pool_path: str) -> PushPlan:
    """The plan of a push of these files; `pool_path` is where the pool will lie."""
    unknown = [file for file in files if not known.files.get(file.digest)]
    pool, places = _pool(unknown, known, pool_path)
    plans = []
    for file in files:
        whole = known.files.get(file.digest)
        if whole and file.size:
            pieces: tuple[Piece, ...] = (Shared(whole[0].path, whole[0].offset, file.size),)
        else:
            pieces = _compose(file, known.parts, places)
        plans.append(FilePlan(file.path, file.size, pieces))
    return PushPlan(tuple(plans), pool)


def _pool(files: Sequence[HashedFile], known: Known, path: str) -> tuple[tuple[New, ...], dict[PartKey, Location]]:
    count = Counter(key_of(segment) for file in files for segment in file.segments if segment.length >= SMALL_SHARE)
    places: dict[PartKey, Location] = {}
    pool: list[New] = []
    position = 0
    for file in files:
        for segment in file.segments:
            key = key_of(segment)
            if count[key] > 1 and key not in places and not known.parts.get(key):
                places[key] = Location(path, position)
                pool.append(New(file.path, (segment,)))
                position += segment.length
    return tuple(pool), places


def _compose(
    file: HashedFile, known: Mapping[PartKey, Sequence[Location]], pool: Mapping[PartKey, Location]
) -> tuple[Piece, ...]:
    runs: list[tuple[Shared | None, list[Segment]]] = []
    for segment in file.segments:
        key = key_of(segment)
        choices = [pool[key]] if key in pool else known.get(key, ())
        last = runs[-1][0] if runs else None
        place = _best(choices, last)
        if place is None:
            if runs and last is None:
                runs[-1][1].append(segment)
            else:
                runs.append((None, [segment]))
        elif last is not None and _continues(last, place):
            grown = Shared(last.path, last.offset, last.length + segment.length)
            runs[-1] = (grown, [*runs[-1][1], segment])
        else:
            runs.append((Shared(place.path, place.offset, segment.length), [segment]))
    return tuple(_pieces(file.path, _drop_crumbs(runs)))


def _best(choices: Sequence[Location], last: Shared | None) -> Location | None:
    if last is not None:
        for place in choices:
            if _continues(last, place):
                return place
    return choices[0] if choices else None


def _continues(last: Shared, place: Location) -> bool:
    return last.path == place.path and last.offset + last.length == place.offset


def _drop_crumbs(runs: list[tuple[Shared | None, list[Segment]]]) -> list[tuple[Shared | None, list[Segment]]]:
    """Rule 6; what becomes new joins its new neighbours."""
    kept: list[tuple[Shared | None, list[Segment]]] = []
    for number, (shared, segments) in enumerate(runs):
        beside_new = any(
            0 <= neighbour < len(runs) and runs[neighbour][0] is None for neighbour in (number - 1, number + 1)
        )
        crumb = shared is not None and shared.length < SMALL_SHARE and beside_new
        if shared is not None and not crumb:
            kept.append((shared, segments))
        elif kept and kept[-1][0] is None:
            kept[-1] = (None, kept[-1][1] + segments)
        else:
            kept.append((None, segments))
    return kept


def _pieces(path: str, runs: list[tuple[Shared | None, list[Segment]]]) -> list[Piece]:
    pieces: list[Piece] = []
    for shared, segments in runs:
        if shared is not None:
            pieces.append(shared)
            continue
        small: list[Segment] = []
        for segment in segments:
            if segment.length < BIG:
                small.append(segment)
                continue
            if small:
                pieces.append(New(path, tuple(small)))
                small = []
            pieces.append(New(path, (segment,)))
        if small:
            pieces.append(New(path, tuple(small)))
    return pieces


def key_of(segment: Segment) -> PartKey:
    """What a segment is found by."""
    return segment.sha256, segment.length
