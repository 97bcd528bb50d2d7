"""What happened, in figures: from the tasks' own reports, as XCom keeps them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fscore_airflow.demo.follow import Followed
from fscore_airflow.demo.world import Release
from fscore_airflow.standalone.api import AirflowApi, ApiError

_DIM1 = ("o_proj.weight", "down_proj.weight", "attention.output.dense.weight", "output.dense.weight")
_MB = 1e6


def reports(api: AirflowApi, run: Followed, task_id: str) -> Iterator[dict[str, Any]]:
    """Reports of every instance of a task that succeeded."""
    for task in run.tasks:
        if task["task_id"] == task_id and task["state"] == "success":
            yield dict(api.xcom(run.dag_id, run.run_id, task_id, map_index=task["map_index"]))


def show_release(api: AirflowApi, release: Release, run: Followed, say: Callable[[str], None]) -> bool:
    """One release, with its bars; False when a bar was not met."""
    push = next(reports(api, run, "push"))
    say("")
    say(f"{release.name}: {push['ref']}  {push['digest']}")
    if release.changed:
        more = " ..." if len(release.changed) > 3 else ""
        say(f"  changed tensors   {len(release.changed)}: {', '.join(release.changed[:3])}{more}")
    say(f"  content           {push['files']} files, {push['tensors']} tensors, {_mb(push['bytes_total'])}")
    say(f"  push              {_mb(push['bytes_new'])} new, {_mb(push['bytes_shared'])} shared ({_share(push)})")
    checks = next(reports(api, run, "validate"))
    say(f"  validation        {checks['checks']} checks, {len(checks['warnings'])} warnings")
    met = _bar(say, "new bytes", push["bytes_new"], 0.11 * push["bytes_total"] + _MB) if release.changed else True
    for split in reports(api, run, "split"):
        say(
            f"  split {split['layout']:<11} {_mb(split['bytes_new'])} rewritten, {_mb(split['bytes_shared'])} shared"
            f" ({split['zero_copy']:.1%} zero-copy), {len(split['ranks'])} ranks"
        )
        tensor_parallel = not split["layout"].startswith("tp1-")
        limit = (dim1_bytes(release.source) if tensor_parallel else 0) + _MB
        met &= _bar(say, f"added by {split['layout']}", split["bytes_new"], limit)
    decision = next(reports(api, run, "approve"))
    say(f"  approved by       {decision['by']}: {decision['reason'] or '-'}")
    for sync in reports(api, run, "sync"):
        say(f"  copied to         {sync['region']}: {_sync(sync)}")
    for warm in reports(api, run, "warm"):
        say(f"  warm in           {warm['volume']}: {_mb(warm['bytes_total'])}, coverage {warm['coverage']:.0%}")
    say(
        "  seconds           " + ", ".join(f"{task} {took:.1f}" for task, took in run.seconds().items() if took >= 0.05)
    )
    return met


def show_failure(api: AirflowApi, run: Followed, say: Callable[[str], None]) -> None:
    """Why a run failed: the last lines of the logs of the tasks that did."""
    say("")
    say(f"{run.name}: {run.dag_id} {run.run_id} ended as {run.state}")
    for task in run.tasks:
        if task["state"] != "failed":
            continue
        try:
            log = api.log(
                run.dag_id, run.run_id, task["task_id"], attempt=task["try_number"], map_index=task["map_index"]
            )
        except ApiError as error:
            log = str(error)
        say(f"  {task['task_id']}:")
        for line in log.splitlines()[-12:]:
            say(f"    {line[:300]}")


def dim1_bytes(source: Path) -> int:
    """Bytes of the tensors that tensor parallelism cuts across rows: those must be rewritten."""
    total = 0
    for file in source.rglob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__" and name.endswith(_DIM1):
                begin, end = entry["data_offsets"]
                total += end - begin
    return total


def _bar(say: Callable[[str], None], what: str, value: float, limit: float) -> bool:
    met = value <= limit
    say(f"    bar: {what} {_mb(value)} <= {_mb(limit)}: {'met' if met else 'MISSED'}")
    return met


def _share(push: dict[str, Any]) -> str:
    return f"{push['bytes_shared'] / push['bytes_total']:.1%}" if push["bytes_total"] else "-"


def _sync(sync: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_mb(value)}" for key, value in sync.items() if key.startswith("bytes_"))


def _mb(value: float) -> str:
    return f"{value / _MB:,.1f} MB"
