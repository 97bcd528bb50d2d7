"""A training run's checkpoints: wait for a complete one, validate it, push it as a draft version; each one once.

With FSCORE_WATCH set to the watched directory the DAG waits for the next checkpoint as soon as one is in.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from fscore_airflow.operators.acquire import ValidateModel
from fscore_airflow.operators.publish import PushModel
from fscore_airflow.operators.workspace import PrepareWorkspace, RemoveWorkspace
from fscore_airflow.sensors.checkpoint import CheckpointSensor

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
WATCH = os.environ.get("FSCORE_WATCH")

with DAG(
    "checkpoint_ingest",
    description="Complete checkpoints become draft versions",
    schedule="@continuous" if WATCH else None,
    catchup=False,
    max_active_runs=1,
    params={
        "directory": Param(**({"default": WATCH} if WATCH else {}), type="string", title="Watched directory"),
        "team": Param(os.environ.get("FSCORE_WATCH_TEAM", "training"), type="string", pattern=NAME, title="Team"),
        "model": Param(os.environ.get("FSCORE_WATCH_MODEL", "checkpoint"), type="string", pattern=NAME, title="Model"),
        "purpose": Param("training checkpoint", type="string", title="Purpose"),
        "volume": Param("fscore_default", type="string", minLength=1, title="Volume"),
        "quiesce": Param(30, type="number", minimum=0, title="Seconds of quiet"),
        "allow_pickle": Param(False, type="boolean", title="Allow pickles"),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30), "owner": "fscore"},
    tags=["fscore", "checkpoint"],
    doc_md=__doc__,
):
    wait = CheckpointSensor(
        task_id="wait",
        directory="{{ params.directory }}",
        volume="{{ params.volume }}",
        ref="{{ params.team }}/{{ params.model }}",
        quiesce="{{ params.quiesce }}",
    )
    workspace = PrepareWorkspace(task_id="workspace").as_setup()
    validate = ValidateModel(
        task_id="validate",
        acquired=wait.output,
        workspace=workspace.output,
        allow_pickle="{{ params.allow_pickle }}",
    )
    push = PushModel(
        task_id="push",
        volume="{{ params.volume }}",
        acquired=wait.output,
        ref="{{ params.team }}/{{ params.model }}",
        validation=validate.output["result"],
        purpose="{{ params.purpose }}",
        allow_pickle="{{ params.allow_pickle }}",
    )
    cleanup = RemoveWorkspace(task_id="cleanup").as_teardown(setups=workspace)
    chain(wait, workspace, validate, push, cleanup)
