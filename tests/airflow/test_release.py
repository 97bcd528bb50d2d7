"""model_release in this process: a release with layouts, what a failed validation leaves, what the form refuses."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from fscore.domain.errors import HubError
from fscore.hub.approval import decide
from fscore.hub.registry import Registry
from fscore.volume import open_volume
from fscore_airflow.operators.acquire import AcquireModel, ValidateModel
from fscore_airflow.operators.release import CheckRequest
from tests.airflow.conftest import HOME, Clouds, results

pytestmark = pytest.mark.airflow
RunDag = Callable[..., Any]


class Run:
    """As much of a DAG run as the operators look at."""

    dag_id = "test"
    run_id = "manual__1"
    triggering_user_name = "trainer"


def context(**params: Any) -> dict[str, Any]:
    """What a task finds around it."""
    return {"dag_run": Run(), "params": params}


def form(clouds: Clouds, source: Path, **more: Any) -> dict[str, Any]:
    """What the UI sends for a small model."""
    return {"source": str(source), "team": "ai", "model": "m", "volume": clouds.home, "purpose": "test", **more}


def approving(clouds: Clouds, ref: str) -> threading.Thread:
    """Approve a version on the command line as soon as it waits."""

    def approve() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with open_volume(clouds.url(clouds.home), session=False) as volume:
                try:
                    if Registry(volume).show(ref, "releaser").state == "pending":
                        decide(volume, ref, "approve", by="releaser", reason="fine")
                        return
                except HubError:
                    pass
            time.sleep(0.2)

    thread = threading.Thread(target=approve)
    thread.start()
    return thread


def test_a_release_with_a_layout(run_dag: RunDag, clouds: Clouds, mini: Callable[[str], Path]) -> None:
    """Every step reports; version, layouts and alias are in both clouds; the workspace is gone."""
    thread = approving(clouds, "ai/m@1")
    run = run_dag("model_release", **form(clouds, mini("llama"), tp=2, layouts=["tp1-pp2"], alias="production"))
    thread.join()
    assert str(run.state) == "success"
    (push,) = results(run, "push")
    assert {"version", "digest", "files", "tensors", "bytes_total", "bytes_new", "bytes_shared"} <= set(push)
    assert [split["layout"] for split in results(run, "split")] == ["tp1-pp2", "tp2-pp1"]
    assert results(run, "approve")[0]["by"] == "releaser"
    assert [warm["coverage"] for warm in results(run, "warm")] == [1.0, 1.0]
    for ti in run.get_task_instances():
        values = [results(run, ti.task_id)]
        assert len(json.dumps(values, default=str)) < 16_000, "reports are small"
    for name in (clouds.home, clouds.region):
        with open_volume(clouds.url(name)) as volume:
            info = Registry(volume).show("ai/m:production", "trainer")
            assert (info.version, info.state, info.digest) == (1, "published", push["digest"])
            assert {layout.name for layout in info.layouts} == {"tp2-pp1", "tp1-pp2"}
    assert not list((HOME / "work").rglob("validation.json"))


def test_the_same_content_again_is_the_same_version(
    run_dag: RunDag, clouds: Clouds, mini: Callable[[str], Path]
) -> None:
    """A second run moves nothing and asks nobody."""
    conf = form(clouds, mini("llama"), regions=[], warm=False)
    thread = approving(clouds, "ai/m@1")
    first = run_dag("model_release", **conf)
    thread.join()
    again = run_dag("model_release", **conf)
    assert str(first.state) == str(again.state) == "success"
    assert results(again, "push")[0]["bytes_new"] == 0
    assert results(again, "push")[0]["version"] == 1
    assert results(again, "approve") == results(first, "approve")


def test_a_failed_validation_ends_the_run_before_anything_is_stored(
    run_dag: RunDag, clouds: Clouds, mini: Callable[[str], Path], tmp_path: Path
) -> None:
    """No version, no workspace, and the run says failed."""
    broken = shutil.copytree(mini("llama"), tmp_path / "broken")
    shard = max(broken.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    run = run_dag("model_release", **form(clouds, broken))
    assert str(run.state) == "failed"
    states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
    assert states["validate"] == "failed"
    assert states["publish"] == "upstream_failed"
    assert states["cleanup"] == "success"
    with open_volume(clouds.url(clouds.home)) as volume:
        assert Registry(volume).models("trainer") == []


def validate(source: Path, workspace: Path, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Acquire and validate without a DAG."""
    acquired = AcquireModel(task_id="a", uri=str(source), workspace=str(workspace), allow_pickle=allow_pickle).execute(
        context()
    )
    task = ValidateModel(task_id="v", acquired=acquired, workspace=str(workspace), allow_pickle=allow_pickle)
    return task.execute(context())


def test_a_refusal_gives_its_reasons(mini: Callable[[str], Path], tmp_path: Path) -> None:
    """A lying index and a pickle without safetensors: one line that names them, and no retry."""
    missing = shutil.copytree(mini("llama"), tmp_path / "missing")
    max(missing.glob("*.safetensors")).unlink()
    with pytest.raises(AirflowFailException, match="model-00004-of-00004"):
        validate(missing, tmp_path)
    pickled = shutil.copytree(mini("llama"), tmp_path / "pickled")
    (pickled / "extra").mkdir()
    (pickled / "extra" / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(AirflowFailException, match=r"pytorch_model\.bin"):
        validate(pickled, tmp_path)


def test_a_good_model_passes_and_its_result_is_kept(mini: Callable[[str], Path], tmp_path: Path) -> None:
    """The whole result lies where the push takes it from."""
    report = validate(mini("llama"), tmp_path)
    assert report["success"]
    kept = json.loads(Path(report["result"]).read_bytes())
    assert kept["digest"] == report["digest"]
    assert len(kept["checks"]) == report["checks"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"regions": ["cloud_a"]}, "the volume of the release itself"),
        ({"regions": ["nowhere"]}, "nowhere"),
        ({"approvers": ["trainer"]}, "cannot approve"),
        ({"alias": "3"}, "alias"),
        ({"base": "no slash"}, "no slash"),
        ({"layouts": ["tp2"]}, "tp2"),
        ({"tp": 0, "pp": -1}, "at least 1"),
    ],
)
def test_a_request_that_cannot_work_ends_at_once(clouds: Clouds, more: dict[str, Any], says: str) -> None:
    """What no single field can know is checked before anything expensive."""
    request = {**form(clouds, Path("/m")), "tp": 1, "pp": 1, "ep": 1, "regions": None, **more}
    with pytest.raises(Exception, match=says) as refusal:
        CheckRequest(task_id="request").execute(context(**request))
    assert "\n" not in str(refusal.value)


def test_a_request_fills_in_what_was_left_out(clouds: Clouds) -> None:
    """Regions of the connection, the layout of TP and PP, who uploads."""
    request = {
        **form(clouds, Path("/m")),
        "tp": 2,
        "pp": 4,
        "ep": 1,
        "regions": None,
        "layouts": ["tp2-pp4", "tp8-pp1"],
    }
    found = CheckRequest(task_id="request").execute(context(**request))
    assert found["regions"] == [clouds.region]
    assert found["layouts"] == ["tp2-pp4", "tp8-pp1"]
    assert found["warm"] == [clouds.home, clouds.region]
    assert found["uploader"] == "trainer"
    assert found["ref"] == "ai/m"
