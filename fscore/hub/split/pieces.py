"""What a planned file is made of: ranges that are referred to, and runs of new bytes. Reads only when asked to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from fscore.hub.formats.api import FormatError, RandomReader, SupportsReadInto
from fscore.hub.split.rules import Span

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BATCH = 16 << 20
"""Most source bytes that a gather holds at once."""


class Ref(msgspec.Struct, frozen=True, tag=True):
    """A range of a source file, by reference."""

    file: str
    offset: int
    length: int


class Made(msgspec.Struct, frozen=True, tag=True):
    """A range of a file that this plan makes earlier (`tp0-pp0-ep0/model.safetensors`), by reference."""

    path: str
    offset: int
    length: int


class Fill(msgspec.Struct, frozen=True, tag=True):
    """Zero bytes that take no space."""

    length: int


class Inline(msgspec.Struct, frozen=True, tag=True):
    """Bytes that the plan itself made: a header, an index, a rank's description."""

    data: bytes

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.data)


class Gather(msgspec.Struct, frozen=True, tag=True):
    """Columns of a tensor: of `outer` rows of `width` bytes at `offset`, the byte spans of each, row by row."""

    file: str
    offset: int
    outer: int
    width: int
    spans: tuple[Span, ...]

    @property
    def length(self) -> int:
        """Bytes that come out."""
        return self.outer * sum(stop - start for start, stop in self.spans)


class Fresh(msgspec.Struct, frozen=True, tag=True):
    """One run of new bytes: made, gathered or copied, in order."""

    parts: tuple[Inline | Gather | Ref | Fill, ...]

    @property
    def length(self) -> int:
        """Bytes."""
        return sum(part.length for part in self.parts)


Piece = Ref | Made | Fill | Fresh


class Opens(Protocol):
    """Whatever opens files by name; a Source does."""

    def open(self, rel: str) -> RandomReader:
        """Open one."""
        ...


class Readers:
    """The source files of a plan, opened once each; for any number of threads."""

    def __init__(self, source: Opens) -> None:
        self._source = source
        self._open: dict[str, RandomReader] = {}
        self._lock = threading.Lock()

    def get(self, file: str) -> RandomReader:
        """The reader of one file."""
        with self._lock:
            if file not in self._open:
                self._open[file] = self._source.open(file)
            return self._open[file]

    def close(self) -> None:
        """Close all."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()


def stream(fresh: Fresh, readers: Readers) -> Iterator[bytes | memoryview]:
    """The bytes of a run, in parts of bounded size."""
    for part in fresh.parts:
        if isinstance(part, Inline):
            yield part.data
        elif isinstance(part, Fill):
            yield from zeros(part.length)
        elif isinstance(part, Ref):
            yield from copy(part, readers.get(part.file))
        else:
            yield from gather(part, readers.get(part.file))


def zeros(length: int) -> Iterator[bytes]:
    """`length` zero bytes."""
    for start in range(0, length, BATCH):
        yield bytes(min(BATCH, length - start))


def copy(ref: Ref, reader: RandomReader) -> Iterator[bytes]:
    """The bytes of a range."""
    for start in range(0, ref.length, BATCH):
        want = min(BATCH, ref.length - start)
        data = reader.pread(ref.offset + start, want)
        if len(data) != want:
            raise FormatError(f"{ref.file} became shorter while it was read")
        yield data


def gather(part: Gather, reader: RandomReader) -> Iterator[memoryview]:
    """Columns row by row: whole rows are read, since every block holds columns of all ranks (models.md 2.5)."""
    rows = max(1, min(part.outer, BATCH // part.width))
    import numpy as np  # late: splits alone need it, and it takes a fifth of what all of the hub takes to import

    buffer = np.empty((rows, part.width), dtype=np.uint8)
    for start in range(0, part.outer, rows):
        count = min(rows, part.outer - start)
        held = buffer[:count]
        _fill(held, reader, part.offset + start * part.width, part.file)
        chosen = [held[:, begin:end] for begin, end in part.spans]
        out = np.ascontiguousarray(chosen[0]) if len(chosen) == 1 else np.concatenate(chosen, axis=1)
        if np.shares_memory(out, buffer):
            out = out.copy()
        yield out.data.cast("B")


def _fill(target: npt.NDArray[np.uint8], reader: RandomReader, offset: int, file: str) -> None:
    view = target.data.cast("B")
    if isinstance(reader, SupportsReadInto):
        got = reader.pread_into(offset, view)
    else:
        data = reader.pread(offset, len(view))
        got = len(data)
        view[:got] = data
    if got != len(view):
        raise FormatError(f"{file} became shorter while it was read")
