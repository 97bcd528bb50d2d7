"""Proves that a test left no thread of ours behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fscore.runtime.threads import Pool


def ours() -> set[threading.Thread]:
    """Live threads that runtime.threads started."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("fscore-") and thread.is_alive()}


def together(*jobs: Callable[[], None]) -> None:
    """Run jobs at the same time; the first error comes out."""
    with Pool("race", len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Fails when a thread that began during the test outlives it."""
    before = ours()
    yield
    deadline = time.monotonic() + 2
    while (left := ours() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"threads left behind: {sorted(thread.name for thread in left)}"
