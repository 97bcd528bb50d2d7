"""Two processes write in one directory: no entry is lost, every count is exact, each contested name has one winner."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from fscore.runtime.clock import SystemClock
from tests.kit.engines import SQL_SERVERS, fresh_url
from tests.kit.invariants import check_engine

COUNT = 300
ENGINES: list[Any] = ["sqlite", pytest.param("redis", marks=pytest.mark.redis), *SQL_SERVERS]


def racers(url: str) -> list[int]:
    """Run two processes that start together; how many contested names each won."""
    command = [sys.executable, "-m", "tests.component.meta.race_worker", url]
    home = Path(__file__).resolve().parents[3]
    started = [
        subprocess.Popen(
            [*command, prefix, str(COUNT)], cwd=home, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for prefix in ("a", "b")
    ]
    with contextlib.ExitStack() as stack:
        for process in started:
            stack.enter_context(process)
            stack.callback(process.kill)
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [int(output) for output in outputs]


@pytest.mark.parametrize("kind", ENGINES)
def test_two_processes_in_one_directory(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = fresh_url(kind, request, tmp_path)
    engine = open_engine(url)
    clock = SystemClock()
    MetaService.format(engine, Setting(name="race", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0), clock)
    service = MetaService.open(engine, clock, background=False)
    who = Caller.root()
    folder, _ = service.mkdir(who, ROOT, b"race", 0o777)
    shared, _ = service.create(who, folder, b"shared", 0o644)
    won = racers(url)
    assert sum(won) == COUNT
    entries = list(service.readdir(who, folder))
    kinds = Counter(entry.kind for entry in entries)
    assert kinds[Kind.DIRECTORY] == 2 * (COUNT // 3)
    unlinked = sum(1 for number in range(COUNT) if number % 10 == 4 and number % 3)
    linked = COUNT // 10
    assert len(entries) == len({entry.name for entry in entries}) == 1 + COUNT + 2 * (COUNT - unlinked + linked)
    nodes = dict(engine.scan_nodes())
    assert nodes[folder].nlink == 2 + kinds[Kind.DIRECTORY]
    assert nodes[shared].nlink == 1 + 2 * linked
    with engine.view() as view:
        assert view.usage().inodes == 2 + COUNT + 2 * (COUNT - unlinked)
        assert view.usage().space == 4096 * view.usage().inodes
    service.flush()
    assert check_engine(engine) == []
    service.close()
