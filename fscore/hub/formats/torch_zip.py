"""Files of torch.save (.pt, .bin, .ckpt, items of .distcp): a stored zip around an inert pickle and raw storages.

Measured on torch 2.13-2.15: entries `<root>/data.pkl, byteorder, version, data/<key>`, never compressed, each payload
at a multiple of 64, the end record in the last bytes, so that a file cut short has no directory.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from fscore.hub.formats.api import DTYPE_BITS, CutShort, FormatError, Problem, RandomReader, TensorEntry, elements_of
from fscore.hub.formats.inert import MOST_BYTES, Inert, Made, Name, Persistent

LOCAL_HEADER, END_RECORD = b"PK\x03\x04", b"PK\x05\x06"
END_LENGTH = 22

_STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
}  # fmt: skip
_DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "complex64": "C64",
}  # fmt: skip
_ALLOWED = re.compile(
    r"torch\.(\w*Storage|Size|device|[a-z]+\d+\w*|bool|float|double|half|int|long|short|uint8)"
    r"|torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_\w+|serialization\._get_layout|nn\.parameter\.Parameter)"
    r"|torch\.(storage|distributed\.(checkpoint|_tensor|tensor|_shard)|torch_version)\.[\w.]+"
    r"|collections\.(OrderedDict|defaultdict)|argparse\.Namespace|types\.SimpleNamespace|datetime\.\w+|_codecs\.encode"
    r"|(builtins|__builtin__)\.(set|dict|list|tuple|slice|complex|bytearray)|pathlib\.(Pure)?(Posix|Windows)?Path"
    r"|numpy\.(dtype|ndarray|\w*\d+|bool_?|(_?core\.|random\.)?\w+\.(_reconstruct|scalar|_frombuffer|\w+_ctor)"
    r"|_core\.multiarray\.\w+|core\.multiarray\.\w+)|(megatron|deepspeed|nemo|transformer_engine)\.[\w.]+"
)
"""What training frameworks write into checkpoints (models.md 1.6)."""

_MOST_DEPTH = 64


class TorchFile(msgspec.Struct, frozen=True):
    """One archive: its tensors, the whole value as inert data, the globals that it mentions, its entries."""

    tensors: tuple[TensorEntry, ...]
    strided: tuple[str, ...]
    """Tensors whose bytes do not lie in order: views that a conversion must copy."""
    value: Any
    names: frozenset[str]
    payloads: dict[str, tuple[int, int]]
    checksums: dict[str, int]
    storages: dict[str, str] = {}
    """The dtype of each storage, by its key."""


class _Window(io.RawIOBase):
    """A part of a reader as the file that zipfile wants."""

    def __init__(self, reader: RandomReader, base: int, size: int) -> None:
        super().__init__()
        self._reader, self._base, self._size, self._at = reader, base, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As files do."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        if self._at < 0:
            raise ValueError("before the start")
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes."""
        left = max(0, self._size - self._at)
        want = left if size is None or size < 0 else min(size, left)
        data = self._reader.pread(self._base + self._at, want) if want else b""
        self._at += len(data)
        return data


def read_torch(reader: RandomReader, file: str, *, base: int = 0, size: int | None = None) -> TorchFile:
    """Read an archive without executing anything; `base` and `size` name an item inside a larger file."""
    length = reader.size - base if size is None else size
    head = reader.pread(base, 4)
    if head[:1] == b"\x80":
        raise FormatError(f"{file}: a bare pickle, as torch before 1.6 wrote", hint="convert it to safetensors")
    if head != LOCAL_HEADER:
        raise FormatError(f"{file}: does not start as a torch archive does")
    entries = _directory(reader, file, base, length)
    payloads = {name.partition("/")[2]: place for name, (place, _) in entries.items()}
    checksums = {name.partition("/")[2]: crc for name, (_, crc) in entries.items()}
    if "data.pkl" not in payloads:
        raise FormatError(f"{file}: has no data.pkl, so torch.save did not write it")
    if "byteorder" in payloads and reader.pread(*payloads["byteorder"]) != b"little":
        raise FormatError(f"{file}: was written on a big-endian machine")
    if payloads["data.pkl"][1] > MOST_BYTES:
        raise FormatError(f"{file}: a pickle of {payloads['data.pkl'][1]} bytes is too large to read")
    raw = reader.pread(*payloads["data.pkl"])
    if checksums["data.pkl"] not in {0, zlib.crc32(raw)}:
        raise FormatError(f"{file}: data.pkl does not match its CRC-32")
    pickle = Inert(raw, file)
    tensors: list[TensorEntry] = []
    strided: list[str] = []
    kinds: dict[str, str] = {}
    for name, made in walk_tensors(pickle.value):
        entry, in_order, key = _tensor(name, made, file, payloads)
        tensors.append(entry)
        kinds.setdefault(key, entry.dtype)
        if not in_order:
            strided.append(name)
    return TorchFile(tuple(tensors), tuple(strided), pickle.value, pickle.names, payloads, checksums, kinds)


