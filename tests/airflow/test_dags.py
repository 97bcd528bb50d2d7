"""DAG files: they import clean and light, serialize, and do not change from one parse to the next."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
NAMES = {"model_release", "nightly_sync", "cache_warmup", "checkpoint_ingest"}
HEAVY = ("fscore", "great_expectations", "pandas", "numpy", "huggingface_hub", "kubernetes", "obstore", "redis")

PROBE = """
import json, sys, time
import airflow.sdk, airflow.timetables.base, airflow.providers.standard.operators.hitl
began = time.process_time()
before = set(sys.modules)
import runpy
runpy.run_path(sys.argv[1])
took = time.process_time() - began
print(json.dumps({"took": took, "new": sorted({name.split(".")[0] for name in set(sys.modules) - before})}))
"""


@pytest.fixture(scope="module")
def bag(airflow_db: Path) -> Any:
    """Every DAG of the folder, parsed once."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(DAGS))


def test_every_dag_imports(bag: Any) -> None:
    """No import errors, and nothing but what we ship."""
    assert bag.import_errors == {}
    assert set(bag.dags) == NAMES


def test_serialization_keeps_every_task(bag: Any) -> None:
    """What the scheduler reads back is what the file says."""
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in bag.dags.values():
        encoded = DagSerialization.to_dict(dag)
        again = DagSerialization.from_dict(json.loads(json.dumps(encoded)))
        assert set(again.task_ids) == set(dag.task_ids)
        assert type(again.timetable).__name__ == type(dag.timetable).__name__
        for task in dag.tasks:
            assert again.get_task(task.task_id).upstream_task_ids == task.upstream_task_ids
    warmup = bag.dags["cache_warmup"]
    stored = DagSerialization.from_dict(DagSerialization.to_dict(warmup)).timetable
    assert stored.serialize() == warmup.timetable.serialize()


def test_two_parses_make_one_version(bag: Any) -> None:
    """A file that differs at each parse would make a DAG version a minute."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.serialized_objects import DagSerialization

    second = DagBag(str(DAGS))
    for name, dag in bag.dags.items():
        first_hash = SerializedDagModel.hash(DagSerialization.to_dict(dag))
        assert SerializedDagModel.hash(DagSerialization.to_dict(second.dags[name])) == first_hash


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_dag_file_is_light(name: str, tmp_path: Path) -> None:
    """Parsing loads neither the core nor anything heavy, and takes less than a second."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(DAGS / f"{name}.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not set(HEAVY) & set(found["new"])
    assert found["took"] < 1.0


def test_workspaces_are_torn_down(bag: Any) -> None:
    """What a setup makes, a teardown removes, also when a step in between fails."""
    for name in ("model_release", "checkpoint_ingest"):
        dag = bag.dags[name]
        assert dag.get_task("workspace").is_setup
        assert dag.get_task("cleanup").is_teardown


def test_tasks_retry(bag: Any) -> None:
    """Every step may be tried again; the gate needs it where an answer races the scheduler."""
    for dag in bag.dags.values():
        for task in dag.tasks:
            assert task.retries >= 1, f"{dag.dag_id}.{task.task_id}"


def test_pools_exist(bag: Any) -> None:
    """A task in a pool that nobody made would never run."""
    from fscore_airflow.standalone.supervisor import POOLS

    used = {task.pool for dag in bag.dags.values() for task in dag.tasks}
    assert used <= {*POOLS, "default_pool"}


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"team": "../x"}, "team"),
        ({"model": ""}, "model"),
        ({"tp": 0}, "tp"),
        ({"layouts": ["2x2"]}, "layouts"),
        ({"regions": "cloud_b"}, "regions"),
        ({"source": None}, "source"),
        ({"approvers": [""]}, "approvers"),
    ],
)
def test_the_form_refuses_bad_input(bag: Any, form: dict[str, Any], says: str) -> None:
    """The schema says no before a run exists."""
    from airflow.sdk.exceptions import ParamValidationError

    params = copy.deepcopy(bag.dags["model_release"].params)
    params.update({"source": "/m", "team": "t", "model": "m"})
    assert params.validate()["tp"] == 1

    def submit() -> None:
        params.update(form)
        params.validate()

    with pytest.raises(ParamValidationError, match=says):
        submit()
