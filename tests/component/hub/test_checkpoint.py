"""Checkpoints that the real torch wrote (tests/golden/checkpoints), whole and broken in the ways that happen."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fscore.hub.checkpoint import discover, observe, probe, probe_path, settled
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import LocalSource
from tests.kit import tampering

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "checkpoints"
SECOND = 1_000_000_000


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    target = tmp_path / "watched"
    shutil.copytree(GOLDEN, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return target


def verdict(folder: Path) -> tuple[str, str]:
    report = probe_path(folder)
    return report.verdict, " | ".join(report.reasons)


def cut(path: Path, count: int = 10) -> None:
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("path", "kind", "step", "grid"),
    [
        ("dcp/step-7", "dcp", 7, {}),
        ("megatron_dist/iter_0000020", "megatron-torch_dist", 20, {"tp": 2, "pp": 1, "ep": 1}),
        ("megatron_legacy/iter_0000010", "megatron-legacy", 10, {"tp": 2, "pp": 2, "ep": 1}),
        ("deepspeed/global_step30", "deepspeed", 30, {"dp": 2, "mp": 1}),
        ("nemo2/run--step=40", "nemo2", 40, {}),
    ],
)
def test_whole_ones(golden: Path, path: str, kind: str, step: int, grid: dict[str, int]) -> None:
    report = probe_path(golden / path)
    assert (report.verdict, report.reasons, report.warnings) == ("complete", [], [])
    assert (report.format, report.step, report.grid) == (kind, step, grid)
    assert report.tensors > 0
    assert report.parameters > 0


def test_discovery_finds_each_once_by_step(golden: Path) -> None:
    (golden / "dcp" / "last").symlink_to("step-7")
    assert discover(LocalSource(golden, skip_links=True)) == [
        "plain",
        "dcp/step-7",
        "megatron_legacy/iter_0000010",
        "megatron_dist/iter_0000020",
        "deepspeed/global_step30",
        "nemo2/run--step=40",
    ]


def test_a_trainers_output_directory(mini: Callable[[str], Path], tmp_path: Path) -> None:
    """The last model at the top, checkpoints in children, an optimizer's folder inside one."""
    for name in (".", "checkpoint-10", "checkpoint-9"):
        shutil.copytree(mini("llama"), tmp_path / "out" / name, dirs_exist_ok=True)
    shutil.copytree(GOLDEN / "deepspeed" / "global_step30", tmp_path / "out" / "checkpoint-10" / "global_step10")
    assert discover(LocalSource(tmp_path / "out")) == ["checkpoint-9", "checkpoint-10"]
    assert probe(LocalSource(tmp_path / "out"), "checkpoint-10").optimizer


def test_one_checkpoint_that_is_watched_itself(mini: Callable[[str], Path]) -> None:
    assert discover(LocalSource(mini("llama"))) == [""]


def test_dcp_without_commit(golden: Path) -> None:
    folder = golden / "dcp" / "step-7"
    (folder / ".metadata").rename(folder / ".metadata.tmp")
    state, why = verdict(folder)
    assert state == "incomplete"
    assert ".metadata is missing: the save is not committed" in why
    assert ".metadata.tmp is still being written" in why


def test_dcp_cut_short(golden: Path) -> None:
    cut(golden / "dcp" / "step-7" / "__1_0.distcp")
    state, why = verdict(golden / "dcp" / "step-7")
    assert state == "corrupt"
    assert "__1_0.distcp has 4405 bytes, its items end at 4415" in why


def test_dcp_missing_file(golden: Path) -> None:
    (golden / "dcp" / "step-7" / "__0_0.distcp").unlink()
    assert verdict(golden / "dcp" / "step-7") == (
        "corrupt",
        "__0_0.distcp is missing, though the save is committed",
    )


def test_dcp_overwritten_midway(golden: Path) -> None:
    """The old marker is still valid, one file already holds another save of the same size."""
    path = golden / "dcp" / "step-7" / "__1_0.distcp"
    path.write_bytes(b"\0" * 100 + path.read_bytes()[:-100])
    state, why = verdict(golden / "dcp" / "step-7")
    assert state == "corrupt"
    assert "overwritten by another save" in why


