"""Clock, limiter, metrics, progress and logs."""

from __future__ import annotations

import logging
import threading

import pytest

from fscore.runtime import log
from fscore.runtime.clock import FakeClock, SystemClock
from fscore.runtime.limiter import Limiter
from fscore.runtime.metrics import BOUNDS_S, Metrics
from fscore.runtime.progress import NoProgress


def test_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(5_000_000_000)
    assert (clock.now_ns(), clock.monotonic()) == (5_000_000_000, 0)
    clock.sleep(1.5)
    clock.advance(0.25)
    assert (clock.now_ns(), clock.monotonic()) == (6_750_000_000, 1.75)
    assert clock.slept == [1.5]


def test_system_clock_goes_forward() -> None:
    clock = SystemClock()
    before, wall = clock.monotonic(), clock.now_ns()
    clock.sleep(0.002)
    assert clock.monotonic() - before >= 0.002
    assert clock.now_ns() > wall


def test_limiter_keeps_the_average() -> None:
    clock = FakeClock()
    limiter = Limiter(1000, burst_s=0.1, clock=clock)
    for _ in range(50):
        limiter.take(100)
    assert clock.monotonic() == pytest.approx((50 * 100 - 100) / 1000, rel=0.01)
    limiter.take(5000)  # more than the burst passes, and is paid for
    assert clock.monotonic() == pytest.approx(9.9, rel=0.01)


def test_limiter_allows_a_burst_after_a_pause_and_no_more() -> None:
    clock = FakeClock()
    limiter = Limiter(1000, burst_s=0.1, clock=clock)
    clock.advance(3600)
    limiter.take(100)
    assert clock.slept == []
    limiter.take(100)
    assert clock.slept == [pytest.approx(0.1)]


def test_no_limit_never_waits() -> None:
    clock = FakeClock()
    Limiter(0, clock=clock).take(1 << 40)
    assert clock.slept == []


def test_metrics_count_from_many_threads() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(1000):
            metrics.add("n")
        metrics.observe("t", 0.0002)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.get("n") == 8000
    shot = metrics.snapshot()
    assert shot["n"] == 8000
    assert shot["t.count"] == 8
    assert shot["t.seconds"] == pytest.approx(0.0016)
    assert shot["t.buckets"] == [0, 8] + [0] * (len(BOUNDS_S) - 1)
    with pytest.raises(RuntimeError), metrics.timed("fails"):
        raise RuntimeError
    assert metrics.snapshot()["fails.count"] == 1
    assert metrics.get("never") == 0


def test_loggers_are_ours() -> None:
    assert log.get("fscore.objects.file") is logging.getLogger("fscore.objects.file")
    assert log.get("demo").name == "fscore.demo"
    quiet = NoProgress()
    quiet.advance(quiet.start("copy", None, "B"), 5)
    quiet.finish(0)
