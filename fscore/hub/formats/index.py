"""The index of a sharded model (`*.safetensors.index.json`) against the headers of its shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fscore.hub.formats.api import FormatError, Problem, TensorEntry, UnsafeError, check_relative
from fscore.hub.formats.strict import load_object

INDEX_SUFFIX = ".safetensors.index.json"
_WHOLE = "model.safetensors"
_VARIANT = re.compile(r"^(model\.\w+|consolidated.*|adapter_model)\.safetensors$")
_MAIN_INDEX = f"{_WHOLE}.index.json"
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")


class Index(msgspec.Struct, frozen=True):
    """Which file holds which tensor; `total_size` is None where the index does not say."""

    file: str
    weight_map: dict[str, str]
    total_size: int | None = None
    metadata: dict[str, Any] = {}


def parse_index(data: bytes, file: str) -> Index:
    """Read an index; raises FormatError when it is none, UnsafeError for a path that leaves the directory."""
    body = load_object(data, file)
    weight_map = body.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise FormatError(f"{file}: has no weight_map from tensor to file")
    folder = file.rpartition("/")[0]
    for name, shard in weight_map.items():
        try:
            check_relative(shard)
        except UnsafeError as error:
            raise UnsafeError(f"{file}: tensor {name}: {error}") from None
    metadata = body.get("metadata") or {}
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Index(
        file=file,
        weight_map={name: f"{folder}/{shard}" if folder else shard for name, shard in weight_map.items()},
        total_size=int(total) if isinstance(total, int | float) else None,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def check_index(index: Index, tensors: Iterable[TensorEntry], sizes: Mapping[str, int]) -> list[Problem]:
    """Every entry resolves, no tensor is a stray, shard counts agree, the total is the sum of the tensors."""
    folder = index.file.rpartition("/")[0]
    here = [entry for entry in tensors if entry.file.rpartition("/")[0] == folder]
    held: dict[str, set[str]] = {}
    for entry in here:
        held.setdefault(entry.file, set()).add(entry.name)
    named = set(index.weight_map.values())
    problems = [
        Problem("missing_shard", shard, f"{index.file} names {shard}, which does not exist")
        for shard in sorted(named - sizes.keys())
    ]
    problems.extend(
        Problem("missing_tensor", name, f"{index.file} says tensor {name} is in {shard}, whose header has it not")
        for name, shard in index.weight_map.items()
        if shard in held and name not in held[shard]
    )
    problems.extend(
        Problem("stray_tensor", entry.name, f"{entry.file} holds tensor {entry.name}, which {index.file} does not say")
        for entry in here
        if index.weight_map.get(entry.name) != entry.file and entry.file in named
    )
    problems.extend(_shard_counts(index, named))
    total = sum(entry.nbytes for entry in here if entry.file in named)
    if index.total_size is not None and named <= sizes.keys() and index.total_size != total:
        detail = f"{index.file} says {index.total_size} bytes of tensors, the shards hold {total}"
        problems.append(Problem("total_size", index.file, detail, severity="warning"))
    return problems


def check_duplicates(tensors: Iterable[TensorEntry], indexes: Iterable[Index] = ()) -> list[Problem]:
    """Tensor names that two files of one set hold."""
    tensors = list(tensors)
    groups = Groups(indexes, {entry.file for entry in tensors})
    first: dict[tuple[str, str], str] = {}
    problems: list[Problem] = []
    for entry in tensors:
        other = first.setdefault((groups.of(entry.file), entry.name), entry.file)
        if other != entry.file:
            detail = f"tensor {entry.name} is in {other} and again in {entry.file}"
            problems.append(Problem("duplicate_tensor", entry.name, detail))
    return problems


class Groups:
    """Which safetensors files make one set of weights.

    Those that an index names are one, and its neighbours stand alone. Without an index all files of the folder are
    one, as loaders take them, but for known variants beside `model.safetensors` (`model.fp16.safetensors`,
    `consolidated.safetensors`, adapters). Files of other formats stand alone: each rank of a training checkpoint,
    each quantisation.
    """

    def __init__(self, indexes: Iterable[Index], files: Iterable[str]) -> None:
        self._places: dict[str, str] = {}
        self._indexes: dict[str, str] = {}
        self._closed: set[str] = set()
        for index in sorted(indexes, key=lambda index: (not index.file.endswith(_MAIN_INDEX), index.file)):
            folder = _folder(index.file)
            group = index.file if folder in self._closed else folder
            self._closed.add(folder)
            self._indexes[index.file] = group
            for file in index.weight_map.values():
                self._places.setdefault(file, group)
        whole = {_folder(file) for file in files if file.rpartition("/")[2] == _WHOLE}
        self._with_whole = whole - self._closed

    def of(self, file: str) -> str:
        """A name for the set that a file is in: the folder for the model proper, else an index or the file itself."""
        if not file.endswith(".safetensors"):
            return file
        folder = _folder(file)
        variant = folder in self._with_whole and _VARIANT.match(file.rpartition("/")[2])
        return self._places.get(file, file if variant or folder in self._closed else folder)

    def of_index(self, index: Index) -> str:
        """The name of the set that an index describes."""
        return self._indexes[index.file]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def shard_number(path: str) -> tuple[str, int, int] | None:
    """(stem, number, count) of `stem-00001-of-00004.safetensors`; None for another name."""
    found = _SHARD.match(path)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def _shard_counts(index: Index, named: set[str]) -> list[Problem]:
    counts = {parts[2] for parts in map(shard_number, named) if parts}
    if len(counts) > 1:
        detail = f"{index.file} mixes shards of {sorted(counts)} files"
        return [Problem("mixed_shards", index.file, detail)]
    return []


def build_index(weight_map: Mapping[str, str], total_size: int) -> bytes:
    """An index as transformers writes it, sorted by tensor."""
    body = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(body, indent=2) + "\n").encode()
