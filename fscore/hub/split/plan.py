"""A whole split as data: every rank's files, made of source ranges and runs of new bytes. Pure; nothing is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats.api import TensorEntry
from fscore.hub.formats.config import ModelConfig
from fscore.hub.formats.detect import ModelScan
from fscore.hub.formats.index import INDEX_SUFFIX, build_index
from fscore.hub.split.families import Family, Matched, family_of
from fscore.hub.split.items import ItemMaker
from fscore.hub.split.layout import Item, Key, Laid, Run, choose_small, lay_out, runs_of
from fscore.hub.split.pieces import Fresh, Inline, Made, Piece, Ref
from fscore.hub.split.report import SplitReport
from fscore.hub.split.rules import Grid, Rank, check_degrees, expert_range, owns_expert, padded_vocabulary
from fscore.hub.split.stages import partition, stage_ranges
from fscore.hub.split.tally import Tally

RANK_FILE = "rank.json"
SCHEMA = "fscore/rank/v1"
_BESIDE = {"pickle", "pickle_globals", "executable"}
"""Problems of files that a split leaves behind."""


class SplitOptions(msgspec.Struct, frozen=True):
    """How to split, where there is a choice."""

    partition: str | tuple[int, ...] = "vllm"
    vocab_multiple: int = 64
    experts_over_tp: bool = False
    shard_bytes: int = 5_000_000_000
    small: int = 4 << 20
    small_share: int = 512
    """Short runs are written anew up to a 512th of the model."""
    cutover: int = 1 << 20
    """Columns in runs of at least this many bytes stay references (models.md 2.5)."""


class FilePlan(msgspec.Struct, frozen=True):
    """One file of a rank."""

    path: str
    pieces: tuple[Piece, ...]
    size: int


class RankPlan(msgspec.Struct, frozen=True):
    """One rank's folder."""

    name: str
    rank: Rank
    layers: tuple[int, int]
    files: tuple[FilePlan, ...]


class SplitPlan(msgspec.Struct, frozen=True):
    """All ranks, in the order in which they must be written, and what it will cost."""

    grid: Grid
    ranks: tuple[RankPlan, ...]
    report: SplitReport

    @property
    def name(self) -> str:
        """`tp2-pp2`, with `-ep2` where there are expert ranks."""
        return f"tp{self.grid.tp}-pp{self.grid.pp}" + (f"-ep{self.grid.ep}" if self.grid.ep > 1 else "")


class _Draft(msgspec.Struct):
    """A rank before its short runs are chosen: one entry a shard file."""

    rank: Rank
    shards: list[tuple[list[Run], list[Item]]]


def plan_split(
    scan: ModelScan, tp: int = 1, pp: int = 1, ep: int = 1, options: SplitOptions | None = None
) -> SplitPlan:
    """Plan the ranks of a tensor, pipeline and expert parallel split. Raises HubError when it cannot be done."""
    how = options or SplitOptions()
    config = scan.model
    family = family_of(config)
    grid = Grid(tp, pp, ep, experts_over_tp=how.experts_over_tp)
    tensors = weights_of(scan)
    matched = _match_all(family, config, tensors)
    has_experts = any(found.expert is not None or found.rule.dims[0] == "E" for found in matched)
    check_degrees(config, grid, _split_axes(matched, grid), has_experts=has_experts)
    stages = stage_ranges(partition(config.layers, pp, how.partition, _weights(tensors, matched, config)))
    maker = ItemMaker(config, {entry.name: entry for entry in tensors}, how.vocab_multiple, how.cutover)
    tied = _needs_tied_copy(family, config, matched)
    drafts = []
    for rank in grid.ranks():
        items = [
            maker.make(entry, found, rank)
            for entry, found in zip(tensors, matched, strict=True)
            if _holds(found, rank, stages, config, tied=tied and found.rule.pattern == family.embedding)
        ]
        drafts.append(_draft(rank, items, how))
    budget = sum(entry.nbytes for entry in tensors) // how.small_share
    runs = [run for draft in drafts for shard in draft.shards for run in shard[0]]
    small = choose_small(runs, small=how.small, budget=budget)
    beside = _beside(scan, {entry.file for entry in tensors})
    tally = Tally(scan.bytes_total)
    made: dict[Key, Made] = {}
    described = _describe(scan, family, config, grid, how)
    ranks = tuple(_finish(draft, small, made, stages, beside, described, tally) for draft in drafts)
    return SplitPlan(grid, ranks, tally.report(family.name, grid))


def weights_of(scan: ModelScan) -> list[TensorEntry]:
    """The tensors of the model proper, in source order."""
    if scan.format != "safetensors":
        raise HubError(f"a model in {scan.format} files cannot be split", hint="convert it to safetensors first")
    critical = [p for p in scan.problems if p.severity == "critical" and p.kind not in _BESIDE]
    if critical:
        raise HubError(f"a broken model cannot be split: {critical[0].detail}", hint="fscore validate says more")
    chosen = scan.proper
    if not chosen:
        raise HubError("no tensors to split at the top of the model directory")
    return sorted(chosen, key=lambda entry: (entry.file, entry.offset, entry.name))


def _match_all(family: Family, config: ModelConfig, tensors: Sequence[TensorEntry]) -> list[Matched]:
    found, strange = [], []
    for entry in tensors:
        match = family.match(entry.name) or family.match(ItemMaker.base_name(entry.name))
        if match is None:
            strange.append(entry.name)
        else:
            found.append(match)
    if strange:
        quantised = f" (quantised with {config.quant_method})" if config.quant_method else ""
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise HubError(
            f"no rule of family {family.name} knows tensor {strange[0]}{more}{quantised}",
            hint="release the model unsplit, or name the right model_type in config.json",
        )
    return found


