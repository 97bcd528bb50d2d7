"""One round of the demo: bring everything up, release two models, tell what happened, end what was started."""

from __future__ import annotations

from fscore.runtime.clock import SystemClock
from fscore_airflow.demo.follow import Followed, Follower
from fscore_airflow.demo.others import run_others
from fscore_airflow.demo.summary import show_failure, show_release
from fscore_airflow.demo.world import CLOUDS, Release, World
from fscore_airflow.standalone.supervisor import Supervisor


def run_demo(world: World, *, keep: bool, everything: bool) -> bool:
    """Whether everything came through, every bar was met, and (without `keep`) no process is left."""
    clock, say = SystemClock(), world.say
    began = clock.monotonic()
    number = world.next_round()
    say(f"release {number} of the demo; everything lies in {world.root}")
    supervisor, releases = world.start(number, extra=everything)
    good = False
    try:
        good = _act(world, supervisor, releases)
        if good and everything:
            good = run_others(supervisor.api(), world, number, say)
        if good:
            world.finished(number)
        say("")
        say(f"{'done' if good else 'FAILED'} after {clock.monotonic() - began:.1f} s")
    finally:
        if keep:
            say(f"Airflow stays up: {supervisor.url}  (passwords: {supervisor.home.passwords_file})")
            say(f"to end it: python -m fscore_airflow.standalone stop --home {supervisor.home.path}, or the next demo")
        else:
            supervisor.stop()
            left = supervisor.leftovers()
            good = good and not left
            say("no process is left" if not left else f"LEFT RUNNING: {[process.pid for process in left]}")
    return good


def _act(world: World, supervisor: Supervisor, releases: list[Release]) -> bool:
    """Both releases, followed to their end and told with their bars."""
    api = supervisor.api()
    before = {cloud: world.stored_bytes(cloud) for cloud in CLOUDS}
    api.wait_for_dag("model_release")
    runs: list[Followed] = []
    for release in releases:
        run_id = api.trigger("model_release", release.form)
        world.say(f"{release.name}: {supervisor.url}/dags/model_release/runs/{run_id}")
        runs.append(Followed(release.name, "model_release", run_id))
    Follower(api, supervisor.api("releaser"), world.say).follow(runs)
    good = True
    for release, run in zip(releases, runs, strict=True):
        if run.state == "success" and not run.failed:
            good &= show_release(api, release, run, world.say)
        else:
            good = False
            show_failure(api, run, world.say)
    world.say("")
    for cloud in CLOUDS:
        now = world.stored_bytes(cloud)
        world.say(f"{cloud}: the store grew by {(now - before[cloud]) / 1e6:,.1f} MB to {now / 1e6:,.1f} MB")
    return good
