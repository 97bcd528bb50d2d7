"""One look at a model directory: what each file is, every tensor in it, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats import dcp, gguf, pickles, safetensors
from fscore.hub.formats.api import CutShort, Problem, Source, TensorEntry, UnsafeError, check_relative, read_whole
from fscore.hub.formats.config import ModelConfig, normalise
from fscore.hub.formats.index import INDEX_SUFFIX, Groups, Index, check_duplicates, check_index, parse_index
from fscore.hub.formats.strict import load_object

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".distcp", ".joblib", ".npy_pickle")
T = TypeVar("T")

TORCH_SUFFIXES = tuple(suffix for suffix in PICKLE_SUFFIXES if suffix != ".distcp")
BINARY_SUFFIXES = (".so", ".exe", ".dll", ".dylib", ".pyc", ".pyd", ".whl", ".sh")

_TOKENIZER = frozenset({
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json",
    "merges.txt", "added_tokens.json", "chat_template.jinja", "chat_template.json", "sentencepiece.bpe.model",
    "spiece.model",
})  # fmt: skip
_MEDIA = {
    "weight": "application/vnd.cncf.model.weight.v1.raw",
    "weight.config": "application/vnd.cncf.model.weight.config.v1.raw",
    "tokenizer": "application/vnd.cncf.model.weight.config.v1.raw",
    "doc": "application/vnd.cncf.model.doc.v1.raw",
    "code": "application/vnd.cncf.model.code.v1.raw",
    "dataset": "application/vnd.cncf.model.dataset.v1.raw",
}


class ScannedFile(msgspec.Struct, frozen=True):
    """One file: its class in the ModelPack sense (`weight`, `tokenizer`, `doc` ...) and its media type."""

    path: str
    size: int
    kind: str
    media: str


class ModelScan(msgspec.Struct, frozen=True):
    """What a directory holds. `problems` is empty for a sound model; nothing was executed to know."""

    files: tuple[ScannedFile, ...]
    tensors: tuple[TensorEntry, ...]
    problems: tuple[Problem, ...]
    config: dict[str, Any]
    format: str
    indexes: tuple[Index, ...] = ()

    @property
    def model(self) -> ModelConfig:
        """The config in our names."""
        return normalise(self.config) if self.config else ModelConfig()

    @property
    def groups(self) -> Groups:
        """Which files make one set of weights."""
        return Groups(self.indexes, (file.path for file in self.files))

    @property
    def proper(self) -> list[TensorEntry]:
        """The tensors of the model proper: the set of weights at the top of the directory."""
        groups = self.groups
        return [entry for entry in self.tensors if groups.of(entry.file) == ""]

    @property
    def bytes_total(self) -> int:
        """The size of all files."""
        return sum(file.size for file in self.files)


def scan_model(source: Source) -> ModelScan:
    """Read headers, indexes and the config. What is wrong becomes a Problem; only an escape raises."""
    listed = source.files()
    sizes = dict(listed)
    tensors: list[TensorEntry] = []
    problems: list[Problem] = []
    indexes: list[Index] = []
    for path, size in listed:
        check_relative(path)
        if path.endswith(INDEX_SUFFIX):
            index, trouble = _guarded(path, partial(_index, source, path))
            indexes.extend([index] if index else [])
        else:
            found, trouble = _look(source, path, size)
            tensors.extend(found)
        problems.extend(trouble)
        problems.extend(_suspicions(path))
    for index in indexes:
        problems.extend(check_index(index, tensors, sizes))
    problems.extend(check_duplicates(tensors, indexes))
    config, trouble = _config(source, sizes)
    problems.extend(trouble)
    files = tuple(ScannedFile(path, size, kind := kind_of(path), _MEDIA[kind]) for path, size in listed)
    return ModelScan(files, tuple(tensors), tuple(problems), config, _format(sizes), tuple(indexes))


def kind_of(path: str) -> str:
    """The ModelPack class of a file, from its name."""
    name = path.rpartition("/")[2].lower()
    if name.endswith((".safetensors", ".gguf", ".nemo", *PICKLE_SUFFIXES, ".h5", ".msgpack", ".onnx", ".npz")):
        return "weight"
    if name in _TOKENIZER:
        return "tokenizer"
    if name.endswith((".py", *BINARY_SUFFIXES)):
        return "code"
    if name.endswith((".md", ".txt", ".pdf", ".png", ".jpg", ".svg")) or name.startswith((".", "license", "notice")):
        return "doc"
    if name.endswith((".parquet", ".csv", ".jsonl", ".arrow")):
        return "dataset"
    return "weight.config"


def _look(source: Source, path: str, size: int) -> tuple[list[TensorEntry], list[Problem]]:
    """The tensors of one file and what is wrong with it."""
    if path.lower().endswith(TORCH_SUFFIXES) and size:
        return pickles.look(source, path)
    if path.rpartition("/")[2] == dcp.METADATA:
        return pickles.look_dcp(source, path)
    if not path.endswith((".safetensors", ".gguf")):
        return [], []
    if not size:
        return [], [Problem("empty_file", path, f"{path} is empty")]
    found, trouble = _guarded(path, lambda: _tensors(source, path))
    return found or [], trouble


def _guarded(path: str, read: Callable[[], T]) -> tuple[T | None, list[Problem]]:
    """What a reader returns, or its refusal as a Problem."""
    try:
        return read(), []
    except UnsafeError as error:
        return None, [Problem("unsafe", path, str(error))]
    except CutShort as error:
        return None, [Problem("cut_short", path, str(error))]
    except HubError as error:
        return None, [Problem("broken_file", path, str(error))]


def _index(source: Source, path: str) -> Index:
    return parse_index(read_whole(source, path), path)


def _tensors(source: Source, path: str) -> list[TensorEntry]:
    reader = source.open(path)
    try:
        if path.endswith(".gguf"):
            return gguf.read_tensors(reader, path)
        return list(safetensors.read_header(reader, path).entries)
    finally:
        reader.close()


def _suspicions(path: str) -> list[Problem]:
    name = path.lower()
    if name.endswith(PICKLE_SUFFIXES):
        detail = f"{path} is a pickle, which can execute code when it is loaded; use safetensors"
        return [Problem("pickle", path, detail)]
    if name.endswith(".py"):
        detail = f"{path} is code that a loader with trust_remote_code would execute"
        return [Problem("remote_code", path, detail, severity="warning")]
    if name.endswith(BINARY_SUFFIXES):
        return [Problem("executable", path, f"{path} is a program, which no model needs")]
    if name.endswith((".tmp", ".part", ".incomplete", ".lock")):
        return [Problem("leftover", path, f"{path} is left over from an unfinished write")]
    return []


def _config(source: Source, sizes: dict[str, int]) -> tuple[dict[str, Any], list[Problem]]:
    if "config.json" not in sizes:
        return {}, [Problem("no_config", "config.json", "config.json is missing", severity="warning")]
    try:
        raw = load_object(read_whole(source, "config.json"), "config.json")
        normalise(raw)
    except HubError as error:
        return {}, [Problem("broken_file", "config.json", str(error))]
    found = []
    if raw.get("auto_map"):
        detail = "config.json has an auto_map: a loader with trust_remote_code would execute code of the repository"
        found.append(Problem("remote_code", "config.json", detail, severity="warning"))
    return raw, found


def _format(sizes: dict[str, int]) -> str:
    names = {path.rpartition("/")[2] for path in sizes}
    if any(name.endswith(".safetensors") for name in names):
        return "safetensors"
    if any(name.endswith(".gguf") for name in names):
        return "gguf"
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return "dcp"
    if any(name.endswith(PICKLE_SUFFIXES) for name in names):
        return "torch"
    return "unknown"