def _split_axes(matched: Sequence[Matched], grid: Grid) -> set[str]:
    axes: set[str] = set()
    for found in matched:
        whole = grid.experts_over_tp and (found.expert is not None or found.rule.dims[0] == "E")
        axes.update(axis for dim in found.rule.dims if not whole for axis in dim.split("+"))
    return axes


def _weights(tensors: Sequence[TensorEntry], matched: Sequence[Matched], config: ModelConfig) -> list[int]:
    loads = [0] * (config.layers + 2)
    for entry, found in zip(tensors, matched, strict=True):
        if found.layer is not None:
            at = min(found.layer, config.layers - 1) + 1
        else:
            at = 0 if found.rule.stage == "first" else -1
        loads[at] += entry.nbytes
    return loads


def _needs_tied_copy(family: Family, config: ModelConfig, matched: Sequence[Matched]) -> bool:
    patterns = {found.rule.pattern for found in matched}
    return config.tied and config.has_head and family.head not in patterns


def _holds(found: Matched, rank: Rank, stages: Sequence[tuple[int, int]], config: ModelConfig, *, tied: bool) -> bool:
    last = len(stages) - 1
    if found.expert is not None and not owns_expert(config, rank, found.expert):
        return False
    if found.layer is not None:
        first, stop = stages[rank.pp]
        return first <= found.layer < stop or (found.layer >= config.layers and rank.pp == last)
    if found.rule.stage == "first":
        return rank.pp == 0 or (tied and rank.pp == last)
    return rank.pp == last


def _draft(rank: Rank, items: Sequence[Item], how: SplitOptions) -> _Draft:
    shards: list[list[Item]] = [[]]
    held = 0
    for item in items:
        if shards[-1] and held + item.nbytes > how.shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(item)
        held += item.nbytes
    draft = _Draft(rank, [])
    for shard in shards:
        referred = [item for item in shard if not item.gathered]
        draft.shards.append((runs_of(referred), [item for item in shard if item.gathered]))
    return draft


def _finish(
    draft: _Draft,
    small: set[int],
    made: dict[Key, Made],
    stages: Sequence[tuple[int, int]],
    beside: Sequence[FilePlan],
    described: dict[str, Any],
    tally: Tally,
) -> RankPlan:
    rank = draft.rank
    files: list[FilePlan] = []
    weight_map: dict[str, str] = {}
    total = 0
    laid_all: list[tuple[Laid, list[Item]]] = []
    for number, (runs, gathered) in enumerate(draft.shards, 1):
        many = len(draft.shards) > 1
        path = f"model-{number:05d}-of-{len(draft.shards):05d}.safetensors" if many else "model.safetensors"
        laid = lay_out(runs, gathered, small, made)
        for key, (offset, length) in laid.places.items():
            made[key] = Made(f"{rank.name}/{path}", offset, length)
        files.append(FilePlan(path, laid.pieces, laid.size))
        items = [*gathered, *(item for run in runs for item in run.items)]
        weight_map.update(dict.fromkeys((item.name for item in items), path))
        total += sum(item.nbytes for item in items)
        laid_all.append((laid, items))
    if len(files) > 1:
        files.append(_inline("model.safetensors.index.json", build_index(weight_map, total)))
    layers = stages[rank.pp]
    files.append(_inline(RANK_FILE, _rank_json(rank, layers, described, weight_map)))
    files.extend(beside)
    tally.add_rank(rank.name, layers, files, laid_all)
    return RankPlan(rank.name, rank, layers, tuple(files))


def _inline(path: str, data: bytes) -> FilePlan:
    return FilePlan(path, (Fresh((Inline(data),)),), len(data))


def _beside(scan: ModelScan, taken: set[str]) -> list[FilePlan]:
    """Config, tokenizer and documents, whole, by reference; weights of other formats and indexes stay behind."""
    plans = []
    for file in scan.files:
        weight = file.kind == "weight" and not ("/" in file.path and file.path.endswith(".safetensors"))
        if weight or file.path in taken or file.path.endswith(INDEX_SUFFIX) or file.path == RANK_FILE:
            continue
        pieces: tuple[Piece, ...] = (Ref(file.path, 0, file.size),) if file.size else ()
        plans.append(FilePlan(file.path, pieces, file.size))
    return plans


def _describe(scan: ModelScan, family: Family, config: ModelConfig, grid: Grid, how: SplitOptions) -> dict[str, Any]:
    vocab = {"size": config.vocab, "padded": config.vocab}
    if grid.tp > 1:
        vocab["padded"] = padded_vocabulary(config.vocab, grid.tp, how.vocab_multiple)
    return {
        "schema": SCHEMA,
        "layout": "hf",
        "family": family.name,
        "tp": grid.tp,
        "pp": grid.pp,
        "ep": grid.ep,
        "experts_over_tp": grid.experts_over_tp,
        "layer_numbers": "global",
        "num_layers": config.layers,
        "vocabulary": vocab,
        "kv_heads": {"total": config.kv_heads, "held_by": max(1, grid.tp // max(1, config.kv_heads))},
        "experts": config.experts,
        "row_bias": "whole on every tensor rank: add it once",
    }


def _rank_json(rank: Rank, layers: tuple[int, int], described: dict[str, Any], weight_map: dict[str, str]) -> bytes:
    experts = described["experts"]
    held = list(expert_range(experts, rank.grid.ep, rank.expert_rank)) if experts else None
    body = {
        **described,
        "rank": rank.name,
        "tp_rank": rank.tp,
        "pp_rank": rank.pp,
        "ep_rank": rank.expert_rank,
        "layers": list(layers),
        "experts_held": held,
        "tensors": len(weight_map),
    }
    return (json.dumps(body, indent=2, sort_keys=True) + "\n").encode()
