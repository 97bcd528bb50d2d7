"""The demo's second act: the nightly sync twice, the warm-up, the checkpoint ingest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fscore_airflow.demo.follow import Followed, Follower
from fscore_airflow.demo.summary import reports, show_failure
from fscore_airflow.demo.world import CLOUDS, World
from fscore_airflow.standalone.api import AirflowApi

Say = Callable[[str], None]


def run_others(api: AirflowApi, world: World, number: int, say: Say) -> bool:
    """Every other DAG once, the sync twice; False when one failed or moved what it should not."""
    say("")
    first = _run(api, "nightly_sync", {"volume": CLOUDS[0]}, say)
    second = _run(api, "nightly_sync", {"volume": CLOUDS[0]}, say)
    warm = _run(api, "cache_warmup", {"volume": CLOUDS[1]}, say)
    watched = world.checkpoint(number)
    ingest = _run(
        api,
        "checkpoint_ingest",
        {"volume": CLOUDS[0], "directory": str(watched), "team": "demo", "model": "training", "quiesce": 2},
        say,
    )
    runs = [first, second, warm, ingest]
    for run in runs:
        if run.state != "success" or run.failed:
            show_failure(api, run, say)
            return False
    again = list(reports(api, second, "sync"))
    say("")
    for copied in reports(api, first, "sync"):
        say(f"nightly_sync: {copied['ref']} to {copied['region']}")
    say(f"nightly_sync again: {len(again)} versions moved")
    coverage = next(reports(api, warm, "coverage"))
    say(f"cache_warmup in {CLOUDS[1]}: {len(coverage['models'])} models, coverage {coverage['coverage']:.0%}")
    pushed: dict[str, Any] = next(reports(api, ingest, "push"))
    say(f"checkpoint_ingest: {pushed['ref']} ({pushed['state']}), {pushed['bytes_total'] / 1e6:.1f} MB")
    return not again


def _run(api: AirflowApi, dag_id: str, form: dict[str, Any], say: Say) -> Followed:
    api.wait_for_dag(dag_id)
    run_id = api.trigger(dag_id, form)
    say(f"{dag_id} {run_id}")
    run = Followed(dag_id, dag_id, run_id)
    Follower(api, None, say).follow([run])
    return run
