"""Every rank of every family, byte for byte against plain numpy slicing."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from fscore.hub.formats.api import TensorEntry
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.safetensors import build_header, read_header
from fscore.hub.formats.source import LocalSource
from fscore.hub.split.plan import FilePlan, SplitOptions, SplitPlan, plan_split
from fscore.hub.split.write import materialise
from tests.kit.split_reference import Reference, load

GRIDS = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (4, 4)]
DENSE = ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text", "gpt2", "bert", "roberta"]
MOE = ["mixtral", "qwen2_moe", "qwen3_moe"]


class Memory:
    """A file in memory behind the reader's interface."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.size = len(data)

    def pread(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def close(self) -> None:
        self._file.close()


def made(plan: SplitPlan, folder: Path) -> dict[str, bytes]:
    source = LocalSource(folder)
    files: dict[str, bytes] = {}
    for rank in plan.ranks:
        for file in rank.files:
            files[f"{rank.name}/{file.path}"] = b"".join(materialise(file, source, files))
    return files


def check(plan: SplitPlan, folder: Path, reference: Reference) -> None:
    files = made(plan, folder)
    for rank in plan.ranks:
        tp, pp, ep = plan.grid.tp, plan.grid.pp, plan.grid.ep
        expected = reference.rank(tp, rank.rank.tp, pp, rank.rank.pp, ep, rank.rank.ep)
        found: dict[str, TensorEntry] = {}
        for file in rank.files:
            assert len(files[f"{rank.name}/{file.path}"]) == file.size
            if file.path.endswith(".safetensors"):
                header = read_header(Memory(files[f"{rank.name}/{file.path}"]), file.path)
                assert header.data_start % 4096 == 0
                found.update({entry.name: entry for entry in header.entries})
        assert found.keys() == expected.keys()
        for name, want in expected.items():
            entry = found[name]
            content = files[f"{rank.name}/{entry.file}"][entry.offset : entry.end]
            assert entry.shape == want.shape, name
            assert content == np.ascontiguousarray(want).tobytes(), f"{rank.name} {name}"
            assert (entry.offset % want.dtype.itemsize) == 0


@pytest.mark.parametrize("family", DENSE)
def test_dense_family(mini: Callable[[str], Path], family: str) -> None:
    folder = mini(family)
    scan, reference = scan_model(LocalSource(folder)), Reference(folder)
    for tp, pp in GRIDS:
        check(plan_split(scan, tp, pp), folder, reference)


@pytest.mark.parametrize("family", MOE)
@pytest.mark.parametrize("ep", [1, 2])
def test_expert_family(mini: Callable[[str], Path], family: str, ep: int) -> None:
    folder = mini(family)
    scan, reference = scan_model(LocalSource(folder)), Reference(folder)
    for tp, pp in GRIDS:
        plan = plan_split(scan, tp, pp, ep)
        assert plan.ranks[0].name == ("tp0-pp0" if ep == 1 else "tp0-pp0-ep0")
        check(plan, folder, reference)


def test_experts_divide_unevenly(mini: Callable[[str], Path]) -> None:
    folder = mini("mixtral")
    check(plan_split(scan_model(LocalSource(folder)), 1, 1, 3), folder, Reference(folder))


def test_experts_stacked_in_one_tensor(tmp_path: Path, mini: Callable[[str], Path]) -> None:
    """`[E, 2I, H]` and `[E, H, I]`: whole experts over expert ranks, each one's gate and up over tensor ranks."""
    whole = load(mini("qwen3_moe"))
    at = "model.layers.1.mlp.experts"
    up = np.stack([np.concatenate([whole[f"{at}.{e}.{n}_proj.weight"] for n in ("gate", "up")]) for e in range(4)])
    down = np.stack([whole[f"{at}.{e}.down_proj.weight"] for e in range(4)])
    folder = tmp_path / "stacked"
    shutil.copytree(mini("qwen3_moe"), folder, ignore=shutil.ignore_patterns("model*"))
    header = {f"{at}.gate_up_proj": up, f"{at}.down_proj": down}
    entries = [(name, "BF16", array.shape) for name, array in header.items()]
    content = b"".join(array.tobytes() for array in header.values())
    (folder / "model.safetensors").write_bytes(build_header(entries) + content)
    plan = plan_split(scan_model(LocalSource(folder)), 2, 1, 2)
    files = made(plan, folder)
    for rank in plan.ranks:
        found = read_header(Memory(files[f"{rank.name}/model.safetensors"]), "x").entries
        held = {entry.name: files[f"{rank.name}/model.safetensors"][entry.offset : entry.end] for entry in found}
        mine, (t, width) = slice(2 * rank.rank.ep, 2 * rank.rank.ep + 2), (rank.rank.tp, up.shape[1] // 4)
        halves = [half[mine, t * width : (t + 1) * width] for half in np.split(up, 2, axis=1)]
        assert held[f"{at}.gate_up_proj"] == np.concatenate(halves, axis=1).tobytes()
        assert held[f"{at}.down_proj"] == np.ascontiguousarray(np.split(down[mine], 2, axis=2)[t]).tobytes()


def test_more_ranks_than_key_value_heads(mini: Callable[[str], Path]) -> None:
    folder = mini("llama")
    check(plan_split(scan_model(LocalSource(folder)), 8, 1), folder, Reference(folder))


@pytest.mark.parametrize("tp", [2, 3, 4, 6])
def test_real_model(minilm: Path, tp: int) -> None:
    check(plan_split(scan_model(LocalSource(minilm)), tp, 2), minilm, Reference(minilm))


@pytest.mark.parametrize(
    "options",
    [
        SplitOptions(small=0),
        SplitOptions(small=1 << 30, small_share=1),
        SplitOptions(cutover=0),
        SplitOptions(shard_bytes=60_000),
        SplitOptions(vocab_multiple=1),
    ],
    ids=["no small runs", "all small", "columns as references", "many files", "vocabulary unpadded"],
)
def test_layout_does_not_change_content(mini: Callable[[str], Path], options: SplitOptions) -> None:
    folder = mini("gpt2")
    scan = scan_model(LocalSource(folder))
    reference = Reference(folder)
    plan = plan_split(scan, 2, 2, options=options)
    if options.vocab_multiple == 64:
        check(plan, folder, reference)
    else:
        assert plan.report.bytes_padding == 0
    if options.shard_bytes < 1_000_000:
        names = [file.path for file in plan.ranks[0].files]
        assert "model.safetensors.index.json" in names
        assert sum(name.endswith(".safetensors") for name in names) > 1
    if options.small == 0:
        assert plan.report.bytes_new - plan.report.bytes_gathered < 40_000


def test_the_real_safetensors_reads_a_rank(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = mini("qwen3")
    plan = plan_split(scan_model(LocalSource(folder)), 2, 2)
    for rank in plan.ranks:
        weights = next(file for file in rank.files if file.path == "model.safetensors")
        target = tmp_path / f"{rank.name}.safetensors"
        target.write_bytes(b"".join(materialise(weights, LocalSource(folder))))
        with safe_open(target, "np") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert len(opened.keys()) == next(r.tensors for r in plan.report.ranks if r.name == rank.name)


def test_mixed_widths_stay_aligned(tmp_path: Path, minilm: Path) -> None:
    """An int64 tensor beside float32 ones, and an odd-sized one: each starts at a multiple of its width."""
    target = tmp_path / "model"
    shutil.copytree(minilm, target)
    plan = plan_split(scan_model(LocalSource(target)), 2, 1)
    for rank in plan.ranks:
        weights: FilePlan = next(file for file in rank.files if file.path == "model.safetensors")
        header = read_header(Memory(b"".join(materialise(weights, LocalSource(target)))), "model.safetensors")
        widths = {"F32": 4, "I64": 8}
        assert {entry.dtype for entry in header.entries} == {"F32", "I64"}
        assert all(entry.offset % widths[entry.dtype] == 0 for entry in header.entries)
