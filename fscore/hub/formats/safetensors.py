"""The safetensors container (crate 0.8): a strict reader of headers and a writer of aligned ones.

Layout: `u64 LE N`, N bytes of JSON that begin with `{` and may end in spaces, then the data. The size of the file
must be 8 + N + the largest end, exactly, so truncation and trailing bytes both show without reading the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fscore.hub.formats.api import CutShort, FormatError, RandomReader, TensorEntry, nbytes_of
from fscore.hub.formats.strict import load_object

MAX_HEADER = 100_000_000
ALIGN = 4096
"""Our own headers end on a page, so that the data can be mapped and read with O_DIRECT."""

METADATA = "__metadata__"
_MOST_DIMS = 64


class Header(msgspec.Struct, frozen=True):
    """A file's tensors in the order of their data, its free metadata, where data starts, the file's size."""

    entries: tuple[TensorEntry, ...]
    metadata: dict[str, str]
    data_start: int
    size: int


def read_header(reader: RandomReader, file: str = "") -> Header:
    """Read and check one header. Raises FormatError that names the file, and the tensor that lies."""
    size = reader.size
    if size < 8:
        raise CutShort(f"{file}: {size} bytes are too few for a safetensors file; it is cut short or not one")
    (length,) = struct.unpack("<Q", reader.pread(0, 8))
    if length > MAX_HEADER:
        raise FormatError(f"{file}: header of {length} bytes is above the format's limit; not a safetensors file")
    if 8 + length > size:
        raise CutShort(f"{file}: header of {length} bytes does not fit the file of {size}; it is cut short")
    raw = reader.pread(8, length)
    if len(raw) != length:
        raise CutShort(f"{file}: only {len(raw)} of {length} header bytes could be read")
    table = _parse(raw, file)
    metadata = _metadata(table.pop(METADATA, {}), file)
    entries = [_entry(name, value, file, 8 + length) for name, value in table.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.end, entry.name))
    _contiguous(entries, file, 8 + length, size)
    return Header(entries=tuple(entries), metadata=metadata, data_start=8 + length, size=size)


def header_places(raw: bytes) -> dict[str, int]:
    """Where each tensor begins in a file with this header (8 bytes of length and JSON), as `build_header` made it."""
    (length,) = struct.unpack("<Q", raw[:8])
    table = _parse(raw[8 : 8 + length], "")
    return {name: 8 + length + value["data_offsets"][0] for name, value in table.items() if name != METADATA}


def build_header(
    entries: Iterable[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
    *,
    align: int = ALIGN,
) -> bytes:
    """The header of a file whose tensors follow in this order: (name, dtype, shape) each.

    Padded with spaces so that the data starts at a multiple of `align`.
    """
    table: dict[str, Any] = {METADATA: dict(metadata if metadata is not None else {"format": "pt"})}
    begin = 0
    for name, dtype, shape in entries:
        if name in table:
            raise FormatError(f"tensor {name} is planned twice in one file")
        end = begin + nbytes_of(dtype, shape)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    body = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    padded = -(-(8 + len(body)) // align) * align - 8
    if padded > MAX_HEADER:
        raise FormatError(f"a header of {padded} bytes is above the format's limit; use more files")
    return struct.pack("<Q", padded) + body.ljust(padded)


def _parse(raw: bytes, file: str) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise FormatError(f"{file}: the header does not start with an object; not a safetensors file")
    return load_object(raw, f"{file}: header")


def _metadata(value: object, file: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FormatError(f"{file}: {METADATA} must map text to text")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(name: str, value: object, file: str, start: int) -> TensorEntry:
    where = f"{file}: tensor {name}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        raise FormatError(f"{where} has a dtype that is not text")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMS or not all(map(_is_count, shape)):
        raise FormatError(f"{where} has the impossible shape {str(shape)[:80]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise FormatError(f"{where} has the impossible data_offsets {str(offsets)[:80]}")
    begin, end = offsets
    try:
        expected = nbytes_of(dtype, tuple(shape))
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    if end - begin != expected:
        raise FormatError(f"{where} says {dtype} {shape}, which is {expected} bytes, but holds {end - begin}")
    return TensorEntry(name, dtype, tuple(shape), file, start + begin, expected)


def _contiguous(entries: list[TensorEntry], file: str, start: int, size: int) -> None:
    at = start
    for entry in entries:
        if entry.offset > at:
            raise FormatError(f"{file}: a hole of {entry.offset - at} bytes lies before tensor {entry.name}")
        if entry.offset < at:
            raise FormatError(f"{file}: tensor {entry.name} overlaps the one before it")
        at = entry.end
    if size < at:
        raise CutShort(f"{file}: cut short: {size} bytes, but its header says {at}")
    if size > at:
        raise FormatError(f"{file}: {size - at} bytes too many at the end: {size}, but its header says {at}")
