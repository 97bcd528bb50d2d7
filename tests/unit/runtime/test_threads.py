"""Pools are bounded, ordered and carry errors; tickers go on; nothing outlives its owner."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

import pytest

from fscore.runtime.singleflight import SingleFlight
from fscore.runtime.threads import Pool, Ticker

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_map_is_ordered_and_bounded() -> None:
    lock, now, most = threading.Lock(), 0, 0
    started = []

    def work(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            started.append(number)
        time.sleep(0.001 * (number % 3))
        with lock:
            now -= 1
        return number * number

    with Pool("test", 3) as pool:
        results = pool.map_bounded(work, iter(range(50)), inflight=4)
        assert next(results) == 0
        time.sleep(0.02)
        assert len(started) <= 5  # no further than it may be ahead
        assert list(results) == [number * number for number in range(1, 50)]
    assert most <= 3


def test_map_stops_at_the_first_error_and_waits_for_what_runs() -> None:
    begun, ended = [], []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        if number == 2:
            raise RuntimeError("two")
        ended.append(number)
        return number

    with Pool("test", 2) as pool:
        got: list[int] = []
        with pytest.raises(RuntimeError, match="two"):
            got.extend(pool.map_bounded(work, range(100)))
        assert got == [0, 1]
        assert len(begun) < 10
        assert sorted([*ended, 2]) == sorted(begun)


def test_map_of_an_abandoned_iterator_leaves_nothing_running() -> None:
    running = threading.Event()
    with Pool("test", 1) as pool:
        results = pool.map_bounded(lambda number: running.wait(0.01) or number, range(100), inflight=3)
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert pool.submit(lambda: "free").result(1) == "free"


def test_a_forked_child_has_a_pool_that_works() -> None:
    program = """
import os, signal
from fscore.runtime.threads import Pool
pool = Pool("test", 2)
assert pool.submit(lambda: 1).result(5) == 1
child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(0 if sum(pool.map_bounded(lambda n: n, range(5))) == 10 else 1)
assert os.waitpid(child, 0)[1] == 0
assert pool.submit(lambda: 2).result(5) == 2
pool.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_ticker_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    beats = threading.Semaphore(0)

    def beat() -> None:
        beats.release()
        raise RuntimeError("missed")

    with caplog.at_level(logging.ERROR):
        ticker = Ticker("heart", 0.001, beat)
        assert all(beats.acquire(timeout=5) for _ in range(3))
        ticker.stop()
        ticker.stop()
    assert "heart failed" in caplog.text


def test_ticker_may_stop_itself() -> None:
    done = threading.Event()
    holder: list[Ticker] = []

    def beat() -> None:
        holder[0].stop()
        done.set()

    holder.append(Ticker("once", 0.005, beat))
    assert done.wait(5)
    holder[0].stop()


def test_single_flight_shares_results_and_errors() -> None:
    flights: SingleFlight[object] = SingleFlight()
    calls = []
    gate = threading.Event()

    def slow() -> object:
        calls.append(1)
        gate.wait(5)
        return object()

    def broken() -> object:
        calls.append(1)
        gate.wait(5)
        raise KeyError("gone")

    for fn in (slow, broken):
        calls.clear()
        gate.clear()
        with Pool("test", 6) as pool:
            futures = [pool.submit(flights.do, "key", fn) for _ in range(6)]
            while not flights.flying("key"):
                time.sleep(0.001)
            time.sleep(0.02)
            gate.set()
            outcomes = {repr(future.exception() or future.result()) for future in futures}
        assert len(calls) == 1
        assert len(outcomes) == 1
        assert not flights.flying("key")
    assert flights.do("key", lambda: 5) == 5
