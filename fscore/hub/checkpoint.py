"""Is a training checkpoint complete? Judged by its writer's own commit marker and by sizes, never by time alone.

discover(source)         which directories below a watched one are checkpoints, oldest step first
probe(source, folder)    one checkpoint: complete, incomplete (wait) or corrupt (no waiting helps), and why
observe / settled        two looks some time apart that agree, for writers that go on after the marker
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats import dcp, training
from fscore.hub.formats.api import Source, SupportsStat, read_whole
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.finding import Finding, Folder, compare_steps, read_archive, step_of
from fscore.hub.formats.index import INDEX_SUFFIX, shard_number
from fscore.hub.formats.safetensors import read_header
from fscore.hub.formats.source import LocalSource
from fscore.hub.formats.strict import load_object

COMPLETE, INCOMPLETE, CORRUPT = "complete", "incomplete", "corrupt"
QUIET_NS = 30_000_000_000
"""Two looks this far apart must agree (asynchronous savers, models.md 1.6)."""

_UNFINISHED = re.compile(r"(^|/)(\.tmp[^/]*|[^/]*\.(tmp|part|incomplete)|_tmp_[^/]*)(/|$)")
_DCP_HF = re.compile(r"^shard-(\d{5})-model-(\d{5})-of-(\d{5})\.safetensors$")
_ARCHIVE = (".pt", ".pth", ".ckpt", ".bin")


class CheckpointReport(msgspec.Struct, frozen=True):
    """A verdict with its reasons, and what is known about the checkpoint. `step` is None where nothing says it."""

    folder: str
    format: str
    verdict: str
    reasons: list[str]
    warnings: list[str]
    step: int | None
    grid: dict[str, int]
    tensors: int
    parameters: int
    optimizer: bool
    files: int
    bytes_total: int
    writer: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether it may be ingested."""
        return self.verdict == COMPLETE


class Observation(msgspec.Struct, frozen=True):
    """What a directory looked like at one moment: size and modification time of every file."""

    at_ns: int
    files: dict[str, tuple[int, int]]


def probe(source: Source, folder: str = "") -> CheckpointReport:
    """Judge one checkpoint directory of a source (the whole source by default). Executes nothing."""
    view = Folder(source, folder)
    sizes = view.sizes()
    kind = recognise(sizes)
    finding = _LOOKS[kind](view)
    finding.incomplete.extend(f"{path} is still being written" for path in sizes if _UNFINISHED.search(path))
    verdict = CORRUPT if finding.corrupt else INCOMPLETE if finding.incomplete else COMPLETE
    return CheckpointReport(
        folder=folder,
        format=finding.format,
        verdict=verdict,
        reasons=[*finding.corrupt, *dict.fromkeys(finding.incomplete)],
        warnings=finding.warnings,
        step=finding.step,
        grid=finding.grid,
        tensors=finding.tensors,
        parameters=finding.parameters,
        optimizer=finding.optimizer,
        files=len(sizes),
        bytes_total=sum(sizes.values()),
        writer={key: value for key, value in finding.writer.items() if value},
    )


def probe_path(path: str | Path) -> CheckpointReport:
    """Judge a directory of this machine, with the trackers and marks beside it. Never raises HubError.

    A directory that cannot be judged now, for instance since it is being made or removed, is incomplete.
    """
    folder = Path(path).resolve()
    try:
        return probe(LocalSource(folder.parent, only=folder.name, skip_links=True), folder.name)
    except (HubError, OSError) as error:
        return CheckpointReport(str(path), "unknown", INCOMPLETE, [str(error)], [], None, {}, 0, 0, False, 0, 0, {})


def recognise(sizes: dict[str, int]) -> str:
    """The format of a directory from its file names; `unknown` when there is nothing to judge."""
    top = {path for path in sizes if "/" not in path}
    if any(path.startswith("weights/") for path in sizes) and any(path.startswith("context/") for path in sizes):
        return "nemo2"
    if any(training.MEGATRON_RANK.match(path) for path in sizes):
        return "megatron-legacy"
    if any(path.endswith(dcp.DATA) for path in top) or {dcp.METADATA, f"{dcp.METADATA}.tmp"} & top:
        return "megatron-torch_dist" if {"common.pt", "metadata.json"} & top else "dcp"
    if training.is_deepspeed(top):
        return "deepspeed"
    if any(_DCP_HF.match(path) for path in top) and not any(path.endswith(INDEX_SUFFIX) for path in top):
        return "dcp-hf"
    for suffix, kind in ((".safetensors", "hf-safetensors"), (INDEX_SUFFIX, "hf-safetensors"), (".gguf", "gguf")):
        if any(path.endswith(suffix) for path in top):
            return kind
    if any(path.endswith(".nemo") for path in top):
        return "nemo1"
    return "torch" if any(path.endswith(_ARCHIVE) for path in top) else "unknown"


