"""Degrees that cannot be, stages, cuts of scales, and refusals that say what to do."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.errors import HubError
from fscore.hub.formats.api import TensorEntry
from fscore.hub.formats.detect import ModelScan, scan_model
from fscore.hub.formats.source import LocalSource
from fscore.hub.split.families import FAMILIES, expected_shape, missing_names
from fscore.hub.split.plan import SplitOptions, SplitPlan, plan_split
from fscore.hub.split.rules import expert_range, padded_vocabulary
from fscore.hub.split.stages import partition, stage_ranges
from fscore.hub.split.write import materialise
from fscore_airflow.demo.checkpoints import write_checkpoint
from fscore_airflow.demo.shapes import FAMILIES as BLUEPRINTS
from fscore_airflow.demo.shapes import Size
from tests.kit import tampering
from tests.kit.split_reference import load


@pytest.fixture
def llama(mini: Callable[[str], Path]) -> ModelScan:
    return scan_model(LocalSource(mini("llama")))


@pytest.mark.parametrize(
    ("degrees", "says"),
    [
        ({"tp": 3}, "TP=3 does not divide the 8 attention heads (use one of TP 1, 2, 4, 8)"),
        ({"tp": 16}, "TP=16 does not divide the 8 attention heads"),
        ({"pp": 6}, "PP=6 is more than the 5 layers (use PP <= 5)"),
        ({"ep": 2}, "EP=2, but the model has no experts (use EP=1)"),
        ({"tp": 0}, "degrees start at 1"),
    ],
)
def test_degrees_that_cannot_be(llama: ModelScan, degrees: dict[str, int], says: str) -> None:
    with pytest.raises(HubError) as refused:
        plan_split(llama, degrees.get("tp", 1), degrees.get("pp", 1), degrees.get("ep", 1))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (Size(heads=12, kv_heads=3, head_dim=8, hidden=96), "TP=2 neither divides the 3 key-value heads nor"),
        (Size(inner=97), "TP=2 does not divide the intermediate size 97 (use one of TP 1)"),
    ],
)
def test_shapes_that_do_not_divide(tmp_path: Path, size: Size, says: str) -> None:
    folder = write_checkpoint(tmp_path / "odd", size=size)
    with pytest.raises(HubError) as refused:
        plan_split(scan_model(LocalSource(folder)), 2)
    assert says in str(refused.value)


def test_experts_that_do_not_divide(mini: Callable[[str], Path]) -> None:
    scan = scan_model(LocalSource(mini("mixtral")))
    with pytest.raises(HubError, match="EP=5 is more than the 4 experts"):
        plan_split(scan, ep=5)
    with pytest.raises(HubError, match="experts over tensor ranks need EP=TP"):
        plan_split(scan, 2, 1, 4, SplitOptions(experts_over_tp=True))


def test_experts_over_tensor_ranks(mini: Callable[[str], Path]) -> None:
    """vLLM's way: tensor rank t holds expert share t, whole; so only attention's columns are new."""
    folder = mini("qwen3_moe")
    scan = scan_model(LocalSource(folder))
    plan = plan_split(scan, 2, 1, 2, SplitOptions(experts_over_tp=True))
    assert [rank.name for rank in plan.ranks] == ["tp0-pp0", "tp1-pp0"]
    whole = load(folder)
    for number, rank in enumerate(plan.ranks):
        held = tensors_of(plan, folder, rank.name)
        experts = {name for name in held if ".experts." in name}
        assert {int(name.split(".experts.")[1].split(".")[0]) for name in experts} == {2 * number, 2 * number + 1}
        assert all(np.array_equal(held[name], whole[name]) for name in experts)
        assert held["model.layers.0.self_attn.q_proj.weight"].shape == (32, 64)
    columns = {entry.pattern for entry in plan.report.classes if entry.reason.startswith("columns")}
    assert columns == {"self_attn.o_proj.weight", "mlp.down_proj.weight"}


def test_rewritten_bytes_are_shared_between_expert_ranks(tmp_path: Path) -> None:
    size = Size(hidden=256, heads=8, kv_heads=4, head_dim=32, inner=512, expert_inner=64, layers=2)
    folder = write_checkpoint(tmp_path / "moe", "mixtral", size=size)
    plan = plan_split(scan_model(LocalSource(folder)), 2, 1, 2)
    attention = sum(e.bytes_new for e in plan.report.classes if e.pattern == "self_attn.o_proj.weight")
    assert attention == 2 * 256 * 256 * 2
    assert any("another expert rank" in entry.reason for entry in plan.report.classes)


def test_unknown_families_and_tensors_are_refused(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mini("llama"), folder)
    tampering.append_tensor(max(folder.glob("model-*.safetensors")), "model.extra.weight", "BF16", [1], b"\0\0")
    tampering.edit_index(folder, model__extra__weight=max(folder.glob("model-*.safetensors")).name)
    with pytest.raises(HubError, match=r"no rule of family llama knows tensor model\.extra\.weight"):
        plan_split(scan_model(LocalSource(folder)), 2)
    tampering.edit_json(folder / "config.json", model_type="novel")
    with pytest.raises(HubError, match=r"no split rules for model_type novel .*known: bert, gemma"):
        plan_split(scan_model(LocalSource(folder)), 2)
    (folder / "config.json").unlink()
    with pytest.raises(HubError, match="config without model_type"):
        plan_split(scan_model(LocalSource(folder)), 2)


def test_broken_and_foreign_models_are_refused(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mini("llama"), folder)
    max(folder.glob("model-*.safetensors")).unlink()
    with pytest.raises(HubError, match=r"a broken model cannot be split: .*does not exist"):
        plan_split(scan_model(LocalSource(folder)), 2)
    other = tmp_path / "pickles"
    other.mkdir()
    shutil.copy(mini("llama") / "config.json", other)
    (other / "pytest.bin").write_bytes(b"PK")
    with pytest.raises(HubError, match="a model in torch files cannot be split"):
        plan_split(scan_model(LocalSource(other)), 2)


def test_a_config_that_lies_about_heads(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mini("llama"), folder)
    tampering.edit_json(folder / "config.json", head_dim=16)
    with pytest.raises(HubError, match=r"tensor model\.layers\.0\.\S+ dimension \d has \d+ entries"):
        plan_split(scan_model(LocalSource(folder)), 2)


@pytest.mark.parametrize(
    ("layers", "pp", "counts"),
    [
        (94, 4, [23, 24, 24, 23]),
        (61, 4, [15, 15, 16, 15]),
        (61, 8, [7, 7, 8, 8, 8, 8, 8, 7]),
        (80, 8, [10] * 8),
        (7, 4, [2, 2, 2, 1]),
        (5, 4, [1, 1, 2, 1]),
    ],
)
def test_stages_as_vllm_shares_them(layers: int, pp: int, counts: list[int]) -> None:
    assert partition(layers, pp) == counts


def test_other_partitions() -> None:
    assert partition(94, 8, "hf") == [11] * 7 + [17]
    assert partition(5, 2, [4, 1]) == [4, 1]
    assert stage_ranges([4, 1]) == [(0, 4), (4, 5)]
    for wrong in ([5], [3, 3], [5, 0]):
        with pytest.raises(HubError):
            partition(5, 2, wrong)
    with pytest.raises(HubError, match="no such partition"):
        partition(5, 2, "fair")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 5), st.integers(0, 99), st.integers(0, 99))
def test_partition_by_bytes_is_the_best(loads: list[int], pp: int, before: int, after: int) -> None:
    pp = min(pp, len(loads))
    counts = partition(len(loads), pp, "bytes", [before, *loads, after])
    assert sum(counts) == len(loads)
    assert len(counts) == pp
    assert min(counts) >= 1

    def heaviest(shares: list[int]) -> int:
        whole = [*loads]
        whole[0] += before
        whole[-1] += after
        return max(sum(whole[a:b]) for a, b in stage_ranges(shares))

    def every(layers: int, stages: int) -> list[list[int]]:
        if stages == 1:
            return [[layers]]
        return [[n, *rest] for n in range(1, layers - stages + 2) for rest in every(layers - n, stages - 1)]

    assert heaviest(counts) == min(heaviest(shares) for shares in every(len(loads), pp))


@given(st.integers(1, 300), st.integers(1, 16))
def test_every_expert_has_one_owner(experts: int, ep: int) -> None:
    ranges = [expert_range(experts, ep, rank) for rank in range(ep)]
    assert [expert for start, stop in ranges for expert in range(start, stop)] == list(range(experts))
    assert max(b - a for a, b in ranges) - min(b - a for a, b in ranges) <= 1


def test_vocabulary_padding() -> None:
    assert padded_vocabulary(30522, 2, 64) == padded_vocabulary(30522, 6, 64) == 30528
    assert padded_vocabulary(128, 3, 64) == 192
    assert padded_vocabulary(128256, 8, 64) == 128256


@pytest.mark.parametrize("name", sorted(BLUEPRINTS))
def test_rules_agree_with_the_blueprints(name: str) -> None:
    """Every tensor of a family has a rule whose shape is the blueprint's; without one tensor, it is missed."""
    from fscore.hub.formats.config import normalise

    made = BLUEPRINTS[name](Size())
    config, family = normalise(made.config), FAMILIES[name]
    for tensor, shape in made.tensors:
        found = family.match(tensor)
        assert found is not None, tensor
        assert expected_shape(found.rule, config) in {shape, None}
    names = [tensor for tensor, _ in made.tensors]
    assert missing_names(family, config, names) == []
    optional = {"cls.predictions.bias", "cls.predictions.transform.dense.weight"}
    for lost in names:
        found = family.match(lost)
        assert found is not None
        if (
            found.rule.pattern.startswith(("cls.", "lm_head.dense", "lm_head.layer_norm"))
            or "bias" in lost
            or lost in optional
        ):
            continue
        assert len(missing_names(family, config, [n for n in names if n != lost])) == 1, lost


