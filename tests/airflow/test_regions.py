"""Nightly sync and warm-up over real volumes: what is missing moves once, and the coverage is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from fscore.hub.approval import decide, request
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.split_version import split_version
from fscore.sync import sync_versions
from fscore.volume import Volume, open_volume
from fscore_airflow.missing import missing_versions
from fscore_airflow.operators.regions import SyncVersion
from fscore_airflow.operators.warmup import PlanWarmUp, ReportWarmUp
from tests.airflow.conftest import Clouds, results

pytestmark = pytest.mark.airflow
RunDag = Callable[..., Any]


def publish(volume: Volume, source: Path, name: str, *, alias: str = "") -> str:
    """Push, split, approve and publish without Airflow; returns the reference."""
    pushed = push(volume, source, name, user="trainer")
    split_version(volume, pushed.ref, tp=2, pp=1, actor="trainer")
    request(volume, pushed.ref, actor="trainer")
    decide(volume, pushed.ref, "approve", by="releaser")
    Registry(volume).publish(pushed.ref, "trainer", alias=alias)
    return pushed.ref


@pytest.fixture
def models(clouds: Clouds, mini: Callable[[str], Path]) -> list[str]:
    """Two published models and a draft in the first cloud."""
    with open_volume(clouds.url(clouds.home)) as volume:
        refs = [
            publish(volume, mini("llama"), "ai/llama", alias="production"),
            publish(volume, mini("qwen2"), "ai/qwen"),
        ]
        push(volume, mini("bert"), "ai/draft", user="trainer")
    return refs


def stored(clouds: Clouds, name: str) -> int:
    """Bytes of one cloud's objects."""
    return sum(path.stat().st_size for path in (clouds.root / name).rglob("*") if path.is_file())


def test_nightly_sync_brings_what_is_missing_and_then_nothing(
    run_dag: RunDag, clouds: Clouds, models: list[str], mini: Callable[[str], Path], tmp_path: Path
) -> None:
    """One mapped task for each version and region; drafts stay at home; a new version moves alone."""
    first = run_dag("nightly_sync", volume=clouds.home)
    assert str(first.state) == "success"
    assert [done["ref"] for done in results(first, "sync")] == models
    with open_volume(clouds.url(clouds.region)) as volume:
        assert [info.model for info in Registry(volume).models("releaser")] == ["llama", "qwen"]
        assert Registry(volume).show("ai/llama:production", "releaser").state == "published"

    held = stored(clouds, clouds.region)
    second = run_dag("nightly_sync", volume=clouds.home)
    assert str(second.state) == "success"
    assert results(second, "plan") == [[]]
    assert results(second, "sync") == []
    assert stored(clouds, clouds.region) == held

    changed = shutil.copytree(mini("llama"), tmp_path / "changed")
    (changed / "README.md").write_text("# second edition")
    with open_volume(clouds.url(clouds.home)) as volume:
        third_ref = publish(volume, changed, "ai/llama")
    third = run_dag("nightly_sync", volume=clouds.home, regions=[clouds.region])
    (moved,) = results(third, "sync")
    assert moved["ref"] == third_ref == "ai/llama@2"
    assert moved["bytes_moved"] < moved["bytes_total"] / 2
    assert moved["conflicts"] == []


def test_a_new_layout_makes_a_version_missing(clouds: Clouds, models: list[str]) -> None:
    """A region that has the version without one of its layouts lacks something."""
    with open_volume(clouds.url(clouds.home)) as home, open_volume(clouds.url(clouds.region)) as region:
        assert missing_versions(home, region) == models
        assert missing_versions(home, home) == []
        sync_versions(home, region)
        assert missing_versions(home, region) == []
        split_version(home, models[0], tp=1, pp=2, actor="trainer")
        assert missing_versions(home, region) == [models[0]]


