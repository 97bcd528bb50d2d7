"""Checkpoints of training frameworks: Megatron (both kinds), NeMo 2, DeepSpeed, and what makes each complete."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fscore.hub.formats import dcp
from fscore.hub.formats.finding import Finding, Folder, compare_steps, read_archive, step_of
from fscore.hub.formats.inert import Made
from fscore.hub.formats.torch_zip import TorchFile

TRACKER = "latest_checkpointed_iteration.txt"
LATEST = "latest"
MEGATRON_RANK = re.compile(r"^mp_rank_(\d{2})(?:_(\d{3}))?(?:_(\d{3}))?/(?:model_optim_rng|model_rng)\.pt$")
_MODEL_STATES = re.compile(r"^(?:zero_pp_rank_(\d+)_)?mp_rank_(\d{2})_model_states\.pt$")
_OPTIM_STATES = re.compile(r"^(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d{2})_optim_states\.pt$")


def megatron_dist(folder: Folder) -> Finding:
    """`torch_dist`: DCP, and `metadata.json`, written last."""
    finding = Finding("megatron-torch_dist")
    dcp.look(folder, finding)
    _dist_marker(folder, finding, "")
    common = _read_value(folder, "common.pt", finding)
    finding.grid = _grid(common.get("args"))
    compare_steps(finding, {"common.pt": _number(common.get("iteration")), "the name": step_of(folder.name)})
    _tracker(folder, finding)
    return finding


def nemo2(folder: Folder) -> Finding:
    """`context/` and `weights/`; `<name>-unfinished` beside it while it is written."""
    finding = Finding("nemo2")
    dcp.look(folder, finding, "weights")
    _dist_marker(folder, finding, "weights/")
    unfinished = f"{folder.name}-unfinished"
    if unfinished in folder.siblings():
        finding.incomplete.append(f"{unfinished} is still there: the save is not finished")
    sizes = folder.sizes()
    common = _read_value(folder, "weights/common.pt", finding) if "weights/common.pt" in sizes else {}
    if "context/io.json" not in sizes and "context/model.yaml" not in sizes:
        finding.incomplete.append("context/ has neither io.json nor model.yaml")
    steps = {"weights/common.pt": _number(common.get("iteration")), "the name": step_of(folder.name)}
    compare_steps(finding, steps)
    return finding


def megatron_legacy(folder: Folder) -> Finding:
    """`mp_rank_*` directories: the grid that args promise, the same iteration in each, each archive whole."""
    finding = Finding("megatron-legacy")
    ranks = {path: found for path in folder.sizes() if (found := MEGATRON_RANK.match(path))}
    steps: dict[str, int | None] = {}
    for path in sorted(ranks):
        value = _read_value(folder, path, finding)
        steps[path] = _number(value.get("iteration"))
        finding.grid = finding.grid or _grid(value.get("args"))
    compare_steps(finding, {**steps, "the name": step_of(folder.name)})
    expected = _expected_ranks(finding.grid)
    have = {path.partition("/")[0] for path in ranks}
    if not finding.grid and not (finding.incomplete or finding.corrupt):
        finding.warnings.append("no rank says its parallel degrees: the grid cannot be checked")
    finding.incomplete.extend(f"{rank} is missing" for rank in sorted(expected - have))
    if expected:
        finding.corrupt.extend(f"{rank} is not of the grid {finding.grid}" for rank in sorted(have - expected))
    finding.optimizer = True
    _tracker(folder, finding)
    return finding


def deepspeed(folder: Folder) -> Finding:
    """Model and optimizer states: one optimizer file for each data rank and model rank."""
    finding = Finding("deepspeed")
    names = [path for path in folder.sizes() if "/" not in path]
    models = [path for path in names if _MODEL_STATES.match(path)]
    optims = {(int(f[1]), int(f[2])) for path in names if (f := _OPTIM_STATES.match(path))}
    finding.optimizer = bool(optims)
    first: Mapping[object, object] = {}
    for path in sorted(models):
        value = _read_value(folder, path, finding)
        first = first or value
    for path in sorted(path for path in names if _OPTIM_STATES.match(path)):
        read_archive(folder, path, finding)
    dp, mp = _number(first.get("dp_world_size")) or 1, _number(first.get("mp_world_size")) or 1
    finding.grid = {"dp": dp, "mp": mp}
    finding.writer["ds_version"] = str(first.get("ds_version") or "")
    wanted = {(d, m) for d in range(dp) for m in range(mp)}
    if optims:
        finding.incomplete.extend(f"optimizer states of data rank {d}, model rank {m} are missing"
                                  for d, m in sorted(wanted - optims))  # fmt: skip
    per_data_rank = any(path.startswith("zero_pp_rank_") for path in models)
    found = {(int(f[1] or 0), int(f[2])) for path in models if (f := _MODEL_STATES.match(path))}
    need = wanted if per_data_rank else {(0, m) for m in range(mp)}
    finding.incomplete.extend(
        f"model states of data rank {d}, model rank {m} are missing" for d, m in sorted(need - found)
    )
    compare_steps(finding, {"global_steps": _number(first.get("global_steps")), "the name": step_of(folder.name)})
    _latest(folder, finding)
    return finding


def _dist_marker(folder: Folder, finding: Finding, at: str) -> None:
    if f"{at}metadata.json" not in folder.sizes():
        finding.incomplete.append(f"{at}metadata.json is missing: it is written last")


def _tracker(folder: Folder, finding: Finding) -> None:
    said = folder.beside(TRACKER)
    if said is None or said == "release" or finding.step is None:
        return
    if not said.isdigit():
        finding.corrupt.append(f"{TRACKER} says {said[:40]!r}, which is no iteration")
    elif int(said) < finding.step:
        finding.warnings.append(f"{TRACKER} says {said}: this one is newer, its save may not have ended")


def _latest(folder: Folder, finding: Finding) -> None:
    said = folder.beside(LATEST)
    if said is None:
        finding.warnings.append(f"{LATEST} is missing beside it: the save may not have ended")
        return
    step, own = step_of(said), step_of(folder.name)
    if step is not None and own is not None and own > step:
        finding.warnings.append(f"{LATEST} says {said}: this one is newer, its save may not have ended")


def _read_value(folder: Folder, rel: str, finding: Finding) -> Mapping[object, object]:
    if rel not in folder.sizes():
        finding.incomplete.append(f"{rel} is missing")
        return {}
    archive = read_archive(folder, rel, finding)
    if archive is None:
        return {}
    _count(archive, finding)
    return archive.value if isinstance(archive.value, dict) else {}


def _count(archive: TorchFile, finding: Finding) -> None:
    model = [entry for entry in archive.tensors if "optim" not in entry.name]
    finding.tensors += len(model)
    finding.parameters += sum(entry.elements for entry in model)


def _grid(args: object) -> dict[str, int]:
    fields = args.fields if isinstance(args, Made) else {}
    names = {"tp": "tensor", "pp": "pipeline", "ep": "expert"}
    found = {key: _number(fields.get(f"{name}_model_parallel_size")) for key, name in names.items()}
    return {key: value for key, value in found.items() if value}


def _expected_ranks(grid: Mapping[str, int]) -> set[str]:
    if not grid:
        return set()
    tp, pp, ep = (grid.get(axis, 1) for axis in ("tp", "pp", "ep"))
    return {
        f"mp_rank_{t:02d}" + (f"_{p:03d}" if pp > 1 else "") + (f"_{e:03d}" if ep > 1 else "")
        for t in range(tp)
        for p in range(pp)
        for e in range(ep)
    }


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_deepspeed(names: Iterable[str]) -> bool:
    """Whether a directory's own file names are DeepSpeed's."""
    return any(_MODEL_STATES.match(name) or _OPTIM_STATES.match(name) for name in names)