def discover(source: Source) -> list[str]:
    """Checkpoint directories below a watched one ("" is itself), by step, then by name.

    A directory that holds directories named after steps is a training run, not a checkpoint, whatever else is in it.
    """
    children: dict[str, dict[str, int]] = {}
    for path, size in source.files():
        parts = path.split("/")
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            children.setdefault(folder, {})["/".join(parts[depth:])] = size
    found: list[str] = []
    for folder in sorted(children, key=lambda path: (path.count("/"), path)):
        if any(_inside(folder, other) for other in found) or recognise(children[folder]) == "unknown":
            continue
        if _own_step(folder) is None and any(_inside(o, folder) and _own_step(o) is not None for o in children):
            continue
        found.append(folder)
    return sorted(found, key=lambda path: (_own_step(path) or 0, path))


def _inside(folder: str, other: str) -> bool:
    return folder != other and (other == "" or folder.startswith(f"{other}/"))


def _own_step(folder: str) -> int | None:
    return step_of(folder.rpartition("/")[2])


def observe(source: Source, now_ns: int, folder: str = "") -> Observation:
    """Look at a directory's files without opening one."""
    at = f"{folder.strip('/')}/" if folder else ""
    plain = [] if isinstance(source, SupportsStat) else source.files()
    listed = source.stats() if isinstance(source, SupportsStat) else [(path, size, 0) for path, size in plain]
    return Observation(now_ns, {path: (size, mtime) for path, size, mtime in listed if path.startswith(at)})


def settled(before: Observation, after: Observation, *, quiet_ns: int = QUIET_NS) -> str:
    """ "" when nothing moved between two looks far enough apart; else the reason to wait. Pure."""
    if not after.files:
        return "nothing is there"
    unfinished = [path for path in after.files if _UNFINISHED.search(path)]
    if unfinished:
        return f"{unfinished[0]} is still being written"
    if before.files.keys() != after.files.keys():
        return f"{len(before.files.keys() ^ after.files.keys())} files came or went"
    changed = [path for path, seen in after.files.items() if before.files[path] != seen]
    if changed:
        return f"{changed[0]} changed"
    waited = after.at_ns - before.at_ns
    if waited < quiet_ns:
        return f"the two looks are only {waited / 1e9:.0f} s apart"
    return ""


def _hf(view: Folder) -> Finding:
    finding = Finding("hf-safetensors")
    scan = scan_model(view)
    late = {"cut_short", "missing_shard", "empty_file", "leftover"}
    harmless = {"pickle", "executable"}
    for problem in scan.problems:
        if problem.severity != "critical" or problem.kind in harmless:
            continue
        (finding.incomplete if problem.kind in late else finding.corrupt).append(problem.detail)
    if any(problem.kind in harmless for problem in scan.problems):
        finding.warnings.append("holds pickles or programs, which are never loaded")
    _shards(view, finding, indexed=bool(scan.indexes))
    finding.tensors = len(scan.tensors)
    finding.parameters = sum(entry.elements for entry in scan.tensors)
    sizes = view.sizes()
    finding.optimizer = any(path.startswith(("optimizer.", "global_step")) for path in sizes)
    finding.writer["transformers"] = str(scan.config.get("transformers_version", ""))
    state: int | None = None
    if "trainer_state.json" in sizes:
        try:
            step = load_object(read_whole(view, "trainer_state.json"), "trainer_state.json").get("global_step")
            state = step if isinstance(step, int) else None
        except HubError as error:
            finding.incomplete.append(str(error))
    compare_steps(finding, {"trainer_state.json": state, "the name": step_of(view.name)})
    return finding


