"""One throw-away Airflow for this folder: the environment is set before anything imports airflow."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(tempfile.mkdtemp(prefix="fscore-airflow-"))

for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
_BUNDLES = {"dags-folder": ROOT / "dags", "tests": Path(__file__).parent / "dags"}
_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
os.environ.update(
    {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [{"name": name, "classpath": _LOCAL, "kwargs": {"path": str(path)}} for name, path in _BUNDLES.items()]
        ),
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-" + "0" * 48,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "GX_ANALYTICS_ENABLED": "false",
        "FSCORE_WORK_DIR": str(HOME / "work"),
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder share one database, so one worker runs them; Airflow's own warnings are not ours."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group("airflow"))
            item.add_marker(pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"))


@pytest.fixture(scope="session")
def airflow_db() -> Iterator[Path]:
    """A migrated database with the pools of the DAGs; removed at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.models.pool import Pool
        from airflow.utils import db

        from fscore_airflow.standalone.supervisor import POOLS

        db.initdb()
        for name, slots in POOLS.items():
            Pool.create_or_update_pool(name, slots=slots, description="", include_deferred=False)
    yield HOME
    shutil.rmtree(HOME, ignore_errors=True)


@dataclass(frozen=True)
class Clouds:
    """Two volumes that stand for two clouds, and the connections that name them."""

    home: str
    region: str
    root: Path

    def url(self, name: str) -> str:
        """META-URL of one of them."""
        return f"sqlite3://{self.root / name}.db"


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    """Fresh volumes `cloud_a` and `cloud_b`; both must be sound at the end."""
    from fscore.admin.format import format_volume
    from fscore.admin.fsck import fsck
    from fscore.volume import open_volume

    pair = Clouds("cloud_a", "cloud_b", tmp_path / "clouds")
    pair.root.mkdir()
    for name in (pair.home, pair.region):
        format_volume(
            pair.url(name), name.replace("_", "-"), storage="file", bucket=f"{pair.root / name}/", trash_days=0
        )
        extra = {"cache_dir": str(pair.root / f"{name}-cache"), "durable": False}
        if name == pair.home:
            extra["regions"] = [pair.region]
        connection = {"conn_type": "fscore", "host": pair.url(name), "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
    yield pair
    for name in (pair.home, pair.region):
        with open_volume(pair.url(name)) as volume:
            assert fsck(volume).problems == []


@pytest.fixture
def run_dag(airflow_db: Path) -> Callable[..., Any]:
    """Run a DAG of a bundle to its end in this process; returns the finished run."""
    from airflow.dag_processing.dagbag import DagBag

    def run(dag_id: str, **conf: Any) -> Any:
        bags = (DagBag(str(path), bundle_name=name) for name, path in _BUNDLES.items())
        dag = next(bag.dags[dag_id] for bag in bags if dag_id in bag.dags)
        return dag.test(run_conf=conf)

    return run


def results(run: Any, task_id: str) -> list[Any]:
    """Return values of a task's instances."""
    found = sorted((ti for ti in run.get_task_instances() if ti.task_id == task_id), key=lambda ti: ti.map_index)
    return [ti.xcom_pull(task_ids=task_id, map_indexes=ti.map_index) for ti in found if str(ti.state) == "success"]