def test_revocations_and_aliases_travel_too(
    run_dag: RunDag, clouds: Clouds, models: list[str], mini: Callable[[str], Path], tmp_path: Path
) -> None:
    """A region must not go on serving what home withdrew, nor under a name that home has moved."""
    changed = shutil.copytree(mini("llama"), tmp_path / "changed")
    (changed / "README.md").write_text("# second edition")
    with open_volume(clouds.url(clouds.home)) as home, open_volume(clouds.url(clouds.region)) as region:
        publish(home, changed, "ai/llama")
        sync_versions(home, region)
        assert missing_versions(home, region) == []
        registry = Registry(home)
        registry.set_alias("ai/llama@2", "production", "trainer")
        registry.revoke("ai/qwen@1", "releaser", reason="licence")
        assert missing_versions(home, region) == ["ai/llama@2", "ai/qwen@1"]
    run = run_dag("nightly_sync", volume=clouds.home)
    assert [done["bytes_moved"] for done in results(run, "sync")] == [0, 0]
    with open_volume(clouds.url(clouds.home)) as home, open_volume(clouds.url(clouds.region)) as region:
        assert missing_versions(home, region) == []
        assert Registry(region).show("ai/llama:production", "releaser").version == 2
        assert not region.files.exists("/models/ai/qwen/1")


def test_another_content_under_the_same_number_is_never_replaced(clouds: Clouds, mini: Callable[[str], Path]) -> None:
    """The task fails with both digests; the region keeps what it has."""
    with open_volume(clouds.url(clouds.home)) as home, open_volume(clouds.url(clouds.region)) as region:
        publish(home, mini("llama"), "ai/m")
        publish(region, mini("qwen2"), "ai/m")
        kept = Registry(region).show("ai/m@1", "trainer").digest
    with pytest.raises(AirflowException, match=r"ai/m@1 is sha256:\w+ at the target"):
        SyncVersion(task_id="sync", volume=clouds.home, region=clouds.region, ref="ai/m@1").execute({})
    with open_volume(clouds.url(clouds.region)) as region:
        assert Registry(region).show("ai/m@1", "trainer").digest == kept


def test_a_manual_warm_up_covers_one_model_with_its_layouts(run_dag: RunDag, clouds: Clouds, models: list[str]) -> None:
    """The coverage is whole, and a second run fetches nothing."""
    run = run_dag("cache_warmup", volume=clouds.home, ref="ai/llama:production")
    assert str(run.state) == "success"
    (warm,) = results(run, "warm")
    assert warm["ref"] == "ai/llama@1"
    assert warm["layouts"] == {"-": 1.0, "tp2-pp1": 1.0}
    assert warm["bytes_fetched"] > 0
    (coverage,) = results(run, "coverage")
    assert coverage["coverage"] == 1.0
    assert coverage["minutes_before_scale_up"] > 0
    assert list((clouds.root / f"{clouds.home}-cache").rglob("*"))
    again = run_dag("cache_warmup", volume=clouds.home, ref="ai/llama:production")
    assert results(again, "coverage")[0]["bytes_fetched"] == 0


def test_the_plan_takes_the_alias_else_the_latest(clouds: Clouds, models: list[str]) -> None:
    """Every model once; with a rank only those that have it."""

    def plan(**fields: Any) -> list[dict[str, str]]:
        return PlanWarmUp(task_id="plan", volume=clouds.home, **fields).execute({})

    assert [job["ref"] for job in plan()] == models
    assert [job["ref"] for job in plan(ref="ai/qwen")] == ["ai/qwen@1"]
    assert [job["rank"] for job in plan(rank="tp1-pp0")] == ["tp1-pp0", "tp1-pp0"]
    assert plan(rank="tp7-pp0") == []


def test_too_little_coverage_fails_the_run() -> None:
    """The last task says how much is missing."""
    part = {"ref": "ai/m@1", "bytes_total": 100, "bytes_cached": 60, "bytes_fetched": 10}
    with pytest.raises(AirflowFailException, match=r"only 60\.0% of 100 bytes"):
        ReportWarmUp(task_id="coverage", reports=[part]).execute({})
    assert ReportWarmUp(task_id="coverage", reports=[part], least="0.5").execute({})["coverage"] == 0.6
    assert ReportWarmUp(task_id="coverage", reports=[]).execute({})["coverage"] == 1.0
