"""The watched directory: incomplete, noisy, new, known; and the DAG that ingests each checkpoint once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fscore.hub.registry import Registry
from fscore.runtime.clock import FakeClock
from fscore.volume import open_volume
from fscore_airflow.watch import Watch
from tests.airflow.conftest import Clouds

pytestmark = pytest.mark.airflow


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """An empty directory that a training run writes into."""
    folder = tmp_path / "training"
    folder.mkdir()
    return folder


def test_a_checkpoint_is_taken_when_complete_and_quiet(
    clouds: Clouds, watched: Path, mini: Callable[[str], Path]
) -> None:
    """Neither a missing shard nor a recent change is ingested; the oldest complete step comes first."""
    clock = FakeClock()
    watch = Watch(str(watched), clouds.home, "ai/train", 30.0, clock=clock)
    assert watch.look() is None
    assert "no checkpoint" in watch.news()[0]

    shutil.copytree(mini("llama"), watched / "step-200")
    shutil.copytree(mini("llama"), watched / "step-100")
    shard = max((watched / "step-100").glob("*.safetensors"))
    held = shard.read_bytes()
    shard.unlink()
    assert watch.look() is None
    clock.advance(31)
    found = watch.look()
    assert found is not None, "the complete one does not wait for the broken one"
    assert found["source"]["path"] == str(watched / "step-200")
    assert any("step-100 is incomplete" in line for line in watch.news())

    shard.write_bytes(held)
    clock.advance(31)
    found = watch.look()
    assert found is not None
    assert found["step"] == 200, "a file came: the quiet time of step-100 begins anew"
    clock.advance(31)
    found = watch.look()
    assert found is not None
    assert found["step"] == 100
    assert found["source"]["kind"] == "checkpoint"


def test_a_directory_that_is_not_there_yet_is_waited_for(clouds: Clouds, tmp_path: Path) -> None:
    """The training run makes it later."""
    watch = Watch(str(tmp_path / "later"), clouds.home, "ai/train", 0.0)
    assert watch.look() is None
    assert "does not exist yet" in watch.news()[0]
    assert watch.look() is None
    assert watch.news() == [], "said once"


def test_checkpoint_ingest_takes_each_checkpoint_once(
    run_dag: Callable[..., Any], clouds: Clouds, watched: Path, mini: Callable[[str], Path]
) -> None:
    """Two runs, two checkpoints, two drafts; the log knows where each came from."""
    conf = {"volume": clouds.home, "directory": str(watched), "team": "ai", "model": "train", "quiesce": 0.2}
    shutil.copytree(mini("llama"), watched / "step-100")
    assert str(run_dag("checkpoint_ingest", **conf).state) == "success"
    shutil.copytree(mini("qwen2"), watched / "step-200")
    assert str(run_dag("checkpoint_ingest", **conf).state) == "success"
    with open_volume(clouds.url(clouds.home)) as volume:
        registry = Registry(volume)
        assert [info.state for info in registry.versions("ai/train", "airflow")] == ["validated", "validated"]
        sources = [event.extra["source"] for event in registry.log("ai/train") if event.action == "upload"]
    assert [Path(source["uri"]).name for source in sources] == ["step-100", "step-200"]
    assert len({source["revision"] for source in sources}) == 2