def tensors_of(plan: SplitPlan, folder: Path, rank: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        for file in next(r for r in plan.ranks if r.name == rank).files:
            if file.path.endswith(".safetensors"):
                (Path(place) / file.path).write_bytes(b"".join(materialise(file, LocalSource(folder))))
        return load(Path(place))


def quantised(folder: Path, *, inner: int, block: int) -> Path:
    """A one-layer Llama whose MLP is FP8 with block scales."""
    size = Size(hidden=64, heads=8, kv_heads=4, head_dim=8, inner=inner, layers=1)
    write_checkpoint(folder, size=size)
    path = folder / "model.safetensors"
    rng = np.random.default_rng(1)
    header, start = tampering.header_of(path)
    data = path.read_bytes()[start:]
    fresh: dict[str, Any] = {}
    content = b""

    def add(name: str, dtype: str, shape: list[int], raw: bytes) -> None:
        nonlocal content
        fresh[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(raw)]}
        content += raw

    scales = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if ".mlp." in name:
            rows, columns = entry["shape"]
            scales[f"{name}_scale_inv"] = [-(-rows // block), -(-columns // block)]
            add(name, "F8_E4M3", entry["shape"], rng.integers(0, 120, rows * columns, np.uint8).tobytes())
        else:
            add(name, entry["dtype"], entry["shape"], data[begin:end])
    for name, shape in scales.items():
        add(name, "F32", shape, rng.random(shape[0] * shape[1], np.float32).tobytes())
    tampering.write_raw(path, {"__metadata__": {"format": "pt"}, **fresh}, content)
    config = {"quant_method": "fp8", "weight_block_size": [block, block]}
    tampering.edit_json(folder / "config.json", quantization_config=config)
    return folder


def test_block_scales_are_cut_with_their_weight(tmp_path: Path) -> None:
    folder = quantised(tmp_path / "fp8", inner=128, block=16)
    plan = plan_split(scan_model(LocalSource(folder)), 2)
    whole = load(folder)
    at = "model.layers.0.mlp"
    for rank in range(2):
        held = tensors_of(plan, folder, f"tp{rank}-pp0")
        rows, columns = slice(4 * rank, 4 * rank + 4), slice(64 * rank, 64 * rank + 64)
        up = whole[f"{at}.up_proj.weight_scale_inv"]
        down = whole[f"{at}.down_proj.weight_scale_inv"]
        assert np.array_equal(held[f"{at}.up_proj.weight_scale_inv"], up[rows])
        assert np.array_equal(held[f"{at}.down_proj.weight_scale_inv"], down[:, rows])
        assert np.array_equal(held[f"{at}.down_proj.weight"], whole[f"{at}.down_proj.weight"][:, columns])


def test_a_cut_inside_a_block_is_refused(tmp_path: Path) -> None:
    folder = quantised(tmp_path / "fp8", inner=96, block=32)
    with pytest.raises(HubError, match=r"gate_proj\.weight_scale_inv: a cut at 0:48 falls inside a quantisation block"):
        plan_split(scan_model(LocalSource(folder)), 2)


def test_other_quantisation_is_refused_by_name(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mini("llama"), folder)
    path = max(folder.glob("model-*.safetensors"))
    tampering.append_tensor(path, "model.layers.0.mlp.up_proj.qweight", "I32", [1], bytes(4))
    tampering.edit_index(folder, model__layers__0__mlp__up_proj__qweight=path.name)
    tampering.edit_json(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(HubError, match=r"qweight \(quantised with gptq\)"):
        plan_split(scan_model(LocalSource(folder)), 2)


def test_rank_json_says_who_it_is(llama: ModelScan, mini: Callable[[str], Path]) -> None:
    plan = plan_split(llama, 2, 4)
    rank = next(rank for rank in plan.ranks if rank.name == "tp1-pp2")
    file = next(file for file in rank.files if file.path == "rank.json")
    body = json.loads(b"".join(materialise(file, LocalSource(mini("llama")))))
    assert (body["tp_rank"], body["pp_rank"], body["layers"]) == (1, 2, [2, 4])
    assert body["vocabulary"] == {"size": 1000, "padded": 1024}
    assert "config.json" in {file.path for file in rank.files}


def test_nested_weights_travel_and_foreign_ones_stay(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mini("llama"), folder)
    (folder / "2_Dense").mkdir()
    shutil.copy(min(folder.glob("model-*.safetensors")), folder / "2_Dense" / "model.safetensors")
    (folder / "consolidated.00.pth").write_bytes(b"PK")
    shutil.copy(min(folder.glob("model-*.safetensors")), folder / "consolidated.safetensors")
    paths = {file.path for file in plan_split(scan_model(LocalSource(folder)), 2).ranks[0].files}
    assert "2_Dense/model.safetensors" in paths
    assert not {"consolidated.00.pth", "consolidated.safetensors", "model.safetensors.index.json"} & paths


def test_planning_a_large_model_is_quick() -> None:
    """Ten thousand tensors over sixteen ranks: linear work, so the largest models take minutes at most."""
    size = Size(hidden=64, layers=48, heads=8, kv_heads=4, head_dim=8, expert_inner=48, experts=64)
    made = BLUEPRINTS["qwen3_moe"](size)
    at, tensors = 4096, []
    for name, shape in made.tensors:
        entry = TensorEntry(name, "BF16", shape, "model.safetensors", at, 2 * int(np.prod(shape)))
        tensors.append(entry)
        at = entry.end
    scan = ModelScan((), tuple(tensors), (), made.config, "safetensors")
    begun = time.perf_counter()
    assert len(plan_split(scan, 2, 4, 2).ranks) == 16
    assert time.perf_counter() - begun < 20
