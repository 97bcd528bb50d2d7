"""Looks at every number of every tensor, as bits: NaN, infinity, the largest magnitude, zeros, and a fast hash.

A float is not finite when all its exponent bits are set, so an integer comparison in chunks that stay in the cache
does for all dtypes (models.md D10); nothing is converted to floating point.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from fscore.hub.formats.api import FormatError, RandomReader, Source, SupportsReadInto, TensorEntry
from fscore.runtime.buffer import Buffer
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool

CHUNK = 256 << 10
STEP = 4 << 20


class _Bits(msgspec.Struct, frozen=True):
    """Of one float dtype: its unsigned twin, all bits but the sign, the first that is not finite, the first NaN."""

    twin: str
    magnitude: int
    limit: int
    nan: int


_FLOATS: dict[str, _Bits] = {
    "BF16": _Bits("<u2", 0x7FFF, 0x7F80, 0x7F81),
    "F16": _Bits("<u2", 0x7FFF, 0x7C00, 0x7C01),
    "F32": _Bits("<u4", 0x7FFFFFFF, 0x7F800000, 0x7F800001),
    "C64": _Bits("<u4", 0x7FFFFFFF, 0x7F800000, 0x7F800001),
    "F64": _Bits("<u8", (1 << 63) - 1, 0x7FF << 52, (0x7FF << 52) + 1),
    "F8_E5M2": _Bits("<u1", 0x7F, 0x7C, 0x7D),
    "F8_E4M3": _Bits("<u1", 0x7F, 0x7F, 0x7F),
}
"""F8_E4M3 has no infinity and one NaN. The dtypes below have one NaN of all eight bits, and no infinity."""

_SINGLE_NAN = {"F8_E4M3FNUZ": 0x80, "F8_E5M2FNUZ": 0x80, "F8_E8M0": 0xFF}


class TensorStats(msgspec.Struct, frozen=True):
    """What the numbers of a tensor are like. `absmax` is that of the finite ones; None where it says nothing."""

    elements: int
    nan: int
    inf: int
    zeros: int
    absmax: float | None
    xxh3: str

    @property
    def zero_fraction(self) -> float:
        """The part of the elements that are zero."""
        return self.zeros / self.elements if self.elements else 0.0


class TensorScanner:
    """Takes a tensor's bytes in order, cut anywhere, and counts. One a tensor; not for two threads at once."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._bits = _FLOATS.get(dtype)
        self._twin = np.dtype(self._bits.twin if self._bits else "<u1")
        self._scratch: npt.NDArray[Any] = np.empty(CHUNK // self._twin.itemsize, self._twin)
        self._rest = b""
        self._hash = xxhash.xxh3_128()
        self._elements = self._nan = self._inf = self._zeros = self._top = 0

    def feed(self, data: Buffer) -> None:
        """The next bytes."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        width = self._twin.itemsize
        if self._rest:
            take = min(len(view), width - len(self._rest))
            self._rest += bytes(view[:take])
            view = view[take:]
            if len(self._rest) == width:
                self._count(np.frombuffer(self._rest, self._twin))
                self._rest = b""
        whole = len(view) // width * width
        values = np.frombuffer(view[:whole], self._twin)
        step = CHUNK // width
        for start in range(0, len(values), step):
            self._count(values[start : start + step])
        self._rest += bytes(view[whole:])

    def finish(self) -> TensorStats:
        """The counts. Raises FormatError when the bytes ended inside an element."""
        if self._rest:
            raise FormatError(f"{len(self._rest)} bytes are left over after the last {self._dtype}")
        elements = self._elements // (2 if self._dtype == "C64" else 1)
        return TensorStats(elements, self._nan, self._inf, self._zeros, self._absmax(), self._hash.hexdigest())

    def _count(self, values: npt.NDArray[Any]) -> None:
        self._elements += len(values)
        if self._bits is None:
            self._zeros += len(values) - int(np.count_nonzero(values))
            if self._dtype in _SINGLE_NAN:
                self._nan += int(np.count_nonzero(values == _SINGLE_NAN[self._dtype]))
            return
        bits = np.bitwise_and(values, self._bits.magnitude, out=self._scratch[: len(values)])
        self._zeros += len(bits) - int(np.count_nonzero(bits))
        top = int(bits.max())
        if top >= self._bits.limit:
            self._nan += int(np.count_nonzero(bits >= self._bits.nan))
            self._inf += int(np.count_nonzero(bits[bits < self._bits.nan] >= self._bits.limit))
            finite = bits[bits < self._bits.limit]
            top = int(finite.max()) if len(finite) else 0
        self._top = max(self._top, top)

    def _absmax(self) -> float | None:
        if self._bits is None or not self._elements:
            return None
        return bits_to_float(self._dtype, self._top)


def bits_to_float(dtype: str, bits: int) -> float:
    """The value of a positive float's bits."""
    if dtype == "BF16":
        return float(np.uint32(bits << 16).view(np.float32))
    if dtype == "F8_E5M2":
        return float(np.uint16(bits << 8).view(np.float16))
    if dtype == "F8_E4M3":
        exponent, mantissa = bits >> 3, bits & 7
        return float(mantissa * 2.0**-9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    twin, kind = {"F16": ("<u2", "<f2"), "F64": ("<u8", "<f8")}.get(dtype, ("<u4", "<f4"))
    return float(np.array([bits], twin).view(kind)[0])


def scan_tensors(
    source: Source,
    tensors: Iterable[TensorEntry],
    *,
    progress: Progress | None = None,
    workers: int = 4,
) -> list[TensorStats]:
    """Scan all tensors, in the order given. One pass over the bytes, in threads."""
    entries = list(tensors)
    progress = progress or NoProgress()
    task = progress.start("scan tensors", sum(entry.nbytes for entry in entries), "B")
    readers = _SharedReaders(source, Counter(entry.file for entry in entries))

    def one(entry: TensorEntry) -> TensorStats:
        with readers.use(entry.file) as reader:
            stats = scan_tensor(reader, entry)
        progress.advance(task, entry.nbytes)
        return stats

    try:
        with Pool("hub-validate", workers) as pool:
            return list(pool.map_bounded(one, entries, inflight=4 * workers))
    finally:
        readers.close()
        progress.finish(task)


class _SharedReaders:
    """Opens a file at its first tensor and closes it after its last, for a checkpoint may have thousands of files."""

    def __init__(self, source: Source, uses: Counter[str]) -> None:
        self._source = source
        self._uses = uses
        self._open: dict[str, RandomReader] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self, file: str) -> Iterator[RandomReader]:
        """The file's reader, for one tensor."""
        with self._lock:
            reader = self._open.get(file)
            if reader is None:
                reader = self._open[file] = self._source.open(file)
        try:
            yield reader
        finally:
            with self._lock:
                self._uses[file] -= 1
                if not self._uses[file]:
                    self._open.pop(file).close()

    def close(self) -> None:
        """Close what an error left open."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()


def scan_tensor(reader: RandomReader, entry: TensorEntry) -> TensorStats:
    """Scan one tensor."""
    scanner = TensorScanner(entry.dtype)
    for part in _parts(reader, entry):
        scanner.feed(part)
    return scanner.finish()


def _parts(reader: RandomReader, entry: TensorEntry) -> Iterator[bytes | memoryview]:
    into = reader if isinstance(reader, SupportsReadInto) else None
    buffer = memoryview(bytearray(min(STEP, entry.nbytes))) if into else memoryview(b"")
    for start in range(0, entry.nbytes, STEP):
        want = min(STEP, entry.nbytes - start)
        part: bytes | memoryview
        if into is not None:
            part = buffer[: into.pread_into(entry.offset + start, buffer[:want])]
        else:
            part = reader.pread(entry.offset + start, want)
        if len(part) != want:
            raise FormatError(f"{entry.file} became shorter while it was read")
        yield part
