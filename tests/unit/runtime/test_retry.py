"""When a call is made again, how long it waits, and when it gives up."""

from __future__ import annotations

import random

import pytest

from fscore.domain.errors import CorruptError, NotFound, TransientError, UnavailableError
from fscore.runtime.clock import FakeClock
from fscore.runtime.retry import Retry


class Flaky:
    """Fails `times` times, then answers."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left = times
        self.calls = 0
        self.error = error

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_the_defaults_ride_through_a_minute_of_503() -> None:
    assert Retry().rides_s() > 60
    clock = FakeClock()
    retry = Retry(clock=clock, rng=random.Random(1))

    def store() -> str:
        if clock.monotonic() < 60:
            raise TransientError("503 SlowDown")
        return "done"

    assert retry.call("put", store) == "done"
    assert 60 <= clock.monotonic() < 60 + 15


def test_waits_grow_to_a_cap_and_are_spread() -> None:
    clock = FakeClock()
    with pytest.raises(UnavailableError, match=r"get of 'k' failed 8 times, last: down"):
        Retry(8, 1.0, 10.0, clock, random.Random(2)).call("get of 'k'", Flaky(99, TransientError("down")))
    for wait, most in zip(clock.slept, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert most * 0.75 <= wait <= most
    other = FakeClock()
    with pytest.raises(UnavailableError):
        Retry(8, 1.0, 10.0, other, random.Random(3)).call("get", Flaky(99, TransientError("down")))
    assert other.slept != clock.slept


def test_what_the_server_asks_for_is_honoured() -> None:
    clock = FakeClock()
    assert Retry(clock=clock).call("put", Flaky(1, TransientError("slow down", retry_after=7.5))) == "done"
    assert clock.slept == [7.5]
    clock = FakeClock()
    Retry(clock=clock).call("put", Flaky(1, TransientError("come back tomorrow", retry_after=86400)))
    assert clock.slept == [120]


@pytest.mark.parametrize("error", [NotFound("k"), CorruptError("torn"), ValueError("a bug")])
def test_other_errors_are_not_retried(error: Exception) -> None:
    clock = FakeClock()
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        Retry(clock=clock).call("get", flaky)
    assert (flaky.calls, clock.slept) == (1, [])


def test_one_attempt_is_no_retry() -> None:
    flaky = Flaky(1, TransientError("down"))
    with pytest.raises(UnavailableError):
        Retry(1, clock=FakeClock()).call("get", flaky)
    assert flaky.calls == 1
