"""The product as a user runs it: the demo with small models, a rejection through REST, a clean stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fscore.admin.fsck import fsck
from fscore.hub.registry import Registry
from fscore.volume import open_volume
from fscore_airflow.demo.follow import Followed, Follower
from fscore_airflow.demo.run import run_demo
from fscore_airflow.demo.summary import reports
from fscore_airflow.demo.world import CLOUDS, World
from fscore_airflow.standalone.api import ApiError, poll
from fscore_airflow.standalone.supervisor import Supervisor

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("airflow-system"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the demo and the supervisor said."""
    return []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, said: list[str], mini: Callable[[str], Path]) -> World:
    """The demo's world with models of a few megabytes."""
    return World(tmp_path_factory.mktemp("demo"), said.append, llama_bytes=45_000_000, minilm=mini("bert"))


@pytest.fixture(scope="module")
def demo(world: World, said: list[str]) -> Iterator[Supervisor]:
    """The demo, run once with everything and left up; stopped at the end, and nothing may be left of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            patch.delenv(name)
        patch.setenv("FSCORE_WORK_DIR", "")
        good = run_demo(world, keep=True, everything=True)
        supervisor = world.supervisor
        try:
            assert good, "\n".join(said)
            yield supervisor
            assert set(supervisor.health().values()) == {"healthy"}
        finally:
            supervisor.stop()
    assert supervisor.running() == {}
    assert supervisor.leftovers() == []
    assert said[-1] == "Airflow is stopped"
    assert not list((world.root / "work").rglob("validation.json")), "workspaces are removed"


def test_the_demo_tells_what_happened(demo: Supervisor, said: list[str]) -> None:
    """Version, digest, bytes, zero-copy share, the second cloud, the warm caches, times, bars, the address."""
    told = "\n".join(said)
    for part in ("demo/llama-300m@1  sha256:", "demo/minilm@1  sha256:", "zero-copy", "copied to         cloud-b"):
        assert part in told
    for part in ("warm in           cloud-b", "seconds           request", "bar: added by tp1-pp4", demo.url):
        assert part in told
    assert "MISSED" not in told
    assert "nightly_sync: demo/minilm@1 to cloud-b" in told
    assert "nightly_sync again: 0 versions moved" in told
    assert "checkpoint_ingest: demo/training@1 (validated)" in told


def test_both_clouds_have_what_was_released(demo: Supervisor, world: World) -> None:
    """The same digests, layouts and aliases, loadable as they lie, on sound volumes."""
    digests = []
    for cloud in CLOUDS:
        with open_volume(world.url(cloud)) as volume:
            registry = Registry(volume)
            infos = [registry.show(f"demo/{model}:production", "releaser") for model in ("llama-300m", "minilm")]
            digests.append([info.digest for info in infos])
            assert [sorted(layout.name for layout in info.layouts) for info in infos] == [
                ["tp1-pp4", "tp2-pp2"],
                ["tp2-pp1"],
            ]
            assert volume.files.exists("/models/demo/llama-300m/production/config.json")
            assert volume.files.exists("/models/demo/llama-300m/1+tp2-pp2/tp1-pp1/config.json")
            assert fsck(volume).problems == []
    assert digests[0] == digests[1]


def test_secrets_are_private(demo: Supervisor) -> None:
    """Made once, and readable by the owner only."""
    for name in ("airflow.cfg", "secrets.json", "passwords.json", "standalone.json"):
        assert (demo.home.path / name).stat().st_mode & 0o777 == 0o600
    assert set(demo.home.passwords()) == {"admin", "releaser", "viewer"}


def test_a_bad_form_is_refused_by_rest(demo: Supervisor) -> None:
    """The schema's message comes back, and no run exists."""
    with pytest.raises(ApiError, match="team") as refusal:
        demo.api().trigger("model_release", {"source": "/m", "team": "../x", "model": "m"})
    assert refusal.value.status == 400


def test_a_rejection_by_rest_leaves_only_its_reason(
    demo: Supervisor, world: World, mini: Callable[[str], Path]
) -> None:
    """A viewer may not answer; the releaser rejects; nothing behind the gate runs, the draft goes."""
    api, releaser, viewer = demo.api(), demo.api("releaser"), demo.api("viewer")
    form = {"source": str(mini("qwen2")), "team": "ai", "model": "qwen", "volume": CLOUDS[0], "approvers": ["releaser"]}
    run = Followed("bad", "model_release", api.trigger("model_release", form))
    found: list[dict[str, Any]] = []

    def parked() -> bool:
        run.tasks = api.tasks(run.dag_id, run.run_id)
        found[:] = [item for item in releaser.pending() if item["task_instance"]["dag_run_id"] == run.run_id]
        return bool(found) and any(task["state"] == "deferred" for task in run.tasks)

    assert poll(parked, 120, interval=0.5)
    request = found[0]
    assert "ai/qwen@1" in request["subject"]
    assert next(reports(api, run, "push"))["digest"] in request["body"]
    assert [user["id"] for user in request["assigned_users"]] == ["releaser"]
    assert list(request["params"]) == ["reason"], "the form asks for a reason"
    with pytest.raises(ApiError) as refusal:
        viewer.respond(request["task_instance"], "Approve", {"reason": "me"})
    assert refusal.value.status == 403
    # Answered in the first moments of a deferral, Airflow 3.3 may fail the task and ask again.
    time.sleep(2.5)
    releaser.respond(request["task_instance"], "Reject", {"reason": "wrong tokenizer"})
    Follower(api, None, world.say).follow([run], timeout=120)

    assert (run.state, run.failed) == ("success", [])
    states = {task["task_id"]: task["state"] for task in run.tasks}
    assert states["publish"] == states["warm"] == "skipped"
    assert states["cleanup"] == "success"
    assert next(reports(api, run, "approve"))["reason"] == "wrong tokenizer"
    with open_volume(world.url(CLOUDS[0])) as volume:
        rejected = Registry(volume).show("ai/qwen@1", "releaser")
        assert rejected.state == "rejected"
        assert rejected.approval is not None
        assert (rejected.approval.by, rejected.approval.reason) == ("releaser", "wrong tokenizer")
        assert not volume.files.exists("/.fscore/drafts/ai/qwen/1")
