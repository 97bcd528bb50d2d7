"""A client is killed with a deleted file open and locks held: another one lets it all go when its session is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fscore.domain.errors import NotFound
from fscore.domain.ids import ROOT
from fscore.domain.locks import EOF, LockKind
from fscore.domain.setting import Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from tests.kit.engines import fresh_url
from tests.kit.invariants import check_engine
from tests.kit.tree import SUPER, mkfile

HEARTBEAT_S = 0.6
ENGINES: list[Any] = ["sqlite", pytest.param("redis", marks=pytest.mark.redis)]


def _live_and_wait(url: str) -> None:
    """What the child does: all that a session can leave behind, until it is killed."""
    with MetaService.open(open_engine(url), heartbeat_s=HEARTBEAT_S) as meta:
        held, locked = mkfile(meta, b"held", 5000), mkfile(meta, b"locked")
        meta.open_file(SUPER, held, write=True)
        meta.unlink(SUPER, ROOT, b"held")
        assert meta.flock(locked, 1, LockKind.READ)
        assert meta.setlk(locked, 2, LockKind.WRITE, 0, EOF, os.getpid())
        sys.stdout.write(f"{held} {locked}\n")
        sys.stdout.flush()
        sys.stdin.read()


@pytest.mark.parametrize("kind", ENGINES)
def test_a_killed_client_leaves_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = fresh_url(kind, request, tmp_path)
    engine = open_engine(url)
    MetaService.format(engine, Setting(name="vol", uuid="u", trash_days=0))
    engine.close()
    child = subprocess.Popen(
        [sys.executable, "-c", f"from tests.crash.test_dead_clients import _live_and_wait; _live_and_wait({url!r})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    held, locked = map(int, child.stdout.readline().split())
    with MetaService.open(open_engine(url), background=False, heartbeat_s=HEARTBEAT_S) as meta:
        meta.beat()
        assert meta.getattr(held).nlink == 0, "alive, it keeps what it holds"
        assert not meta.flock(locked, 1, LockKind.WRITE)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        deadline = time.monotonic() + 20
        while len(meta.engine.sessions()) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            meta.beat()
        assert meta.flock(locked, 1, LockKind.WRITE)
        assert meta.setlk(locked, 1, LockKind.WRITE, 0, EOF, 1)
        with pytest.raises(NotFound):
            meta.getattr(held, fresh=True)
        assert meta.purge_deleted() == 1
        assert meta.statfs()[2:4] == (4096, 1)
        meta.flush()
        assert check_engine(meta.engine, stats=False) == [], "statistics of the last second died with it"
