"""The release suite: sound models pass, each kind of damage fails exactly its own checks."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import LocalSource
from fscore.hub.split.plan import plan_split
from fscore.hub.split.write import materialise
from fscore.hub.validate.policy import Expectations
from fscore.hub.validate.run import validate
from tests.kit import tampering

CHECKPOINTS = Path(__file__).resolve().parents[2] / "golden" / "checkpoints"
NAN, INFINITY, HUGE = b"\xc0\x7f", b"\x80\x7f", b"\x00\x47"
TENSOR = "model.layers.1.mlp.up_proj.weight"
GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture
def model(mini: Callable[[str], Path], tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(mini("llama"), target)
    return target


def failed(folder: Path) -> set[str]:
    return {check.name for check in validate(LocalSource(folder)).failed}


def test_a_real_model_passes(minilm: Path) -> None:
    result = validate(LocalSource(minilm))
    assert result.failed == []
    assert result.success
    assert result.counts["tensors"] == 104
    assert result.counts["parameters"] == 22_713_728


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "mixtral", "gpt2", "bert", "gemma2"])
def test_made_models_pass(mini: Callable[[str], Path], family: str) -> None:
    assert failed(mini(family)) == set()


def test_the_result_is_stable_json(model: Path) -> None:
    first, second = validate(LocalSource(model)), validate(LocalSource(model), workers=1)
    assert first.digest == second.digest
    assert msgspec.json.decode(msgspec.json.encode(first), type=type(first)) == first
    assert len(first.lines()) == first.counts["checks"]
    tampering.poke(model, TENSOR, NAN)
    assert validate(LocalSource(model)).digest != first.digest


def test_nan(model: Path) -> None:
    tampering.poke(model, TENSOR, NAN, at=4000)
    result = validate(LocalSource(model))
    assert [(check.name, check.detail) for check in result.failed] == [("tensors.no_nan", TENSOR)]
    assert not result.success
    assert result.counts["nan"] == 1


def test_infinity(model: Path) -> None:
    tampering.poke(model, TENSOR, INFINITY)
    assert failed(model) == {"tensors.no_infinity"}


def test_blown_up_numbers_warn(model: Path) -> None:
    for layer in range(5):
        tampering.poke(model, f"model.layers.{layer}.mlp.up_proj.weight", HUGE)
    result = validate(LocalSource(model))
    assert {check.name for check in result.failed} == {"tensors.magnitudes"}
    assert result.success


def test_dead_tensors_warn(model: Path) -> None:
    for layer in range(5):
        path, begin, end = tampering.find(model, f"model.layers.{layer}.mlp.up_proj.weight")
        data = bytearray(path.read_bytes())
        data[begin:end] = bytes(end - begin)
        path.write_bytes(data)
    assert failed(model) == {"tensors.not_mostly_zero"}


def test_truncated_shard(model: Path) -> None:
    path, _, _ = tampering.find(model, TENSOR)
    path.write_bytes(path.read_bytes()[:-1])
    result = validate(LocalSource(model))
    assert [check.name for check in result.failed] == ["files.readable"]
    assert path.name in result.failed[0].detail
    assert "cut short" in result.failed[0].detail


def test_missing_shard(model: Path) -> None:
    path, _, _ = tampering.find(model, TENSOR)
    path.unlink()
    assert failed(model) == {"files.present"}


def test_missing_tensor_without_index_entry(model: Path) -> None:
    path, begin, end = tampering.find(model, TENSOR)
    header, start = tampering.header_of(path)
    del header[TENSOR]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] + start >= end:
            entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]
    data = path.read_bytes()
    tampering.write_raw(path, header, data[start:begin] + data[end:])
    tampering.edit_index(model, **{TENSOR.replace(".", "__"): None})
    index = json.loads((model / "model.safetensors.index.json").read_text())
    tampering.edit_json(
        model / "model.safetensors.index.json",
        metadata={"total_size": index["metadata"]["total_size"] - (end - begin)},
    )
    assert failed(model) == {"model.no_tensor_missing"}


def test_index_names_a_tensor_that_no_header_has(model: Path) -> None:
    path, _, _ = tampering.find(model, TENSOR)
    tampering.edit_index(model, ghost__weight=path.name)
    assert failed(model) == {"tensors.placed_by_index"}


def test_duplicate_tensor_over_shards(model: Path) -> None:
    first, _, _ = tampering.find(model, "model.embed_tokens.weight")
    last, _, _ = tampering.find(model, TENSOR)
    assert first != last
    tampering.append_tensor(last, "model.embed_tokens.weight", "BF16", [1000, 64], bytes(128_000))
    found = failed(model)
    assert {"tensors.name_unique", "tensors.placed_by_index"} <= found
    assert found <= {"tensors.name_unique", "tensors.placed_by_index", "model.index_total"}


def test_config_that_promises_another_vocabulary(model: Path) -> None:
    tampering.edit_json(model / "config.json", vocab_size=1001)
    assert failed(model) == {"tensors.shape_matches_config", "model.vocabulary_matches_config"}


def test_config_that_promises_more_layers(model: Path) -> None:
    tampering.edit_json(model / "config.json", num_hidden_layers=6)
    assert failed(model) == {"model.layers_match_config", "model.no_tensor_missing"}


def test_no_config(model: Path) -> None:
    (model / "config.json").unlink()
    assert failed(model) == {"files.required", "model.family_known"}


def test_config_that_is_no_json(model: Path) -> None:
    (model / "config.json").write_text("{")
    assert failed(model) == {"files.readable", "model.family_known"}


def test_no_tokenizer_warns(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert failed(model) == {"files.wanted"}
    assert validate(LocalSource(model)).success


def test_token_outside_the_vocabulary(model: Path) -> None:
    body = json.loads((model / "tokenizer.json").read_text())
    body["added_tokens"].append({**body["added_tokens"][0], "id": 1000, "content": "<late>"})
    (model / "tokenizer.json").write_text(json.dumps(body))
    assert failed(model) == {"model.tokens_fit"}


def test_index_total_warns(model: Path) -> None:
    tampering.edit_json(model / "model.safetensors.index.json", metadata={"total_size": 1})
    assert failed(model) == {"model.index_total"}


def test_pickle_is_refused_unless_allowed(model: Path) -> None:
    shutil.copy(CHECKPOINTS / "plain" / "model.pt", model / "pytorch_model.bin")
    assert failed(model) == {"files.no_pickle"}
    assert not validate(LocalSource(model)).success
    assert validate(LocalSource(model), allow_pickle=True).success


def test_a_pickle_that_would_call_something_is_never_allowed(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    result = validate(LocalSource(model), allow_pickle=True)
    assert not result.success
    assert [check.name for check in result.failed if check.severity == "critical"] == ["files.pickles_inert"]


@pytest.mark.parametrize(
    "path",
    ["dcp/step-7", "megatron_legacy/iter_0000010", "megatron_dist/iter_0000020", "deepspeed/global_step30"],
)
def test_training_checkpoints_pass_where_pickles_may(path: str) -> None:
    result = validate(LocalSource(CHECKPOINTS / path), allow_pickle=True)
    assert result.success, result.failed
    assert result.counts["tensors"] > 0
    assert [c.name for c in validate(LocalSource(CHECKPOINTS / path)).failed if c.severity == "critical"] == [
        "files.no_pickle"
    ]


def test_nan_in_a_checkpoint_of_pickles(tmp_path: Path) -> None:
    folder = tmp_path / "step-7"
    shutil.copytree(CHECKPOINTS / "dcp" / "step-7", folder)
    entry = next(tensor for tensor in scan_model(LocalSource(folder)).tensors if "bias" in tensor.name)
    with (folder / entry.file).open("r+b") as file:
        file.seek(entry.offset)
        file.write(struct.pack("<f", float("nan")))
    result = validate(LocalSource(folder), allow_pickle=True)
    assert [check.name for check in result.failed if check.severity == "critical"] == ["tensors.no_nan"]


def test_code_warns_programs_fail(model: Path) -> None:
    (model / "modeling_llama.py").write_text("raise SystemExit")
    assert failed(model) == {"files.no_remote_code"}
    strict = Expectations(allow_remote_code=False)
    assert not validate(LocalSource(model), expectations=strict).success
    (model / "kernel.so").write_bytes(b"\x7fELF")
    assert failed(model) == {"files.no_remote_code", "files.no_program"}


def test_leftovers_and_empty_weights(model: Path) -> None:
    (model / "config.json.tmp").write_text("{}")
    assert failed(model) == {"files.path_safe"}
    (model / "config.json.tmp").unlink()
    (model / "extra.safetensors").touch()
    assert failed(model) == {"files.weights_not_empty", "files.readable"}


def test_policy_on_dtypes(model: Path) -> None:
    result = validate(LocalSource(model), expectations=Expectations(dtypes=("F32",)))
    assert {check.name for check in result.failed} == {"tensors.dtype_allowed"}


def test_unknown_family_is_only_a_warning(model: Path) -> None:
    tampering.edit_json(model / "config.json", model_type="novel")
    result = validate(LocalSource(model))
    assert {check.name for check in result.failed} == {"model.family_known"}
    assert result.success


def test_empty_directory(tmp_path: Path) -> None:
    found = failed(tmp_path)
    assert {"files.required", "files.wanted", "model.has_weights"} <= found


def test_a_rank_of_a_split_is_judged_as_a_part(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = mini("llama")
    rank = plan_split(scan_model(LocalSource(folder)), 2, 2).ranks[1]
    for file in rank.files:
        target = tmp_path / rank.name / file.path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"".join(materialise(file, LocalSource(folder))))
    assert failed(tmp_path / rank.name) == set()


def test_importing_costs_nothing_before_the_suite_runs() -> None:
    code = (
        "import sys, fscore.hub.validate.run; sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_executed(model: Path, tmp_path: Path) -> None:
    """A pickle that would touch a file does not, though it is scanned as part of the model."""
    proof = tmp_path / "owned"
    evil = b"cposix\nsystem\n(X" + struct.pack("<I", len(f"touch {proof}")) + f"touch {proof}".encode() + b"tR."
    (model / "evil.pt").write_bytes(evil)
    assert {"files.no_pickle", "files.pickles_inert"} <= failed(model)
    assert not proof.exists()
