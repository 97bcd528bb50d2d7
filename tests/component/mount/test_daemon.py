"""A process in the background says whether it came up: ready, refused, or dead before it could speak."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from fscore.mount.daemon import launch

def child(tell, ready):
    {body}

outcome = launch(child, Path({log!r}))
print(json.dumps([outcome.said, outcome.code]))
"""


class Launched(NamedTuple):
    """What the parent printed, and how long it took."""

    said: list[str]
    code: int | None
    seconds: float


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def launch(body: str, log: Path) -> Launched:
    """Run a parent whose child does `body`. The pipes of the parent must not stay open with the child."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body, log=str(log))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said, code = json.loads(done.stdout)
    return Launched(said, code, time.monotonic() - began)


def test_ready_lets_the_parent_go_and_the_child_stay(log: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = (
        "tell('a remark'); print('to the log'); ready('it is up'); tell('nobody listens'); "
        f"time.sleep(1); Path({str(mark)!r}).write_text(f'{{os.getsid(0) == os.getpid()}} {{os.getcwd()}}'); return 0"
    )
    found = launch(body, log)
    assert (found.said, found.code) == (["a remark", "it is up"], None)
    deadline = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    assert mark.read_text() == "True /"
    assert log.read_text() == "to the log\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_refusal_is_told_with_its_exit_code(log: Path) -> None:
    found = launch("tell('no such volume'); return 2", log)
    assert (found.said, found.code) == (["no such volume"], 2)


@pytest.mark.parametrize(
    ("body", "reason"), [("os.kill(os.getpid(), 9)", "signal 9"), ("os._exit(7)", "7"), ("raise ValueError('x')", "1")]
)
def test_a_child_that_dies_speechless_is_noticed(log: Path, body: str, reason: str) -> None:
    found = launch(body, log)
    assert found.said == [f"the mount ended before it was ready ({reason}): see {log}"]
    assert found.code
    if "ValueError" in body:
        assert "ValueError: x" in log.read_text()
