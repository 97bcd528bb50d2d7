"""Before the cluster grows: fill this worker's cache with the released models, and say how much of them is there.

A manual run with `ref` warms one model at once.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from fscore_airflow.operators.regions import WarmVersion
from fscore_airflow.operators.warmup import PlanWarmUp, ReportWarmUp
from fscore_airflow.timetables import BeforeScaleUp

SCALE_UP = os.environ.get("FSCORE_SCALE_UP", "08:30")
ZONE = os.environ.get("FSCORE_SCALE_UP_ZONE", "UTC")
LEAD_MINUTES = int(os.environ.get("FSCORE_SCALE_UP_LEAD_MINUTES", "45"))

with DAG(
    "cache_warmup",
    description="Released models into the cache before the scale-up",
    schedule=BeforeScaleUp(SCALE_UP, LEAD_MINUTES, ZONE),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    params={
        "volume": Param("fscore_default", type="string", minLength=1, title="Volume"),
        "ref": Param(
            None,
            type=["null", "string"],
            title="Model",
            description="team/model, with @version or :alias; none given: every model.",
        ),
        "alias": Param("production", type="string", minLength=1, title="Alias that names the version"),
        "rank": Param(None, type=["null", "string"], title="Rank", description="tp0-pp1; none given: all files."),
        "least": Param(1.0, type="number", minimum=0, maximum=1, title="Least coverage"),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1), "owner": "fscore"},
    tags=["fscore", "cache"],
    doc_md=__doc__,
):
    plan = PlanWarmUp(
        task_id="plan",
        volume="{{ params.volume }}",
        ref="{{ params.ref or '' }}",
        alias="{{ params.alias }}",
        rank="{{ params.rank or '' }}",
    )
    warm = WarmVersion.partial(
        task_id="warm",
        volume="{{ params.volume }}",
        pool="warm",
        map_index_template="{{ label }}",
    ).expand_kwargs(plan.output)
    ReportWarmUp(task_id="coverage", reports=warm.output, least="{{ params.least }}")
