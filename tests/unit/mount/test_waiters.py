"""Requests that wait for a lock: each is answered exactly once, whoever comes first."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from fscore.domain.errors import FsError, NotFound, WouldBlock
from fscore.mount.transports.kernel.protocol import OUT
from fscore.mount.transports.kernel.waiters import LockWaiters
from fscore.mount.transports.kernel.worker import reply


class Answers:
    """Waiters that answer into a pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.waiters = LockWaiters(self._write, number, 0.001, 0.01)

    def next(self, wait_s: float = 5.0) -> tuple[int, int] | None:
        """(request, errno) of the next answer; None when none comes."""
        if not select.select([self._read], [], [], wait_s)[0]:
            return None
        size, error, unique = OUT.unpack(os.read(self._read, OUT.size))
        assert size == OUT.size
        return unique, -error

    def close(self) -> None:
        """Stop waiting."""
        self.waiters.close()
        os.close(self._read)
        os.close(self._write)


def number(error: BaseException) -> int:
    """The errno of an error."""
    assert isinstance(error, FsError)
    return error.errno or errno.EIO


@pytest.fixture
def answers(no_thread_left: None) -> Iterator[Answers]:
    """Waiters, and what they answer."""
    made = Answers()
    yield made
    made.close()


def held(times: int) -> Callable[[], None]:
    """A lock that is free at the attempt after so many."""
    left = [times]

    def attempt() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise WouldBlock

    return attempt


def test_a_lock_is_told_when_it_is_free(answers: Answers) -> None:
    answers.waiters.add(7, held(3))
    assert answers.next() == (7, 0)
    assert answers.next(0.05) is None


def test_many_wait_and_each_is_answered(answers: Answers) -> None:
    for unique in range(1, 41):
        answers.waiters.add(unique, held(unique % 5))
    found = {answers.next() for _ in range(40)}
    assert found == {(unique, 0) for unique in range(1, 41)}


def test_an_error_is_an_answer(answers: Answers) -> None:
    def gone() -> None:
        raise NotFound

    answers.waiters.add(7, gone)
    assert answers.next() == (7, errno.ENOENT)


def test_a_signal_ends_the_wait(answers: Answers) -> None:
    answers.waiters.add(7, held(10**9))
    answers.waiters.add(8, held(10**9))
    answers.waiters.interrupt(7)
    assert answers.next() == (7, errno.EINTR)
    assert answers.next(0.05) is None
    answers.waiters.interrupt(8)
    assert answers.next() == (8, errno.EINTR)


def test_a_signal_that_comes_before_its_request(answers: Answers) -> None:
    answers.waiters.interrupt(7)
    answers.waiters.add(7, held(0))
    assert answers.next() == (7, errno.EINTR)


def test_a_lock_that_is_got_while_the_signal_comes_is_told(answers: Answers) -> None:
    """Else the volume would keep a lock for a program that believes it has none."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(5)

    answers.waiters.add(7, slow)
    assert begun.wait(5)
    answers.waiters.interrupt(7)
    assert answers.next(0.05) is None
    go_on.set()
    assert answers.next() == (7, 0)


def test_a_lock_that_is_held_when_the_signal_comes_is_given_up(answers: Answers) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(5)
        raise WouldBlock

    answers.waiters.add(7, slow)
    assert begun.wait(5)
    answers.waiters.interrupt(7)
    go_on.set()
    assert answers.next() == (7, errno.EINTR)


def test_nobody_is_answered_after_the_end(answers: Answers) -> None:
    answers.waiters.add(7, held(10**9))
    answers.waiters.close()
    assert answers.next(0.05) is None


def test_a_reply_to_nobody_is_dropped() -> None:
    read, write = os.pipe()
    os.close(write)
    reply(write, b"x" * 16)
    os.close(read)
