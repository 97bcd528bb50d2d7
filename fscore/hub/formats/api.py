"""What every reader of model files speaks: sources, readers, tensor entries, problems, refusals."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from fscore.domain.errors import HubError

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element, by the names of the safetensors format (crate 0.8)."""


class FormatError(HubError):
    """A model file that is not what it says it is."""


class CutShort(FormatError):
    """A model file that ends too early: still being written, or damaged."""


class UnsafeError(HubError):
    """A model file that could execute code, or leave its directory."""

    def __init__(self, message: str, *, hint: str = "", kind: str = "unsafe") -> None:
        super().__init__(message, hint=hint, kind=kind)


class TensorEntry(msgspec.Struct, frozen=True):
    """One tensor: where its bytes lie (`offset` is absolute in `file`) and what they mean."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int
    sha256: str = ""
    xxh3: str = ""

    @property
    def end(self) -> int:
        """One past the last byte, absolute in the file."""
        return self.offset + self.nbytes

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return elements_of(self.shape)


class Problem(msgspec.Struct, frozen=True):
    """Something wrong with a model: a stable `kind`, the file or tensor, one clear line."""

    kind: str
    where: str
    detail: str
    severity: str = "critical"


class RandomReader(Protocol):
    """An open file that is read at any offset. `pread` returns fewer bytes only at its end."""

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        ...

    def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; short only at the end of the file."""
        ...

    def close(self) -> None:
        """Give the handle back; calling it twice is harmless."""
        ...


@runtime_checkable
class SupportsReadInto(Protocol):
    """A reader that fills the caller's buffer without a copy in between."""

    def pread_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns how many bytes, short only at the end."""
        ...


class Source(Protocol):
    """A directory of model files, on this machine or in a volume. Paths are relative, with `/`."""

    @property
    def location(self) -> str:
        """Where it lies, for messages."""
        ...

    def files(self) -> list[tuple[str, int]]:
        """Every regular file with its size, sorted by path. Refuses links that lead outside."""
        ...

    def open(self, rel: str) -> RandomReader:
        """Open one of `files()`; raises UnsafeError for a path that leaves the directory."""
        ...


@runtime_checkable
class SupportsStat(Protocol):
    """A source that can also say when a file last changed."""

    def stats(self) -> list[tuple[str, int, int]]:
        """Every file with its size and modification time in nanoseconds, sorted by path."""
        ...


def elements_of(shape: tuple[int, ...]) -> int:
    """The product of the dimensions; 1 for a scalar."""
    count = 1
    for size in shape:
        count *= size
    return count


def nbytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes; raises FormatError for an unknown dtype or a split byte."""
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise FormatError(f"dtype {dtype} is not one of the safetensors format")
    total = elements_of(shape) * bits
    if total % 8:
        raise FormatError(f"{elements_of(shape)} elements of {dtype} do not fill whole bytes")
    return total // 8


def check_relative(rel: str) -> str:
    """Return `rel` when it stays below its directory; raises UnsafeError otherwise."""
    parts = rel.split("/")
    if not rel or rel.startswith("/") or "\\" in rel or "\0" in rel:
        raise UnsafeError(f"path {rel!r} is not a plain relative path")
    if any(part in {"", ".", ".."} for part in parts):
        raise UnsafeError(f"path {rel!r} leaves or repeats its directory")
    return rel


def read_whole(source: Source, rel: str, *, limit: int = 64 << 20) -> bytes:
    """The whole of a small file; refuses one above `limit` bytes."""
    reader = source.open(rel)
    try:
        if reader.size > limit:
            raise FormatError(f"{rel}: {reader.size} bytes are too many for a file of this kind")
        return reader.pread(0, reader.size)
    finally:
        reader.close()
