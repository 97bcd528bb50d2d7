"""GGUF v2/v3 headers: where each tensor of a llama.cpp file lies. Nothing is dequantised.

`GGUF`, u32 version, u64 tensors, u64 pairs, typed pairs, then per tensor: name, dimensions (fastest first), type,
offset from the data; data starts at the next multiple of `general.alignment` (32 unless said).
"""

from __future__ import annotations

import struct

from fscore.hub.formats.api import CutShort, FormatError, RandomReader, TensorEntry, elements_of

MAGIC = b"GGUF"
_MOST_HEADER = 512 << 20
_MOST_ITEMS = 1 << 24
_MOST_DIMS = 8
_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _U32 = 8, 9, 4

_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip
"""ggml type: name, elements of a block, bytes of a block (ggml-common.h)."""


class _Cursor:
    """Reads forward through the header and refuses to leave the file."""

    def __init__(self, reader: RandomReader, file: str) -> None:
        self._reader = reader
        self._file = file
        self._buffer = b""
        self._base = 0
        self.at = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        self._need(length)
        start = self.at - self._base
        self.at += length
        return self._buffer[start : start + length]

    def skip(self, length: int) -> None:
        """Pass over `length` bytes."""
        if self.at + length > min(self._reader.size, _MOST_HEADER):
            raise CutShort(f"{self._file}: cut short inside the header")
        self.at += length

    def number(self, code: str) -> int:
        """One little-endian integer of a struct code."""
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0])

    def text(self) -> str:
        """A length-prefixed string."""
        return self.take(self._count(self.number("Q"))).decode("utf-8", "replace")

    def count(self) -> int:
        """A number of items that a header can hold."""
        return self._count(self.number("Q"))

    def _count(self, value: int) -> int:
        if value > _MOST_ITEMS:
            raise FormatError(f"{self._file}: the header counts {value} items, which cannot be")
        return value

    def _need(self, length: int) -> None:
        if self.at + length > min(self._reader.size, _MOST_HEADER):
            raise CutShort(f"{self._file}: cut short inside the header")
        if not self._base <= self.at <= self.at + length <= self._base + len(self._buffer):
            self._base = self.at
            self._buffer = self._reader.pread(self.at, max(length, 1 << 20))


def read_tensors(reader: RandomReader, file: str) -> list[TensorEntry]:
    """The tensor table; raises FormatError for a header or a size that cannot be."""
    cursor = _Cursor(reader, file)
    if cursor.take(4) != MAGIC:
        raise FormatError(f"{file}: does not start with GGUF")
    version = cursor.number("I")
    if version not in {2, 3}:
        raise FormatError(f"{file}: GGUF version {version} is not known")
    tensors, pairs = cursor.count(), cursor.count()
    alignment = 32
    for _ in range(pairs):
        key = cursor.text()
        kind = cursor.number("I")
        if key == "general.alignment" and kind == _U32:
            alignment = cursor.number("I")
        else:
            _pass_value(cursor, kind, file)
    if alignment < 8 or alignment % 8:
        raise FormatError(f"{file}: an alignment of {alignment} cannot be")
    infos = [_info(cursor, file) for _ in range(tensors)]
    start = -(-cursor.at // alignment) * alignment
    return [_placed(info, file, start, alignment, reader.size) for info in infos]


def _pass_value(cursor: _Cursor, kind: int, file: str) -> None:
    if kind in _FIXED:
        cursor.skip(_FIXED[kind])
    elif kind == _STRING:
        cursor.skip(cursor.count())
    elif kind == _ARRAY:
        inner, count = cursor.number("I"), cursor.count()
        if inner in _FIXED:
            cursor.skip(count * _FIXED[inner])
        elif inner == _STRING:
            for _ in range(count):
                cursor.skip(cursor.count())
        else:
            raise FormatError(f"{file}: an array of type {inner} is not known")
    else:
        raise FormatError(f"{file}: a value of type {kind} is not known")


def _info(cursor: _Cursor, file: str) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text()
    dims = cursor.number("I")
    if dims > _MOST_DIMS:
        raise FormatError(f"{file}: tensor {name} has {dims} dimensions, which cannot be")
    shape = tuple(cursor.number("Q") for _ in range(dims))[::-1]
    return name, shape, cursor.number("I"), cursor.number("Q")


def _placed(
    info: tuple[str, tuple[int, ...], int, int], file: str, start: int, alignment: int, size: int
) -> TensorEntry:
    name, shape, kind, offset = info
    if kind not in _TYPES:
        raise FormatError(f"{file}: tensor {name} has the unknown type {kind}")
    dtype, block, width = _TYPES[kind]
    elements = elements_of(shape)
    if elements % block:
        raise FormatError(f"{file}: tensor {name} has {elements} elements, not whole blocks of {dtype}")
    nbytes = elements // block * width
    if offset % alignment:
        raise FormatError(f"{file}: tensor {name} is not aligned to {alignment} bytes")
    if start + offset + nbytes > size:
        raise CutShort(f"{file}: cut short: tensor {name} ends at {start + offset + nbytes}, the file at {size}")
    return TensorEntry(name, dtype, shape, file, start + offset, nbytes)
