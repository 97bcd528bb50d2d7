"""Every night: bring each published version to each region that lacks it. A second run moves nothing."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from fscore_airflow.operators.regions import PlanSync, SyncVersion

with DAG(
    "nightly_sync",
    description="Published versions to the regions that lack them",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "volume": Param("fscore_default", type="string", minLength=1, title="Home volume"),
        "regions": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Regions",
            description="Connections of the volumes to copy to; none given: those of the home connection.",
        ),
    },
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "owner": "fscore"},
    tags=["fscore", "sync"],
    doc_md=__doc__,
):
    plan = PlanSync(task_id="plan", volume="{{ params.volume }}")
    SyncVersion.partial(
        task_id="sync",
        volume="{{ params.volume }}",
        pool="xcloud",
        map_index_template="{{ label }}",
    ).expand_kwargs(plan.output)
