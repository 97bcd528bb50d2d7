"""The product as a user runs it: the supervisor, the REST API, a release approved and one rejected, a clean stop."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.hub.registry import Registry
from fscore.volume import open_volume
from fscore_airflow.demo.follow import Followed, Follower
from fscore_airflow.demo.summary import reports
from fscore_airflow.standalone.api import ApiError, poll
from fscore_airflow.standalone.home import Home, project_root
from fscore_airflow.standalone.supervisor import Supervisor

pytestmark = [pytest.mark.airflow, pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow-system")]
CLOUDS = ("cloud-a", "cloud-b")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything of this Airflow lies."""
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="module")
def supervisor(root: Path) -> Iterator[Supervisor]:
    """A running Airflow with two clouds; stopped at the end, and nothing may be left of it."""
    connections = []
    for cloud in CLOUDS:
        url = f"sqlite3://{root / cloud}.db"
        format_volume(url, cloud, storage="file", bucket=f"{root / cloud}/", trash_days=0)
        extra = {"cache_dir": str(root / "cache" / cloud), "regions": [CLOUDS[1]] if cloud == CLOUDS[0] else []}
        connections.append({"conn_id": cloud, "conn_type": "fscore", "host": url, "extra": json.dumps(extra)})
    said: list[str] = []
    home = Home(root / "airflow", project_root() / "dags", project_root() / "plugins")
    running = Supervisor(home, connections=connections, say=said.append)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            patch.delenv(name)
        patch.setenv("FSCORE_WORK_DIR", str(root / "work"))
        running.start()
    yield running
    assert set(running.health().values()) == {"healthy"}
    assert running.stop()
    assert running.running() == {}
    assert running.leftovers() == []
    assert said[-1] == "Airflow is stopped"
    assert not list((root / "work").rglob("*.*")), "workspaces are removed"


def form(source: Path, model: str, **more: Any) -> dict[str, Any]:
    """What the UI would send."""
    return {
        "source": str(source),
        "team": "ai",
        "model": model,
        "purpose": "system test",
        "volume": CLOUDS[0],
        "approvers": ["releaser"],
        "alias": "production",
        **more,
    }


def test_secrets_are_private(supervisor: Supervisor) -> None:
    """Made once, and readable by the owner only."""
    home = supervisor.home.path
    for name in ("airflow.cfg", "secrets.json", "passwords.json", "standalone.json"):
        assert (home / name).stat().st_mode & 0o777 == 0o600
    assert set(supervisor.home.passwords()) == {"admin", "releaser", "viewer"}


def test_a_bad_form_is_refused_by_rest(supervisor: Supervisor) -> None:
    """The schema's message comes back, and no run exists."""
    api = supervisor.api()
    api.wait_for_dag("model_release")
    with pytest.raises(ApiError, match="team") as refusal:
        api.trigger("model_release", form(Path("/m"), "m", team="../x"))
    assert refusal.value.status == 400


def test_a_release_from_source_to_warm_caches_and_a_rejection(
    supervisor: Supervisor, root: Path, mini: Callable[[str], Path]
) -> None:
    """Both through REST: one is approved and ends in both clouds, one is rejected and leaves its reason."""
    api, releaser, viewer = supervisor.api(), supervisor.api("releaser"), supervisor.api("viewer")
    api.wait_for_dag("model_release")
    source = shutil.copytree(mini("llama"), root / "llama")
    good = Followed("good", "model_release", api.trigger("model_release", form(source, "llama", tp=2, pp=2)))
    bad = Followed("bad", "model_release", api.trigger("model_release", form(mini("qwen2"), "qwen", regions=[])))

    def parked() -> dict[str, Any]:
        return {item["task_instance"]["dag_run_id"]: item for item in releaser.pending()}

    assert poll(lambda: bad.run_id in parked(), 90, interval=0.5)
    request = parked()[bad.run_id]
    assert "ai/qwen@1" in request["subject"]
    assert next(reports(api, _refreshed(api, bad), "push"))["digest"] in request["body"]
    assert [user["id"] for user in request["assigned_users"]] == ["releaser"]
    with pytest.raises(ApiError) as refusal:
        viewer.respond(request["task_instance"], "Approve", {"reason": "me"})
    assert refusal.value.status == 403
    assert poll(lambda: _state(api, bad) == "deferred", 30)
    # Answered in the first moments of a deferral, Airflow 3.3 may fail the task and ask again.
    time.sleep(2.5)
    releaser.respond(request["task_instance"], "Reject", {"reason": "wrong tokenizer"})
    said: list[str] = []
    Follower(api, releaser, said.append).follow([good, bad], timeout=180)

    assert good.failed == bad.failed == []
    assert good.state == bad.state == "success"
    states = {task["task_id"]: task["state"] for task in bad.tasks}
    assert states["publish"] == states["warm"] == "skipped"
    assert states["cleanup"] == "success"
    assert next(reports(api, bad, "approve"))["reason"] == "wrong tokenizer"
    push = next(reports(api, good, "push"))
    assert push["bytes_new"] + push["bytes_shared"] == push["bytes_total"] > 0
    assert [split["layout"] for split in reports(api, good, "split")] == ["tp2-pp2"]
    assert {warm["volume"] for warm in reports(api, good, "warm")} == set(CLOUDS)
    assert all(warm["coverage"] == 1.0 for warm in reports(api, good, "warm"))
    _check_clouds(root, push["digest"])


def _refreshed(api: Any, run: Followed) -> Followed:
    run.tasks = api.tasks(run.dag_id, run.run_id)
    return run


def _state(api: Any, run: Followed) -> str:
    tasks = api.tasks(run.dag_id, run.run_id)
    return next(str(task["state"]) for task in tasks if task["task_id"] == "approve")


def _check_clouds(root: Path, digest: str) -> None:
    for cloud in CLOUDS:
        with open_volume(f"sqlite3://{root / cloud}.db") as volume:
            info = Registry(volume).show("ai/llama:production", "releaser")
            assert (info.state, info.digest, info.version) == ("published", digest, 1)
            assert [layout.name for layout in info.layouts] == ["tp2-pp2"]
            assert volume.files.exists("/models/ai/llama/production/config.json")
            assert volume.files.exists("/models/ai/llama/1+tp2-pp2/tp1-pp1/config.json")
            assert fsck(volume).problems == []
    with open_volume(f"sqlite3://{root / CLOUDS[0]}.db") as volume:
        rejected = Registry(volume).show("ai/qwen@1", "releaser")
        assert rejected.state == "rejected"
        assert rejected.approval is not None
        assert (rejected.approval.by, rejected.approval.reason) == ("releaser", "wrong tokenizer")
        assert not volume.files.exists("/.fscore/drafts/ai/qwen/1")
