"""A task that is killed in the middle: the next try goes on, and the store keeps no half version."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fscore.hub.registry import Registry
from fscore.volume import open_volume
from fscore_airflow.demo.checkpoints import write_checkpoint
from fscore_airflow.operators.publish import PushModel
from tests.airflow.conftest import ROOT, Clouds

pytestmark = pytest.mark.airflow

CHILD = """
import json, sys
from fscore_airflow.operators.publish import PushModel
class Run:
    dag_id, run_id, triggering_user_name = "test", "manual__1", "trainer"
PushModel(task_id="push", **json.loads(sys.argv[1])).execute({"dag_run": Run()})
"""


class Run:
    """As much of a DAG run as the operator looks at."""

    dag_id, run_id, triggering_user_name = "test", "manual__1", "trainer"


def stored(clouds: Clouds) -> int:
    """Bytes of the first cloud's objects."""
    return sum(path.stat().st_size for path in (clouds.root / clouds.home).rglob("*") if path.is_file())


def test_a_killed_push_is_gone_on_with(clouds: Clouds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were complete when the process died are not uploaded again."""
    model = write_checkpoint(tmp_path / "model", "llama", nbytes=40_000_000, shard_bytes=8_000_000)
    source = {"uri": str(model), "kind": "local", "path": str(model), "revision": ""}
    arguments: dict[str, Any] = {
        "volume": clouds.home,
        "acquired": {"source": source},
        "ref": "ai/killed",
        "uploader": "trainer",
    }
    slow = {"conn_type": "fscore", "host": clouds.url(clouds.home), "extra": {"upload_limit": 20_000_000}}
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(arguments)],
        env={**env, f"AIRFLOW_CONN_{clouds.home.upper()}": json.dumps(slow)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while stored(clouds) < 24_000_000 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child.poll() is None, child.communicate()[1].decode()
    child.send_signal(signal.SIGKILL)
    child.communicate()

    with open_volume(clouds.url(clouds.home)) as volume:
        assert [info.state for info in Registry(volume).versions("ai/killed", "trainer")] == ["draft"]
        assert not volume.files.exists("/models/ai/killed/1")
    report = PushModel(task_id="push", **arguments).execute({"dag_run": Run()})
    assert report["version"] == 1
    assert report["state"] == "staged"
    assert 0 < report["bytes_new"] < report["bytes_total"] - 8_000_000