def check_sums(reader: RandomReader, archive: TorchFile, file: str) -> list[Problem]:
    """Compare every entry with its CRC-32; reads all bytes."""
    problems = []
    for name, (offset, length) in archive.payloads.items():
        crc = 0
        for start in range(0, length, 4 << 20):
            crc = zlib.crc32(reader.pread(offset + start, min(4 << 20, length - start)), crc)
        if crc != archive.checksums[name] and archive.checksums[name]:
            problems.append(Problem("checksum", file, f"{file}: entry {name} does not match its CRC-32"))
    return problems


def suspicious(names: frozenset[str]) -> list[str]:
    """Globals that no checkpoint needs; a pickle that mentions them must not be loaded."""
    return sorted(name for name in names if not _ALLOWED.fullmatch(name))


def walk_tensors(value: object) -> Iterator[tuple[str, Made]]:
    """Every tensor of nested dictionaries and lists, by its dotted name; each container once."""
    pending: list[tuple[str, object, int]] = [("", value, 0)]
    seen: set[int] = set()
    while pending:
        name, item, depth = pending.pop()
        if isinstance(item, Made):
            whole = _unwrap(item)
            if whole is not None:
                yield name, whole
                continue
            item = item.fields
        if isinstance(item, dict | list | tuple) and id(item) not in seen and depth < _MOST_DEPTH:
            seen.add(id(item))
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            inner = [(f"{name}.{key}" if name else str(key), below, depth + 1) for key, below in pairs]
            pending.extend(reversed(inner))


def _unwrap(made: Made) -> Made | None:
    of = str(made.of) if isinstance(made.of, Name) else ""
    if of.startswith("torch._utils._rebuild_parameter") and made.args and isinstance(made.args[0], Made):
        return _unwrap(made.args[0])
    return made if of in {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"} else None


def _tensor(name: str, made: Made, file: str, payloads: dict[str, tuple[int, int]]) -> tuple[TensorEntry, bool, str]:
    where = f"{file}: tensor {name}"
    storage, first, shape, stride = (*made.args, None, None, None, None)[:4]
    key = storage.key if isinstance(storage, Persistent) else None
    if not isinstance(key, tuple) or len(key) != 5 or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise FormatError(f"{where} is not built as torch builds one")
    if len(shape) != len(stride):
        raise FormatError(f"{where} has {len(shape)} dimensions and {len(stride)} strides")
    _, kind, key, _, _ = key
    dtype = _dtype(kind, made)
    if dtype is None or f"data/{key}" not in payloads:
        raise FormatError(f"{where} has no storage that can be read")
    sizes = [*shape, *stride, first]
    if not all(isinstance(n, int) and n >= 0 for n in sizes):
        raise FormatError(f"{where} has an impossible shape")
    width = DTYPE_BITS[dtype] // 8
    offset, length = payloads[f"data/{key}"]
    nbytes = elements_of(tuple(shape)) * width
    reach = first + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1 if nbytes else first
    if reach * width > length:
        raise FormatError(f"{where} reaches beyond its storage of {length} bytes")
    entry = TensorEntry(name, dtype, tuple(shape), file, offset + first * width, nbytes)
    return entry, _in_order(tuple(shape), tuple(stride)), str(key)


def _dtype(kind: object, made: Made) -> str | None:
    if not isinstance(kind, Name):
        return None
    if kind.name == "UntypedStorage":
        named = [part.name for part in made.args if isinstance(part, Name)]
        return next((_DTYPES[name] for name in named if name in _DTYPES), None)
    return _STORAGES.get(kind.name)


def _in_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _directory(reader: RandomReader, file: str, base: int, size: int) -> dict[str, tuple[tuple[int, int], int]]:
    """Name to ((absolute offset, length), CRC-32) of every entry."""
    try:
        with zipfile.ZipFile(_Window(reader, base, size)) as archive:
            infos = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        OSError,
        EOFError,
        OverflowError,
        struct.error,
    ) as error:
        raise CutShort(f"{file}: cut short or not a zip: {error}") from None
    found: dict[str, tuple[tuple[int, int], int]] = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise FormatError(f"{file}: entry {info.filename} is compressed, which torch.save never does")
        if not 0 <= info.header_offset < size:
            raise FormatError(f"{file}: entry {info.filename} lies outside the file")
        header = reader.pread(base + info.header_offset, 30)
        if len(header) < 30 or header[:4] != LOCAL_HEADER:
            raise FormatError(f"{file}: entry {info.filename} has no local header")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        offset = base + info.header_offset + 30 + name_length + extra_length
        if offset + info.file_size > base + size or info.filename in found:
            raise FormatError(f"{file}: entry {info.filename} reaches beyond the file, or is there twice")
        found[info.filename] = ((offset, info.file_size), info.CRC)
    return found
