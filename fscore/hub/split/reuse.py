"""Gathered bytes that an earlier layout of the model has already: looked up by name, believed only when compared.

A version that changed a few tensors is cut like the one before it. The columns of all other tensors come out as the
same bytes, at the same name, in the same rank's file of the earlier layout, so that they are referred to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from fscore.domain.errors import FsError
from fscore.files.compose import Range
from fscore.hub.formats.api import FormatError, RandomReader
from fscore.hub.formats.safetensors import header_places, read_header
from fscore.hub.formats.source import VolumeSource
from fscore.hub.split import pieces
from fscore.hub.split.pieces import Fresh, Gather, Inline, Readers

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem
    from fscore.hub.split.plan import FilePlan

WORTH = 64 << 10
"""Below this a record costs more than the bytes."""


class Found(msgspec.Struct, frozen=True):
    """One file of an earlier layout: its path, an open reader, and where its tensors lie as (offset, bytes)."""

    path: str
    reader: RandomReader
    places: dict[str, tuple[int, int]]


class Earlier:
    """Layouts of the same grid, in `homes`, the likeliest first. For any number of threads."""

    def __init__(self, files: Filesystem, homes: Sequence[str]) -> None:
        self._files = files
        self._homes = homes
        self._open: dict[str, Found | None] = {}
        self._lock = threading.Lock()

    def resolve(self, rank: str, file: FilePlan, readers: Readers) -> Iterator[pieces.Piece | Range]:
        """The pieces of a planned file, gathered bytes replaced by ranges where an earlier layout has them."""
        candidates = [found for home in self._homes if (found := self._file(home, f"{rank}/{file.path}"))]
        if not candidates or not any(isinstance(piece, Fresh) for piece in file.pieces):
            yield from file.pieces
            return
        at, names = 0, _names(file)
        for piece in file.pieces:
            if isinstance(piece, Fresh):
                yield from self._divide(piece, at, names, candidates, readers)
            else:
                yield piece
            at += piece.length

    def close(self) -> None:
        """Close the files that were looked into."""
        for found in self._open.values():
            if found is not None:
                found.reader.close()
        self._open.clear()

    def _divide(
        self, fresh: Fresh, at: int, names: dict[int, str], candidates: Sequence[Found], readers: Readers
    ) -> Iterator[Fresh | Range]:
        held: list[Inline | Gather | pieces.Ref | pieces.Fill] = []
        for part in fresh.parts:
            known = None
            if isinstance(part, Gather) and part.length >= WORTH:
                known = _same(part, names.get(at, ""), candidates, readers)
            at += part.length
            if known is None:
                held.append(part)
                continue
            if held:
                yield Fresh(tuple(held))
                held = []
            yield known
        if held:
            yield Fresh(tuple(held))

    def _file(self, home: str, path: str) -> Found | None:
        where = f"{home}/{path}"
        with self._lock:
            if where not in self._open:
                self._open[where] = self._look(home, path, where)
            return self._open[where]

    def _look(self, home: str, path: str, where: str) -> Found | None:
        if not path.endswith(".safetensors"):
            return None
        try:
            reader = VolumeSource(self._files, home).open(path)
        except FsError:
            return None
        try:
            header = read_header(reader, path)
        except (FsError, FormatError):
            reader.close()
            return None
        return Found(where, reader, {entry.name: (entry.offset, entry.nbytes) for entry in header.entries})


def _names(file: FilePlan) -> dict[int, str]:
    """Tensor names of a planned file by where their bytes begin, from the header that the plan made."""
    first = file.pieces[0]
    if not isinstance(first, Fresh) or not isinstance(first.parts[0], Inline):
        return {}
    return {offset: name for name, offset in header_places(first.parts[0].data).items()}


def _same(part: Gather, name: str, candidates: Sequence[Found], readers: Readers) -> Range | None:
    """The first earlier range that holds exactly the bytes of `part`."""
    for found in candidates:
        offset, nbytes = found.places.get(name, (0, 0))
        if nbytes == part.length and _equal(part, readers, found.reader, offset):
            return Range(found.path, offset, nbytes)
    return None


def _equal(part: Gather, readers: Readers, reader: RandomReader, offset: int) -> bool:
    try:
        for data in pieces.gather(part, readers.get(part.file)):
            if reader.pread(offset, len(data)) != data:
                return False
            offset += len(data)
    except FsError:
        return False
    return True
