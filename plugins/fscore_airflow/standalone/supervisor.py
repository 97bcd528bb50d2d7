"""Owns the four mains of one Airflow: starts them, waits until all are healthy, stops them without leftovers.

SIGTERM goes to the mains only: sent to the whole group it makes the executor's workers hang.
Each main leads its own session, so that whatever it leaves behind can be found and ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from fscore.runtime.clock import Clock, SystemClock
from fscore_airflow.standalone.api import AirflowApi, ApiError
from fscore_airflow.standalone.home import LOOPBACK, Home, free_port, port_is_free, write_private

MAINS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # Their log servers listen on fixed ports and clash between two homes; the UI reads local files instead.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
POOLS: Mapping[str, int] = {"split": 2, "xcloud": 2, "warm": 2}
_COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


class StartError(RuntimeError):
    """Airflow did not come up; the message names the log to read."""


@dataclass
class Supervisor:
    """Start, watch and stop one Airflow in `home`."""

    home: Home
    connections: list[dict[str, Any]] = field(default_factory=list)
    pools: Mapping[str, int] = field(default_factory=lambda: dict(POOLS))
    say: Callable[[str], None] = print
    grace: float = 5.0
    """Seconds that workers get to notice that their main is gone."""
    clock: Clock = field(default_factory=SystemClock)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def url(self) -> str:
        """Address of the UI and the REST API."""
        return f"http://{LOOPBACK}:{self._state()['port']}"

    def api(self, username: str = "admin") -> AirflowApi:
        """REST as one of the home's users."""
        return AirflowApi(self.url, username, self.home.passwords()[username])

    def start(self, *, port: int | None = None, timeout: float = 120.0) -> str:
        """Bring everything up and return the UI address; an Airflow that already runs here is kept."""
        self.home.path.mkdir(parents=True, exist_ok=True)
        with self._lock():
            alive = self.running()
            if alive.keys() == MAINS.keys():
                self.say(f"Airflow already runs at {self.url}")
                return self.url
            if alive:
                self.say(f"only {', '.join(alive)} still ran here: starting anew")
                self._stop()
            began = self.clock.monotonic()
            chosen = self._choose_port(port)
            self.home.prepare(chosen)
            self._seed()
            started_at = self.clock.now_ns() / 1e9
            self._launch(chosen)
            try:
                self._wait_healthy(began, started_at, timeout)
            except BaseException:
                self._stop()
                raise
            self.say(f"Airflow is up at {self.url} after {self.clock.monotonic() - began:.1f} s")
            return self.url

    def stop(self, *, timeout: float = 30.0) -> bool:
        """End the mains; returns whether any ran. No process of this home is left afterwards."""
        with self._lock():
            return self._stop(timeout=timeout)

    def running(self) -> dict[str, int]:
        """Name -> process id of the mains that are alive."""
        if not self.home.state_file.exists():
            return {}
        return {name: process.pid for name, process in self._mains().items()}

    def health(self) -> dict[str, str]:
        """Component -> healthy | unhealthy | down, as the API server sees them."""
        try:
            report = self.api().health()
        except (ApiError, OSError):
            return dict.fromkeys((*_COMPONENTS, "api_server"), "down")
        seen = {name: str((report.get(name) or {}).get("status")) for name in _COMPONENTS}
        return {**seen, "api_server": "healthy"}

    def leftovers(self) -> list[psutil.Process]:
        """Processes that belong to this home: in a session of one of its mains, or with its AIRFLOW_HOME."""
        sessions = self._sessions() if self.home.state_file.exists() else set()
        marker = f"AIRFLOW_HOME={self.home.path}".encode()
        return [process for process in psutil.process_iter() if _belongs(process, sessions, marker)]

    def _choose_port(self, port: int | None) -> int:
        if port is not None:
            if not port_is_free(port):
                raise StartError(f"port {port} is taken; leave --port out to take a free one")
            return port
        before = self._state().get("port") if self.home.state_file.exists() else None
        return int(before) if before and port_is_free(int(before)) else free_port()

    def _seed(self) -> None:
        wanted = json.dumps({"pools": dict(self.pools), "connections": self.connections}, sort_keys=True)
        stamp = hashlib.sha256(f"{importlib.metadata.version('apache-airflow-core')} {wanted}".encode()).hexdigest()
        if self.home.seed_stamp.exists() and self.home.seed_stamp.read_text() == stamp:
            return
        self.say("preparing the metadata database, pools and connections")
        with (self.home.logs / "seed.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "fscore_airflow.standalone.seed"],
                input=wanted.encode(),
                env=self.home.environment(),
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode != 0:
            raise StartError(f"the metadata database could not be prepared; read {self.home.logs / 'seed.log'}")
        write_private(self.home.seed_stamp, stamp)

    def _launch(self, port: int) -> None:
        env = self.home.environment()
        mains: dict[str, tuple[int, float]] = {}
        for name, arguments in MAINS.items():
            with (self.home.logs / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", "airflow", *arguments],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._children.append(process)
            mains[name] = (process.pid, psutil.Process(process.pid).create_time())
            # Written after each one, so that a crash in between leaves nobody unknown.
            write_private(self.home.state_file, json.dumps({"port": port, "boot": _boot(), "mains": mains}) + "\n")
        self.say(f"started {', '.join(mains)}")

    def _wait_healthy(self, began: float, started_at: float, timeout: float) -> None:
        api = self.api()
        missing = {*_COMPONENTS, "api_server"}
        while missing:
            dead = set(MAINS) - set(self.running())
            if dead:
                name = min(dead)
                raise StartError(f"{name} ended during start; read {self.home.logs / name}.log")
            healthy = _healthy_since(api, started_at)
            for name in sorted(missing & healthy):
                self.say(f"  {name} is healthy after {self.clock.monotonic() - began:.1f} s")
            missing -= healthy
            if missing and self.clock.monotonic() - began > timeout:
                raise StartError(
                    f"not healthy after {timeout:.0f} s: {', '.join(sorted(missing))}; "
                    f"read the logs in {self.home.logs}"
                )
            self.clock.sleep(0.25)

    def _stop(self, *, timeout: float = 30.0) -> bool:
        mains = self._mains() if self.home.state_file.exists() else {}
        for process in mains.values():
            _signal(process.terminate)
        _, alive = psutil.wait_procs(list(mains.values()), timeout=timeout)
        for process in alive:
            self.say(f"  process {process.pid} did not end in {timeout:.0f} s: killing it")
            _signal(process.kill)
        _reap(alive)
        # Workers notice that their main is gone within a moment; what is still there then is ended.
        deadline = self.clock.monotonic() + self.grace
        while (rest := self.leftovers()) and self.clock.monotonic() < deadline:
            self.clock.sleep(0.1)
        for process in rest:
            _signal(process.kill)
        _reap(rest)
        self._children = [child for child in self._children if child.poll() is None]
        if mains:
            self.say("Airflow is stopped")
        return bool(mains)

    def _mains(self) -> dict[str, psutil.Process]:
        found: dict[str, psutil.Process] = {}
        for name, (pid, created) in self._launched().items():
            process = _process(pid, created)
            if process is not None:
                found[name] = process
        return found

    def _sessions(self) -> set[int]:
        """Sessions that our mains lead or led. An id is not given away while its session has members."""
        launched = self._launched().values()
        return {pid for pid, created in launched if not psutil.pid_exists(pid) or _process(pid, created) is not None}

    def _launched(self) -> dict[str, tuple[int, float]]:
        state = self._state()
        # After a reboot the same numbers belong to others.
        return dict(state["mains"]) if state.get("boot") == _boot() else {}

    def _state(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.home.state_file.read_text()))
        except FileNotFoundError:
            raise StartError(f"no Airflow was started in {self.home.path}") from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.home.path.mkdir(parents=True, exist_ok=True)
        with Path(self.home.path / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _healthy_since(api: AirflowApi, started_at: float) -> set[str]:
    try:
        report = api.health()
    except ApiError:
        return set()
    healthy = {"api_server"}
    for name in _COMPONENTS:
        part = report.get(name) or {}
        beat = part.get(f"latest_{name}_heartbeat")
        # A heartbeat of an earlier run must not count.
        fresh = name == "metadatabase" or (beat is not None and datetime.fromisoformat(beat).timestamp() >= started_at)
        if part.get("status") == "healthy" and fresh:
            healthy.add(name)
    return healthy


def _process(pid: int, created: float) -> psutil.Process | None:
    """The live process with that id that began then; None when it ended, or another one has the id now."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def _belongs(process: psutil.Process, sessions: set[int], marker: bytes) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if os.getsid(process.pid) in sessions:
            return True
        return marker in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except (psutil.Error, OSError):
        return False


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _signal(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return


def _reap(processes: list[psutil.Process]) -> None:
    if processes:
        psutil.wait_procs(processes, timeout=5.0)
