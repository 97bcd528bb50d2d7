"""Follows runs through REST: a line for each task that finishes, and the approval as the releaser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fscore.runtime.clock import Clock, SystemClock
from fscore_airflow.standalone.api import FINISHED_RUN, FINISHED_TASK, AirflowApi, ApiError

PARKED = frozenset({"deferred", "awaiting_input"})
_SETTLE_S = 2.5
"""An answer in the first moments of a deferral can race the scheduler (the gate would retry and read the ledger)."""


@dataclass
class Followed:
    """One run, and what of it was already told."""

    name: str
    dag_id: str
    run_id: str
    state: str = "queued"
    told: set[tuple[str, int]] = field(default_factory=set)
    parked_at: float | None = None
    tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """Tasks that failed by themselves."""
        return sorted(task["task_id"] for task in self.tasks if task["state"] == "failed")

    def seconds(self) -> dict[str, float]:
        """Task -> time it ran, mapped ones added up, in the order they ended."""
        found: dict[str, float] = {}
        done = [task for task in self.tasks if task.get("duration") is not None]
        for task in sorted(done, key=lambda item: item["end_date"] or ""):
            found[task["task_id"]] = found.get(task["task_id"], 0.0) + float(task["duration"])
        return found


class Follower:
    """Watches runs until all have ended."""

    def __init__(
        self,
        api: AirflowApi,
        approver: AirflowApi | None,
        say: Callable[[str], None],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._api = api
        self._approver = approver
        self._say = say
        self._clock = clock or SystemClock()

    def follow(self, runs: list[Followed], *, timeout: float = 600.0) -> None:
        """Until every run has ended; raises TimeoutError."""
        deadline = self._clock.monotonic() + timeout
        while True:
            for run in runs:
                if run.state not in FINISHED_RUN:
                    self._look(run)
            if all(run.state in FINISHED_RUN for run in runs):
                return
            if self._clock.monotonic() > deadline:
                raise TimeoutError(f"{', '.join(run.run_id for run in runs)} did not end in {timeout:.0f} s")
            self._clock.sleep(0.5)

    def _look(self, run: Followed) -> None:
        state = str(self._api.run(run.dag_id, run.run_id)["state"])
        run.tasks = self._api.tasks(run.dag_id, run.run_id)
        for task in run.tasks:
            key = (task["task_id"], task["map_index"])
            if task["state"] in FINISHED_TASK and key not in run.told:
                run.told.add(key)
                self._tell(run, task)
        self._approve(run)
        run.state = state

    def _tell(self, run: Followed, task: dict[str, Any]) -> None:
        label = task.get("rendered_map_index") or (f"[{task['map_index']}]" if task["map_index"] >= 0 else "")
        took = "" if task.get("duration") is None else f"{float(task['duration']):5.1f} s"
        self._say(f"  {run.name:<12} {task['task_id']:<10} {task['state']:<8} {took:>8}  {label}".rstrip())

    def _approve(self, run: Followed) -> None:
        gates = [task for task in run.tasks if task["task_id"] == "approve" and task["state"] in PARKED]
        if not gates or self._approver is None:
            run.parked_at = None
            return
        now = self._clock.monotonic()
        run.parked_at = run.parked_at or now
        if now - run.parked_at < _SETTLE_S:
            return
        asked = [item for item in self._approver.pending() if item["task_instance"]["dag_run_id"] == run.run_id]
        for item in asked:
            try:
                self._approver.respond(item["task_instance"], "Approve", {"reason": "checked in the demo"})
            except ApiError as error:
                # Somebody else was first: that decision stands.
                if error.status != 409:
                    raise
            self._say(f"  {run.name:<12} approved as {self._approver.username}: {item['subject']}")


def instant(text: str) -> datetime:
    """A time stamp of the REST API."""
    return datetime.fromisoformat(text)
