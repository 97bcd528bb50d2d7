"""What pickled model files hold and would do: their storages as tensors, their globals, and nothing executed.

A storage, not a tensor, is the unit here: storages never overlap, so each byte range of a file has one name, and a
tensor that is its whole storage (almost all are) is found again in a safetensors file of the same weights.
"""

from __future__ import annotations

import io

from fscore.domain.errors import HubError
from fscore.hub.formats.api import DTYPE_BITS, CutShort, Problem, RandomReader, Source, TensorEntry, read_whole
from fscore.hub.formats.dcp import Item, parse_metadata
from fscore.hub.formats.inert import Inert
from fscore.hub.formats.torch_zip import LOCAL_HEADER, TorchFile, read_torch, suspicious

MOST_BARE = 256 << 20
"""A bare pickle above this is not looked into."""

_MOST_ITEMS = 200_000
_MOST_IN_A_ROW = 8


def look(source: Source, path: str) -> tuple[list[TensorEntry], list[Problem]]:
    """The storages of a torch file, and what is suspicious about it. Files that are no pickles yield nothing."""
    reader = source.open(path)
    try:
        head = reader.pread(0, 4)
        if head == LOCAL_HEADER:
            archive = read_torch(reader, path)
            return storages(archive, path), _strange(archive.names, path)
        return [], _bare(reader, path)
    except CutShort as error:
        return [], [Problem("cut_short", path, str(error))]
    except HubError as error:
        return [], [Problem("broken_file", path, str(error))]
    finally:
        reader.close()


def look_dcp(source: Source, metadata: str) -> tuple[list[TensorEntry], list[Problem]]:
    """The same for a directory of torch.distributed.checkpoint, by its `.metadata`."""
    folder = metadata.rpartition("/")[0]
    try:
        raw = read_whole(source, metadata, limit=1 << 30)
        stored = parse_metadata(raw, metadata)
    except HubError as error:
        return [], [Problem("broken_file", metadata, str(error))]
    problems = _strange(Inert(raw, metadata).names, metadata)
    by_file: dict[str, list[Item]] = {}
    for item in stored.items[:_MOST_ITEMS]:
        by_file.setdefault(f"{folder}/{item.file}" if folder else item.file, []).append(item)
    tensors: list[TensorEntry] = []
    for path, items in sorted(by_file.items()):
        try:
            reader = source.open(path)
        except HubError as error:
            problems.append(Problem("missing_shard", path, str(error)))
            continue
        try:
            tensors.extend(_items(reader, path, items, problems))
        finally:
            reader.close()
    return tensors, problems


def storages(archive: TorchFile, path: str, prefix: str = "") -> list[TensorEntry]:
    """Each storage once, as the tensor that fills it, else as plain elements."""
    held: dict[int, TensorEntry] = {}
    for entry in archive.tensors:
        best = held.get(entry.offset)
        if entry.name not in archive.strided and (best is None or entry.nbytes > best.nbytes):
            held[entry.offset] = entry
    found = []
    for key, (offset, length) in sorted(archive.payloads.items(), key=lambda payload: payload[1]):
        if not key.startswith("data/") or not length:
            continue
        whole = held.get(offset)
        if whole is not None and whole.nbytes == length:
            name, dtype, shape = whole.name, whole.dtype, whole.shape
        else:
            name, dtype = f"storage {key[5:]}", archive.storages.get(key[5:], "U8")
            shape = (length * 8 // DTYPE_BITS[dtype],)
        found.append(TensorEntry(f"{prefix}{name}".strip(), dtype, shape, path, offset, length))
    return found


def _items(reader: RandomReader, path: str, items: list[Item], problems: list[Problem]) -> list[TensorEntry]:
    found: list[TensorEntry] = []
    for item in sorted(items, key=lambda item: item.offset):
        if item.transformed:
            continue
        try:
            archive = read_torch(reader, path, base=item.offset, size=item.length)
        except HubError as error:
            problems.append(Problem("broken_file", path, f"{error} (the item of {item.name})"))
            return found
        problems.extend(_strange(archive.names, path))
        own = f"{item.name} {list(item.at)}" if item.at else item.name
        found.extend(storages(archive, path, f"{own} "))
    return found


def _bare(reader: RandomReader, path: str) -> list[Problem]:
    if reader.pread(0, 1) not in {b"\x80", b"(", b"c", b"}", b"]"}:
        return []
    if reader.size > MOST_BARE:
        detail = f"{path} is a bare pickle of {reader.size} bytes, too large to look into"
        return [Problem("pickle_globals", path, detail)]
    stream = io.BytesIO(reader.pread(0, reader.size))
    names: set[str] = set()
    for number in range(_MOST_IN_A_ROW):
        start = stream.tell()
        if number and stream.read(1) != b"\x80":
            break
        stream.seek(start)
        try:
            names |= Inert(stream, path).names
        except HubError as error:
            return [] if number else [Problem("pickle_globals", path, f"{path} cannot be looked into: {error}")]
    return _strange(frozenset(names), path)


def _strange(names: frozenset[str], path: str) -> list[Problem]:
    strange = suspicious(names)
    if not strange:
        return []
    detail = f"{path} would call {', '.join(strange[:3])} when it is loaded"
    return [Problem("pickle_globals", path, detail)]
