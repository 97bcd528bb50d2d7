"""The demo: two releases from source to warm caches in two clouds, through Airflow, from one command."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from fscore.domain.errors import FsError, HubError, SettingError, StoreError
from fscore.runtime.clock import SystemClock
from fscore_airflow.demo.follow import Followed, Follower
from fscore_airflow.demo.others import run_others
from fscore_airflow.demo.summary import show_failure, show_release
from fscore_airflow.demo.world import CLOUDS, Release, World
from fscore_airflow.standalone.api import AirflowApi, ApiError
from fscore_airflow.standalone.home import project_root
from fscore_airflow.standalone.supervisor import StartError, Supervisor


def main(arguments: list[str] | None = None) -> int:
    """0 when everything came through and every bar was met, 1 otherwise."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    world = World(options.home.resolve(), _say)
    clock = SystemClock()
    began = clock.monotonic()
    try:
        return _demo(world, keep=options.keep, everything=options.all, began=began)
    except KeyboardInterrupt:
        _say("interrupted")
        return 1
    except (StartError, ApiError, TimeoutError, RuntimeError, FsError, HubError, SettingError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _demo(world: World, *, keep: bool, everything: bool, began: float) -> int:
    clock = SystemClock()
    number = world.next_round()
    _say(f"release {number} of the demo; everything lies in {world.root}")
    supervisor, releases = world.start(number, extra=everything)
    try:
        api = supervisor.api("admin")
        before = {cloud: world.stored_bytes(cloud) for cloud in CLOUDS}
        runs = _release(api, supervisor, releases, number)
        good = all(run.state == "success" and not run.failed for run in runs)
        for release, run in zip(releases, runs, strict=True):
            if run.state == "success" and not run.failed:
                good &= show_release(api, release, run, _say)
            else:
                show_failure(api, run, _say)
        _say("")
        for cloud in CLOUDS:
            now = world.stored_bytes(cloud)
            _say(f"{cloud}: the store grew by {(now - before[cloud]) / 1e6:,.1f} MB to {now / 1e6:,.1f} MB")
        if good and everything:
            good &= run_others(api, world, number, _say)
        if good:
            world.finished(number)
        _say(f"{'done' if good else 'FAILED'} after {clock.monotonic() - began:.1f} s")
        if keep:
            users = ", ".join(f"{name} / {word}" for name, word in supervisor.home.passwords().items())
            _say(f"Airflow stays up: {supervisor.url}  ({users}); the next `make demo` ends it")
    finally:
        if not keep:
            supervisor.stop()
            left = supervisor.leftovers()
            _say("no process is left" if not left else f"LEFT RUNNING: {[process.pid for process in left]}")
    return 0 if good else 1


def _release(api: AirflowApi, supervisor: Supervisor, releases: list[Release], number: int) -> list[Followed]:
    api.wait_for_dag("model_release")
    runs: list[Followed] = []
    for release in releases:
        run_id = api.trigger("model_release", release.form)
        _say(f"{release.name}: model_release {run_id}")
        runs.append(Followed(release.name, "model_release", run_id))
    Follower(api, supervisor.api("releaser"), _say).follow(runs)
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fscore_airflow.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave Airflow up afterwards")
    parser.add_argument("--all", action="store_true", help="also run nightly_sync, cache_warmup and checkpoint_ingest")
    parser.add_argument("--home", type=Path, default=project_root() / ".demo", help="where everything is kept")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt
