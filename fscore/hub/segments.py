"""One file of the index: sorted columns of known byte ranges. Pure bytes in, bytes out; knows no volume.

Layout: magic, u32 length, that many bytes of JSON (`Directory`), then the columns, each for all rows:
key u64 (the first 8 bytes of SHA-256, big endian as a number; rows are sorted by it), rest 24 bytes, length u64,
file u32 (number in the directory), offset u64. All little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fscore.domain.errors import CorruptError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAGIC: Final = b"FSIDX001"
ROW: Final = 8 + 24 + 8 + 4 + 8


class IndexBase(msgspec.Struct, frozen=True, array_like=True):
    """A version, or a layout of one, whose files are indexed here."""

    model: str
    version: int
    layout: str
    digest: str


class IndexFile(msgspec.Struct, frozen=True, array_like=True):
    """A file with what proves that it is still the one that was indexed."""

    base: int
    path: str
    size: int
    ino: int
    mtime_ns: int
    md5: str
    sha256: str


class Directory(msgspec.Struct, frozen=True):
    """What the rows of one index file refer to."""

    bases: tuple[IndexBase, ...] = ()
    files: tuple[IndexFile, ...] = ()


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One known byte range."""

    sha256: bytes
    length: int
    file: int
    offset: int


class IndexSegment:
    """An index file in memory."""

    def __init__(self, directory: Directory, columns: Sequence[npt.NDArray[np.generic]]) -> None:
        self.directory = directory
        self._keys, self._rests, self._lengths, self._files, self._offsets = columns

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, wanted: Sequence[tuple[bytes, int]]) -> Iterator[tuple[int, int, int]]:
        """(position in `wanted`, file number, offset) of every known place of the (SHA-256, length) pairs."""
        if not len(self._keys) or not wanted:
            return
        import numpy as np

        keys = np.frombuffer(b"".join(sha256[:8] for sha256, _ in wanted), dtype=">u8").astype("<u8")
        first = np.searchsorted(self._keys, keys, "left")
        last = np.searchsorted(self._keys, keys, "right")
        for position in np.flatnonzero(last > first).tolist():
            sha256, length = wanted[position]
            for row in range(int(first[position]), int(last[position])):
                if int(self._lengths[row]) == length and self._rests[row].tobytes() == sha256[8:]:
                    yield position, int(self._files[row]), int(self._offsets[row])

    def rows(self) -> Iterator[Row]:
        """Every row, in key order."""
        for number in range(len(self._keys)):
            key = int(self._keys[number]).to_bytes(8, "big") + self._rests[number].tobytes()
            yield Row(key, int(self._lengths[number]), int(self._files[number]), int(self._offsets[number]))


def pack(directory: Directory, rows: Iterable[Row]) -> bytes:
    """The bytes of an index file."""
    import numpy as np  # late, as in hub.split.pieces

    ordered = sorted(rows, key=lambda row: row.sha256)
    head = msgspec.json.encode(directory)
    keys = np.frombuffer(b"".join(row.sha256[:8] for row in ordered), dtype=">u8").astype("<u8")
    columns = (
        keys.tobytes(),
        b"".join(row.sha256[8:] for row in ordered),
        np.array([row.length for row in ordered], dtype="<u8").tobytes(),
        np.array([row.file for row in ordered], dtype="<u4").tobytes(),
        np.array([row.offset for row in ordered], dtype="<u8").tobytes(),
    )
    return b"".join((MAGIC, struct.pack("<I", len(head)), head, *columns))


def unpack(data: bytes) -> IndexSegment:
    """Read an index file. Raises CorruptError when it is none."""
    import numpy as np

    if data[:8] != MAGIC or len(data) < 12:
        raise CorruptError("not an index file")
    (length,) = struct.unpack_from("<I", data, 8)
    try:
        directory = msgspec.json.decode(data[12 : 12 + length], type=Directory)
    except msgspec.MsgspecError as error:
        raise CorruptError(f"an index file with a broken directory: {error}") from error
    start = 12 + length
    count, left = divmod(len(data) - start, ROW)
    if left or start > len(data):
        raise CorruptError("an index file that is cut short")
    columns = []
    for dtype, width in (("<u8", 8), ("V24", 24), ("<u8", 8), ("<u4", 4), ("<u8", 8)):
        columns.append(np.frombuffer(data, dtype=dtype, count=count, offset=start))
        start += width * count
    return IndexSegment(directory, columns)
