"""The gate with one step behind it, for tests."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param

from fscore_airflow.operators.approval import ApprovalGate

with DAG(
    "gate_only",
    schedule=None,
    params={
        "volume": Param(type="string"),
        "ref": Param(type="string"),
        "digest": Param(type="string"),
        "uploader": Param(type="string"),
    },
):
    gate = ApprovalGate(
        task_id="approve",
        volume="{{ params.volume }}",
        ref="{{ params.ref }}",
        digest="{{ params.digest }}",
        uploader="{{ params.uploader }}",
        subject="Release {{ params.ref }}?",
        poll=0.1,
    )
    gate >> EmptyOperator(task_id="publish")
