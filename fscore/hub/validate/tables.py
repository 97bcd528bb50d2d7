"""The three tables that a model is judged by: its tensors, its files, itself. Plain columns; no judgement here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats.api import DTYPE_BITS, Problem, Source, TensorEntry, nbytes_of, read_whole
from fscore.hub.formats.config import ModelConfig
from fscore.hub.formats.detect import ModelScan
from fscore.hub.split.families import FAMILIES, Family, expected_shape, missing_names
from fscore.hub.split.plan import RANK_FILE
from fscore.hub.validate.scan import TensorStats

Row = dict[str, Any]
_BROKEN = {"broken_file", "cut_short", "empty_file", "unsafe"}
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")


class Tables(msgspec.Struct, frozen=True):
    """Rows of each table, all of a table with the same columns."""

    tensors: list[Row]
    files: list[Row]
    model: list[Row]


def build_tables(scan: ModelScan, stats: Sequence[TensorStats], source: Source) -> Tables:
    """Bring a scan and its numbers into tables. `stats` are those of `scan.tensors`, in order.

    A rank of a split holds parts of tensors, so the config's promises about the whole are not asked of it.
    """
    family = FAMILIES.get(scan.model.model_type)
    if family and any(file.path == RANK_FILE for file in scan.files):
        family = Family(family.name, "", "", (), embedding="", head="")
    return Tables(
        tensors=_tensor_rows(scan, stats, family),
        files=_file_rows(scan),
        model=[_model_row(scan, family, source)],
    )


def _tensor_rows(scan: ModelScan, stats: Sequence[TensorStats], family: Family | None) -> list[Row]:
    gaps = _gaps(scan.tensors)
    groups = scan.groups
    indexed = {groups.of_index(index) for index in scan.indexes}
    placed = {(groups.of_index(index), name): file for index in scan.indexes for name, file in index.weight_map.items()}
    model = scan.model
    rows: list[Row] = []
    for entry, numbers in zip(scan.tensors, stats, strict=True):
        folder = groups.of(entry.file)
        key = (folder, entry.name)
        expected = _expected(entry, model, family, proper=folder == "")
        rows.append({
            "name": f"{folder}/{entry.name}" if folder else entry.name,
            "dtype": entry.dtype,
            "shape": str(list(entry.shape)),
            "shape_expected": str(list(expected)) if expected is not None else None,
            "file": entry.file,
            "file_indexed": placed.get(key, "nowhere") if folder in indexed else entry.file,
            "nbytes": entry.nbytes,
            "nbytes_expected": nbytes_of(entry.dtype, entry.shape) if entry.dtype in DTYPE_BITS else entry.nbytes,
            "gap": gaps[entry.file, entry.name],
            "nan": numbers.nan,
            "inf": numbers.inf,
            "absmax": numbers.absmax,
            "zero_fraction": numbers.zero_fraction if numbers.absmax is not None else None,
            "xxh3": numbers.xxh3,
        })  # fmt: skip
    rows.extend(_lost_rows(scan, placed, rows[0] if rows else {}))
    return rows


def _lost_rows(scan: ModelScan, placed: Mapping[tuple[str, str], str], like: Row) -> list[Row]:
    """What an index names and no header has; a broken or missing file is reported as a file, not tensor by tensor."""
    sizes = {file.path for file in scan.files}
    broken = {problem.where for problem in scan.problems if problem.kind in _BROKEN}
    groups = scan.groups
    held = {(groups.of(entry.file), entry.name) for entry in scan.tensors}
    empty = dict.fromkeys(like)
    return [
        empty | {"name": f"{folder}/{name}" if folder else name, "file": "nowhere", "file_indexed": file,
                 "nan": 0, "inf": 0, "gap": 0, "xxh3": f"absent {name}"}
        for (folder, name), file in placed.items()
        if (folder, name) not in held and file in sizes and file not in broken
    ]  # fmt: skip


def _gaps(tensors: Iterable[TensorEntry]) -> dict[tuple[str, str], int]:
    """Bytes between each tensor and the one before it in its file; a format with aligned tensors has none by rule."""
    gaps: dict[tuple[str, str], int] = {}
    last: dict[str, int] = {}
    for entry in sorted(tensors, key=lambda entry: (entry.file, entry.offset, entry.end)):
        aligned = not entry.file.endswith(".safetensors")
        gaps[entry.file, entry.name] = 0 if aligned else entry.offset - last.get(entry.file, entry.offset)
        last[entry.file] = entry.end
    return gaps


def _expected(
    entry: TensorEntry, config: ModelConfig, family: Family | None, *, proper: bool
) -> tuple[int, ...] | None:
    if family is None or not proper or not entry.file.endswith(".safetensors"):
        return None
    found = family.match(entry.name)
    return expected_shape(found.rule, config) if found else None


def _file_rows(scan: ModelScan) -> list[Row]:
    problems: dict[str, list[Problem]] = {}
    for problem in scan.problems:
        problems.setdefault(problem.where, []).append(problem)
    rows = []
    for file in scan.files:
        name = file.path.rpartition("/")[2].lower()
        kinds = {problem.kind for problem in problems.get(file.path, ())}
        broken = [problem.detail for problem in problems.get(file.path, ()) if problem.kind in _BROKEN]
        rows.append({
            "path": file.path,
            "size": file.size,
            "kind": file.kind,
            "extension": f".{name.rpartition('.')[2]}" if "." in name else "",
            "pickle": int("pickle" in kinds),
            "pickle_globals": int("pickle_globals" in kinds),
            "program": int("executable" in kinds),
            "remote_code": int("remote_code" in kinds),
            "broken": broken[0] if broken else None,
            "present": 1,
            "weight_size": file.size if file.kind == "weight" else None,
        })  # fmt: skip
    lost = sorted({p.where for p in scan.problems if p.kind == "missing_shard"})
    like = dict.fromkeys(rows[0]) if rows else {}
    none = {"pickle": 0, "pickle_globals": 0, "program": 0, "remote_code": 0, "present": 0}
    rows.extend(like | none | {"path": path, "kind": "weight"} for path in lost)
    return rows


def _model_row(scan: ModelScan, family: Family | None, source: Source) -> Row:
    config = scan.model
    top = scan.proper
    broken = any(problem.kind in _BROKEN or problem.kind == "missing_shard" for problem in scan.problems)
    embedding = next((entry for entry in top if entry.name.endswith(_EMBEDDINGS) and len(entry.shape) == 2), None)
    judged = family is not None and bool(family.rules) and not broken and bool(top) and bool(scan.config)
    embedding = embedding if family is None or family.rules else None
    names = [entry.name for entry in top]
    layers = {found.layer for name in names if family and (found := family.match(name)) and found.layer is not None}
    missing = missing_names(family, config, names) if family and judged else []
    strange = [name for name in names if family and judged and family.match(name) is None]
    largest = _largest_token(scan, source)
    totals = [index for index in scan.indexes if index.total_size is not None and not broken]
    return {
        "model_type": config.model_type or None,
        "family": family.name if family else None,
        "vocab_config": config.vocab if embedding and config.vocab else None,
        "vocab_embedding": embedding.shape[0] if embedding and config.vocab else None,
        "hidden_config": config.hidden if embedding and config.hidden else None,
        "hidden_embedding": embedding.shape[1] if embedding and config.hidden else None,
        "layers_config": config.layers if judged else None,
        "layers_found": len(layers) if judged else None,
        "index_total": sum(index.total_size or 0 for index in totals) if totals else None,
        "tensor_bytes": sum(_indexed_bytes(scan, index.file) for index in totals) if totals else None,
        "missing": len(missing),
        "missing_names": ", ".join(missing[:5]),
        "unexpected": len(strange),
        "unexpected_names": ", ".join(strange[:5]),
        "weights": sum(1 for file in scan.files if file.kind == "weight"),
        "tokens_outside": max(0, largest - config.vocab + 1) if largest is not None and config.vocab else 0,
    }


def _indexed_bytes(scan: ModelScan, index_file: str) -> int:
    files = {file for index in scan.indexes if index.file == index_file for file in index.weight_map.values()}
    return sum(entry.nbytes for entry in scan.tensors if entry.file in files)


def _largest_token(scan: ModelScan, source: Source) -> int | None:
    """The largest number that the tokenizer can produce; None without a tokenizer that we can read."""
    if not any(file.path == "tokenizer.json" for file in scan.files):
        return None
    try:
        body = json.loads(read_whole(source, "tokenizer.json", limit=256 << 20))
        vocab = body["model"]["vocab"]
        numbers = list(vocab.values()) if isinstance(vocab, dict) else [len(vocab) - 1]
        numbers += [token["id"] for token in body.get("added_tokens", ())]
        return max(int(number) for number in numbers)
    except (HubError, ValueError, KeyError, TypeError):
        return None