def _shards(view: Folder, finding: Finding, *, indexed: bool) -> None:
    """Without an index the shards' own names say how many there must be; an index is written last."""
    groups: dict[tuple[str, int], set[int]] = {}
    for path in view.sizes():
        parts = shard_number(path)
        if parts:
            groups.setdefault((parts[0], parts[2]), set()).add(parts[1])
    for (stem, count), numbers in sorted(groups.items()):
        missing = sorted(set(range(1, count + 1)) - numbers)
        finding.incomplete.extend(f"{stem}-{number:05d}-of-{count:05d}.safetensors is missing" for number in missing)
        if not indexed and "/" not in stem and count > 1:
            finding.incomplete.append(f"{stem}{INDEX_SUFFIX} is missing: it is written last")


def _dcp(view: Folder) -> Finding:
    finding = Finding("dcp")
    dcp.look(view, finding)
    compare_steps(finding, {"the name": step_of(view.name)})
    return finding


def _dcp_hf(view: Folder) -> Finding:
    """`shard-r-model-i-of-n`: complete when the numbers are, and when the pieces cover every tensor."""
    finding = Finding("dcp-hf")
    groups: dict[int, set[int]] = {}
    shapes: dict[str, list[int]] = {}
    covered: dict[str, int] = {}
    for path in view.sizes():
        name = _DCP_HF.match(path)
        if name is None:
            continue
        groups.setdefault(int(name[3]), set()).add(int(name[2]))
        reader = view.open(path)
        try:
            header = read_header(reader, path)
            table = load_object(header.metadata.get("DCP_SHARDING_INFO", "{}").encode(), f"{path}: DCP_SHARDING_INFO")
            for entry in header.entries:
                info = table.get(entry.name, {})
                offsets = info.get("saved_offsets", [0] * len(entry.shape)) if isinstance(info, dict) else []
                ends = [start + length for start, length in zip(offsets, entry.shape, strict=False)]
                known = shapes.setdefault(entry.name, [0] * len(entry.shape))
                shapes[entry.name] = [max(pair) for pair in zip(known, ends, strict=False)]
                covered[entry.name] = covered.get(entry.name, 0) + entry.elements
        except HubError as error:
            finding.incomplete.append(str(error))
        finally:
            reader.close()
    if len(groups) > 1:
        finding.corrupt.append(f"shards of {sorted(groups)} files are mixed")
    for count, numbers in groups.items():
        missing = sorted(set(range(1, count + 1)) - numbers)
        finding.incomplete.extend(f"shard {number} of {count} is missing" for number in missing)
    for tensor, shape in shapes.items():
        whole = math.prod(shape)
        if covered[tensor] != whole:
            finding.incomplete.append(f"{tensor}: {covered[tensor]} of {whole} elements are there")
        finding.parameters += whole
    finding.tensors = len(shapes)
    compare_steps(finding, {"the name": step_of(view.name)})
    return finding


def _gguf(view: Folder) -> Finding:
    finding = _hf(view)
    finding.format = "gguf"
    return finding


def _torch(view: Folder) -> Finding:
    finding = Finding("torch")
    for path in sorted(view.sizes()):
        if path.endswith(_ARCHIVE) and "/" not in path:
            archive = read_archive(view, path, finding)
            if archive is not None:
                finding.tensors += len(archive.tensors)
                finding.parameters += sum(entry.elements for entry in archive.tensors)
    finding.warnings.append("pickles are not published: convert the tensors to safetensors")
    compare_steps(finding, {"the name": step_of(view.name)})
    return finding


def _nemo1(view: Folder) -> Finding:
    finding = Finding("nemo1")
    finding.warnings.append("a .nemo archive carries no commit marker: only its being still says that it is whole")
    return finding


def _unknown(view: Folder) -> Finding:
    finding = Finding("unknown")
    finding.incomplete.append(f"{view.location} holds no checkpoint that we know")
    return finding


_LOOKS: dict[str, Callable[[Folder], Finding]] = {
    "hf-safetensors": _hf,
    "dcp-hf": _dcp_hf,
    "dcp": _dcp,
    "megatron-torch_dist": training.megatron_dist,
    "megatron-legacy": training.megatron_legacy,
    "deepspeed": training.deepspeed,
    "nemo2": training.nemo2,
    "nemo1": _nemo1,
    "gguf": _gguf,
    "torch": _torch,
    "unknown": _unknown,
}
