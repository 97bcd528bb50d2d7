"""The demo: two releases from source to warm caches in two clouds, through Airflow, from one command."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from fscore.domain.errors import FsError, HubError, SettingError, StoreError
from fscore_airflow.demo.run import run_demo
from fscore_airflow.demo.world import World
from fscore_airflow.standalone.api import ApiError
from fscore_airflow.standalone.home import project_root
from fscore_airflow.standalone.supervisor import StartError


def main(arguments: list[str] | None = None) -> int:
    """0 when everything came through and every bar was met, 1 otherwise."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    world = World(options.home.resolve(), _say)
    try:
        return 0 if run_demo(world, keep=options.keep, everything=options.all) else 1
    except KeyboardInterrupt:
        _say("interrupted")
    except (StartError, ApiError, TimeoutError, RuntimeError, FsError, HubError, SettingError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
    return 1


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
