"""Splits written to a real volume: the bytes are right, what is shared is shared, and a stopped split goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import LocalSource, VolumeSource
from fscore.hub.split.plan import plan_split
from fscore.hub.split.report import SplitReport
from fscore.hub.split.write import write_split
from fscore.hub.validate.run import validate
from fscore.volume import Volume
from fscore_airflow.demo.checkpoints import write_checkpoint
from tests.kit.split_reference import Reference, load
from tests.kit.volumes import MakeVolume

MIB = 1 << 20


@pytest.fixture
def meta_url(tmp_path: Path) -> str:
    """Composition on every engine is the contract tests' matter; here one engine is enough."""
    return f"sqlite3://{tmp_path / 'meta.db'}"


def upload(volume: Volume, folder: Path, target: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            rel = path.relative_to(folder).as_posix()
            volume.files.mkdir(f"{target}/{rel}".rpartition("/")[0], parents=True, exist_ok=True)
            volume.files.write_bytes(f"{target}/{rel}", path.read_bytes())
    volume.files.sync()


def download(volume: Volume, folder: str, target: Path) -> Path:
    for here, _, files in volume.files.walk(folder):
        for file in files:
            path = target / file.path.removeprefix(f"{folder}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(volume.files.read_bytes(file.path))
        assert here.startswith(folder)
    return target


def stored(volume: Volume) -> int:
    volume.files.sync()
    return sum(info.size for info in volume.objects.scan("chunks/"))


def split(volume: Volume, tp: int, pp: int, ep: int = 1) -> tuple[SplitReport, int]:
    """The report of a split of /model, and by how many bytes the store grew."""
    before = stored(volume)
    plan = plan_split(scan_model(VolumeSource(volume.files, "/model")), tp, pp, ep)
    report = write_split(volume.files, "/model", f"/{plan.name}", plan)
    return report, stored(volume) - before


@pytest.mark.parametrize(("family", "ep"), [("llama", 1), ("gpt2", 1), ("qwen3_moe", 2)])
def test_every_rank_on_a_volume(
    sound_volume: Volume, mini: Callable[[str], Path], tmp_path: Path, family: str, ep: int
) -> None:
    upload(sound_volume, mini(family), "/model")
    report, grown = split(sound_volume, 2, 2, ep)
    assert grown == report.bytes_new
    assert report.bytes_new + report.bytes_shared + report.bytes_padding == report.bytes_total
    reference = Reference(mini(family))
    for rank in plan_split(scan_model(LocalSource(mini(family))), 2, 2, ep).ranks:
        name = "tp2-pp2" + ("-ep2" if ep > 1 else "")
        local = download(sound_volume, f"/{name}/{rank.name}", tmp_path / rank.name)
        expected = reference.rank(2, rank.rank.tp, 2, rank.rank.pp, ep, rank.rank.ep)
        found = load(local)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
        assert (local / "tokenizer.json").read_bytes() == (mini(family) / "tokenizer.json").read_bytes()
        with safe_open(local / "model.safetensors", "np") as opened:
            assert set(opened.keys()) == set(expected)


def test_a_stopped_split_goes_on(sound_volume: Volume, mini: Callable[[str], Path]) -> None:
    upload(sound_volume, mini("llama"), "/model")
    plan = plan_split(scan_model(VolumeSource(sound_volume.files, "/model")), 2, 1)
    write_split(sound_volume.files, "/model", "/half", plan)
    kept = sound_volume.files.stat("/half/tp0-pp0/model.safetensors").ino
    sound_volume.files.unlink("/half/tp1-pp0/model.safetensors")
    sound_volume.files.write_bytes("/half/tp1-pp0/model.safetensors.part", b"what a crash left")
    write_split(sound_volume.files, "/model", "/half", plan)
    assert sound_volume.files.stat("/half/tp0-pp0/model.safetensors").ino == kept
    assert not sound_volume.files.exists("/half/tp1-pp0/model.safetensors.part")
    assert sound_volume.files.stat("/half/tp1-pp0/model.safetensors").size == plan.ranks[1].files[0].size


def test_validation_reads_a_volume(sound_volume: Volume, mini: Callable[[str], Path]) -> None:
    upload(sound_volume, mini("llama"), "/model")
    result = validate(VolumeSource(sound_volume.files, "/model"))
    assert result.failed == []
    assert result.digest == validate(LocalSource(mini("llama"))).digest


def test_a_links_target_must_stay_inside(sound_volume: Volume, mini: Callable[[str], Path]) -> None:
    upload(sound_volume, mini("llama"), "/model")
    sound_volume.files.write_bytes("/secret", b"x")
    sound_volume.files.symlink("config.json", "/model/same.json")
    assert ("same.json", len((mini("llama") / "config.json").read_bytes())) in VolumeSource(
        sound_volume.files, "/model"
    ).files()
    sound_volume.files.symlink("../secret", "/model/outside.json")
    with pytest.raises(Exception, match=r"outside\.json is a link that leaves the model directory"):
        VolumeSource(sound_volume.files, "/model").files()


@pytest.fixture
def released(make_volume: MakeVolume, tmp_path: Path) -> Volume:
    """A volume with a Llama of 48 MB, in blocks of the usual size."""
    volume = make_volume(setting={"block_size": "4M"})
    folder = write_checkpoint(tmp_path / "llama", nbytes=48_000_000, shard_bytes=16_000_000)
    upload(volume, folder, "/model")
    return volume


def test_pipeline_stages_cost_headers(released: Volume) -> None:
    report, grown = split(released, 1, 3)
    assert grown == report.bytes_new < MIB // 2
    assert report.zero_copy > 0.99
    assert report.bytes_gathered == 0


def test_tensor_ranks_cost_their_columns(released: Volume) -> None:
    report, grown = split(released, 2, 1)
    columns = sum(entry.bytes_new for entry in report.classes if entry.reason.startswith("columns"))
    assert columns == report.bytes_gathered > 0
    assert grown == report.bytes_new <= columns + MIB
    assert {entry.pattern for entry in report.classes if entry.reason.startswith("columns")} == {
        "self_attn.o_proj.weight",
        "mlp.down_proj.weight",
    }