def test_dcp_orphan_of_a_save_with_more_ranks(golden: Path) -> None:
    folder = golden / "dcp" / "step-7"
    shutil.copy(folder / "__1_0.distcp", folder / "__2_0.distcp")
    assert verdict(folder) == ("corrupt", "__2_0.distcp is in no list: it is of another save")


def test_dcp_metadata_that_is_something_else(golden: Path) -> None:
    (golden / "dcp" / "step-7" / ".metadata").write_bytes(b"\x80\x04N.")
    state, why = verdict(golden / "dcp" / "step-7")
    assert (state, why) == ("corrupt", ".metadata: is not the metadata of torch.distributed.checkpoint")


def test_torch_dist_needs_its_last_file(golden: Path) -> None:
    folder = golden / "megatron_dist" / "iter_0000020"
    (folder / "metadata.json").unlink()
    assert verdict(folder) == ("incomplete", "metadata.json is missing: it is written last")


def test_torch_dist_whose_name_lies(golden: Path) -> None:
    folder = golden / "megatron_dist" / "iter_0000020"
    folder.rename(folder.with_name("iter_0000021"))
    state, why = verdict(folder.with_name("iter_0000021"))
    assert (state, why) == ("corrupt", "the step is 20 in common.pt, 21 in the name")


def test_newer_than_its_tracker(golden: Path) -> None:
    (golden / "megatron_dist" / "latest_checkpointed_iteration.txt").write_text("15")
    report = probe_path(golden / "megatron_dist" / "iter_0000020")
    assert report.complete
    assert report.warnings == [
        "latest_checkpointed_iteration.txt says 15: this one is newer, its save may not have ended"
    ]


def test_nemo_unfinished(golden: Path) -> None:
    (golden / "nemo2" / "run--step=40-unfinished").touch()
    assert verdict(golden / "nemo2" / "run--step=40") == (
        "incomplete",
        "run--step=40-unfinished is still there: the save is not finished",
    )


def test_legacy_missing_rank(golden: Path) -> None:
    folder = golden / "megatron_legacy" / "iter_0000010"
    shutil.rmtree(folder / "mp_rank_01_001")
    assert verdict(folder) == ("incomplete", "mp_rank_01_001 is missing")


def test_legacy_truncated_rank(golden: Path) -> None:
    folder = golden / "megatron_legacy" / "iter_0000010"
    cut(folder / "mp_rank_01_000" / "model_optim_rng.pt")
    state, why = verdict(folder)
    assert state == "incomplete"
    assert why.startswith("mp_rank_01_000/model_optim_rng.pt: cut short")


def test_legacy_rank_of_another_iteration(golden: Path) -> None:
    folder = golden / "megatron_legacy" / "iter_0000010"
    path = folder / "mp_rank_00_001" / "model_optim_rng.pt"
    tampering.edit_pickle(path, lambda data: b"K\x0b".join(data.rsplit(b"K\n", 1)))
    state, why = verdict(folder)
    assert state == "corrupt"
    assert "11 in mp_rank_00_001/model_optim_rng.pt" in why


def test_deepspeed_missing_partition(golden: Path) -> None:
    folder = golden / "deepspeed" / "global_step30"
    (folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    assert verdict(folder) == ("incomplete", "optimizer states of data rank 1, model rank 0 are missing")


def test_deepspeed_newer_than_latest(golden: Path) -> None:
    (golden / "deepspeed" / "latest").write_text("global_step20")
    report = probe_path(golden / "deepspeed" / "global_step30")
    assert report.warnings == ["latest says global_step20: this one is newer, its save may not have ended"]


def test_hf_checkpoint(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-12"
    shutil.copytree(mini("qwen2"), folder)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 12}))
    report = probe_path(folder)
    assert (report.verdict, report.format, report.step) == ("complete", "hf-safetensors", 12)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 11}))
    assert verdict(folder)[0] == "corrupt"


