"""The command line of the supervisor."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from fscore_airflow.standalone.home import Home, project_root
from fscore_airflow.standalone.supervisor import MAINS, StartError, Supervisor


def main(arguments: list[str] | None = None) -> int:
    """0 done, 1 failed or not running, 2 wrong use (argparse)."""
    options = _parser().parse_args(arguments)
    home = Home(options.home.resolve(), options.dags.resolve(), options.plugins.resolve(), options.parallelism)
    supervisor = Supervisor(home, connections=_connections(options.connections))
    try:
        if options.command == "start":
            supervisor.start(port=options.port)
            _show(supervisor)
        elif options.command == "run":
            return _run(supervisor, options.port)
        elif options.command == "stop":
            return 0 if supervisor.stop() else _nothing(home)
        else:
            return _status(supervisor)
    except (StartError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _run(supervisor: Supervisor, port: int | None) -> int:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        supervisor.start(port=port)
        _show(supervisor)
        while not stopping.wait(1.0):
            dead = set(MAINS) - set(supervisor.running())
            if dead:
                raise StartError(f"{min(dead)} has ended; read the logs in {supervisor.home.logs}")
    finally:
        supervisor.stop()
    return 0


def _status(supervisor: Supervisor) -> int:
    running = supervisor.running()
    if not running:
        return _nothing(supervisor.home)
    health = supervisor.health()
    sys.stdout.write(json.dumps({"url": supervisor.url, "processes": running, "health": health}, indent=2) + "\n")
    return 0 if set(health.values()) == {"healthy"} else 1


def _show(supervisor: Supervisor) -> None:
    sys.stdout.write(f"UI and REST: {supervisor.url}\npasswords:   {supervisor.home.passwords_file}\n")


def _nothing(home: Home) -> int:
    sys.stderr.write(f"no Airflow runs in {home.path}\n")
    return 1


def _connections(path: Path | None) -> list[dict[str, object]]:
    return [] if path is None else list(json.loads(path.read_text()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fscore_airflow.standalone", description=__doc__)
    parser.add_argument("command", choices=("start", "stop", "status", "run"))
    default_home = Path(os.environ.get("AIRFLOW_HOME", "~/.fscore/airflow")).expanduser()
    parser.add_argument("--home", type=Path, default=default_home, help="private Airflow home (default: %(default)s)")
    parser.add_argument("--dags", type=Path, default=project_root() / "dags", help="folder with the DAG files")
    parser.add_argument("--plugins", type=Path, default=project_root() / "plugins", help="folder with fscore_plugin.py")
    parser.add_argument("--port", type=int, help="port of UI and REST (default: the last one, else a free one)")
    parser.add_argument("--parallelism", type=int, default=4, help="tasks at once, one worker process each")
    parser.add_argument("--connections", type=Path, help="JSON list of connections to create (conn_id, conn_type, ...)")
    return parser
