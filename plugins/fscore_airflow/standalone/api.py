"""A small client of Airflow's public REST API: standard library only, one user per client."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeAlias

from fscore.runtime.clock import Clock, SystemClock

Json: TypeAlias = Any

FINISHED_RUN = frozenset({"success", "failed"})
FINISHED_TASK = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


class ApiError(Exception):
    """Airflow answered with an error status, or not at all (status 0)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"Airflow answered {status}: {detail}" if status else f"Airflow does not answer: {detail}")
        self.status = status


class AirflowApi:
    """REST as one user. Logs in at the first call and again when the token has expired."""

    def __init__(self, base_url: str, username: str, password: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.username = username
        self._password = password
        self._token: str | None = None

    def call(self, method: str, path: str, body: object | None = None, *, timeout: float = 30.0) -> Json:
        """One request below /api/v2; returns the decoded JSON."""
        if self._token is None:
            self._login()
        try:
            return self._send(method, f"/api/v2{path}", body, timeout)
        except ApiError as error:
            if error.status != 401:
                raise
        self._login()
        return self._send(method, f"/api/v2{path}", body, timeout)

    def health(self) -> dict[str, dict[str, Any]]:
        """Component -> {status, latest heartbeat}; needs no login."""
        return dict(self._send("GET", "/api/v2/monitor/health", None, 5.0))

    def trigger(self, dag_id: str, conf: dict[str, Any], *, run_id: str | None = None) -> str:
        """Start a run; returns its id."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """State and times of one run."""
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{_quote(run_id)}"))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of one run."""
        path = f"/dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances?limit=500"
        return list(self.call("GET", path)["task_instances"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, key: str = "return_value") -> Json:
        """One task's report."""
        path = f"/dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", f"{path}?map_index={map_index}&deserialize=true")["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, attempt: int = 1, map_index: int = -1) -> str:
        """The text of one try's log."""
        path = f"/dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances/{task_id}/logs/{attempt}"
        entries = self.call("GET", f"{path}?map_index={map_index}&full_content=true")["content"]
        return "\n".join(_log_line(entry) for entry in entries)

    def pending(self) -> list[dict[str, Any]]:
        """Requests for a human that nobody has answered."""
        return list(self.call("GET", "/dags/~/dagRuns/~/hitlDetails?response_received=false")["hitl_details"])

    def respond(self, task: dict[str, Any], option: str, values: dict[str, Any]) -> dict[str, Any]:
        """Answer one request from `pending()`; `task` is its `task_instance`."""
        map_index = task.get("map_index", -1)
        path = (
            f"/dags/{task['dag_id']}/dagRuns/{_quote(task['dag_run_id'])}"
            f"/taskInstances/{task['task_id']}/{map_index}/hitlDetails"
        )
        return dict(self.call("PATCH", path, {"chosen_options": [option], "params_input": values}))

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Until the DAG processor has published `dag_id`; says the import errors when it gives up."""

        def known() -> bool:
            try:
                self.call("GET", f"/dags/{dag_id}")
            except ApiError as error:
                if error.status != 404:
                    raise
                return False
            return True

        if not poll(known, timeout):
            broken = self.call("GET", "/importErrors")["import_errors"]
            raise ApiError(404, f"DAG {dag_id} did not appear in {timeout:.0f} s; import errors: {broken}")

    def _login(self) -> None:
        credentials = {"username": self.username, "password": self._password}
        self._token = None
        self._token = str(self._send("POST", "/auth/token", credentials, 30.0)["access_token"])

    def _send(self, method: str, path: str, body: object | None, timeout: float) -> Json:
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.base_url + path, data=data, headers=headers, method=method)  # noqa: S310
        try:
            # Never through a proxy: this is the machine's own loopback or a server named by the operator.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=timeout) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")[:500]) from error
        except (OSError, ValueError) as error:
            raise ApiError(0, str(error)) from error


def poll(ready: Callable[[], bool], timeout: float, *, interval: float = 0.3, clock: Clock | None = None) -> bool:
    """Call `ready` until it says yes; False when `timeout` seconds have passed."""
    clock = clock or SystemClock()
    deadline = clock.monotonic() + timeout
    while not ready():
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(interval)
    return True


def _quote(run_id: str) -> str:
    return urllib.parse.quote(run_id, safe="")


def _log_line(entry: Json) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    errors = [f"{item.get('exc_type')}: {item.get('exc_value')}" for item in entry.get("error_detail") or []]
    return " | ".join([str(entry.get("event", entry)), *errors])