def test_hf_shard_that_is_not_there_yet(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-12"
    shutil.copytree(mini("qwen2"), folder)
    last = max(folder.glob("model-*.safetensors"))
    cut(last)
    state, why = verdict(folder)
    assert state == "incomplete"
    assert f"{last.name}: cut short" in why
    last.unlink()
    assert verdict(folder)[0] == "incomplete"
    (folder / "model.safetensors.index.json").unlink()
    state, why = verdict(folder)
    assert f"{last.name} is missing" in why
    assert "model.safetensors.index.json is missing: it is written last" in why


def test_hf_writer_at_work(mini: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-12"
    shutil.copytree(mini("qwen2"), folder)
    (folder / ".tmpAbCdEf").write_bytes(b"x")
    assert verdict(folder) == ("incomplete", ".tmpAbCdEf is still being written")


def _dcp_shard(folder: Path, number: int, count: int, rows: int, start: int) -> None:
    info = json.dumps({"w": {"saved_offsets": [start, 0]}})
    header = {
        "__metadata__": {"DCP_SHARDING_INFO": info, "DCP_VERSION": "1.0"},
        "w": {"dtype": "F32", "shape": [rows, 2], "data_offsets": [0, rows * 8]},
    }
    path = folder / f"shard-{number:05d}-model-{number:05d}-of-{count:05d}.safetensors"
    tampering.write_raw(path, header, bytes(rows * 8))


def test_dcp_written_as_safetensors(tmp_path: Path) -> None:
    folder = tmp_path / "step-3"
    folder.mkdir()
    _dcp_shard(folder, 1, 2, 3, 0)
    assert verdict(folder) == ("incomplete", "shard 2 of 2 is missing")
    _dcp_shard(folder, 2, 2, 1, 4)
    assert verdict(folder) == ("incomplete", "w: 8 of 10 elements are there")
    _dcp_shard(folder, 2, 2, 2, 3)
    report = probe_path(folder)
    assert (report.verdict, report.format, report.parameters) == ("complete", "dcp-hf", 10)


def test_evil_pickles_are_named_and_not_executed(tmp_path: Path, golden: Path) -> None:
    proof = tmp_path / "owned"
    path = golden / "plain" / "model.pt"
    (golden / "plain" / "legacy.pt").unlink()
    tampering.edit_pickle(path, lambda _: f"cposix\nsystem\n(Vtouch {proof}\ntR.".encode())
    report = probe_path(golden / "plain")
    assert any("mentions posix.system" in line for line in report.warnings)
    assert not proof.exists()
    with zipfile.ZipFile(path) as archive:
        pickle.loads(archive.read("model/data.pkl"))
    assert proof.exists(), "the pickle was evil indeed"


def test_nothing_there(tmp_path: Path) -> None:
    assert verdict(tmp_path)[0] == "incomplete"
    assert verdict(tmp_path / "never")[0] == "incomplete"


def test_quiet_means_two_equal_looks_apart(golden: Path) -> None:
    source = LocalSource(golden)
    first = observe(source, 0, "dcp/step-7")
    assert settled(first, observe(source, 29 * SECOND, "dcp/step-7")) == "the two looks are only 29 s apart"
    assert settled(first, observe(source, 30 * SECOND, "dcp/step-7")) == ""
    path = golden / "dcp" / "step-7" / "__0_0.distcp"
    os.utime(path, ns=(0, 12345))
    assert settled(first, observe(source, 60 * SECOND, "dcp/step-7")) == "dcp/step-7/__0_0.distcp changed"
    (golden / "dcp" / "step-7" / "new.tmp").touch()
    assert "still being written" in settled(first, observe(source, 60 * SECOND, "dcp/step-7"))
    path.unlink()
    (golden / "dcp" / "step-7" / "new.tmp").unlink()
    assert settled(first, observe(source, 60 * SECOND, "dcp/step-7")) == "1 files came or went"
    assert settled(first, observe(source, 60 * SECOND, "empty")) == "nothing is there"


@pytest.mark.parametrize("seed", range(6))
def test_any_damage_is_a_verdict(tmp_path: Path, seed: int) -> None:
    """Flipped, lost and extra bytes anywhere: a report or a list of problems, never another exception."""
    rng = random.Random(seed)
    whole = sorted(path for path in GOLDEN.rglob("*") if path.is_file() and path.suffix != ".py")
    for number in range(20):
        folder = tmp_path / str(number)
        victim = rng.choice(whole)
        shutil.copytree(victim.parent, folder)
        data = bytearray(victim.read_bytes())
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                data[at : at + 1] = rng.randbytes(1)
            elif kind == 1:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            elif kind == 2:
                del data[at : at + rng.randint(1, 20)]
            else:
                del data[at:]
        (folder / victim.name).write_bytes(data)
        assert probe_path(folder).verdict in {"complete", "incomplete", "corrupt"}
        scan_model(LocalSource(folder))
