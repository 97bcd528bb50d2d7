"""A filler of a whole file that is killed at any of its steps leaves it whole, or nothing that anybody believes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.wholes import LAYOUT, SLICE, assembled, content, load, whole_cache

pytestmark = pytest.mark.usefixtures("no_thread_left")

STEPS = ("ftruncate", "pwrite", "fdatasync", "rename", "write", "fsync")


def fill_and_die(home: Path, step: int, *, before: bool) -> None:
    """In a child: fill the file, killed by the system at its `step`-th call that changes anything, or to the end."""
    cache = whole_cache(home, threads=1)
    cache.flush()
    left = [step]

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*args, **options)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    assembly = cache.assemble(LAYOUT, load)
    assert assembly is not None
    assembly.fill_all()
    cache.close()


def run_child(home: Path, step: int, *, before: bool) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fill_and_die(home, step, before=before)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_it_is_whole_or_nothing(tmp_path: Path, when: str) -> None:
    ends: list[bool] = []
    for step in range(1, 30):
        home = tmp_path / f"{when}-{step}"
        home.mkdir()
        code = run_child(home, step, before=when == "before")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        cache = whole_cache(home)
        file = cache.open(LAYOUT)
        ends.append(file is not None)
        if file is not None:
            assert content(file) == SLICE
        cache.flush()
        left = {path.suffix for path in home.glob("whole/*/*")}
        assert left <= {".bytes", ".sums", ".tmp"}, "what nobody fills is swept"
        if file is None:
            assert ".bytes" not in left
            assert content(assembled(cache)) == SLICE
        cache.close()
    else:
        pytest.fail("it never came to its end")
    assert len(ends) >= 9
    assert ends == sorted(ends), "it is not there, not there, ... there"
