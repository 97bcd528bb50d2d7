"""When to read ahead."""

from __future__ import annotations

import itertools

from fscore.vfs.readahead import START, ReadAhead

MIB = 1 << 20


def test_the_first_request_says_nothing() -> None:
    assert ReadAhead(32 * MIB).plan(0, 8) is None


def test_sequential_requests_open_a_growing_window_without_gaps() -> None:
    ahead = ReadAhead(8 * MIB)
    ahead.plan(0, 128 << 10)
    at = 128 << 10
    covered = None
    widest = 0
    for _ in range(400):
        found = ahead.plan(at, 128 << 10)
        at += 128 << 10
        if found is None:
            continue
        start, length = found
        assert start >= at
        if covered is not None:
            assert start == max(covered, at)
        covered = start + length
        widest = max(widest, covered - at)
    assert widest == 8 * MIB


def test_a_jump_closes_the_window() -> None:
    ahead = ReadAhead(8 * MIB)
    ahead.plan(0, MIB)
    assert ahead.plan(MIB, MIB) is not None
    assert ahead.plan(100 * MIB, MIB) is None
    assert ahead.plan(101 * MIB, MIB) == (102 * MIB, START)


def test_no_limit_no_reading_ahead() -> None:
    ahead = ReadAhead(0)
    assert [ahead.plan(at * MIB, MIB) for at in range(4)] == [None] * 4


def test_large_requests_of_a_sequence_may_overtake_each_other() -> None:
    ahead = ReadAhead(8 * MIB)
    piece = 128 << 10
    order = [1, 0, 3, 2, 5, 4, 7, 6, 10, 8, 9, 11, 15, 14, 13, 12]
    found = [ahead.plan(number * piece, piece) for number in order]
    assert found[0] is None
    planned = [plan for plan in found if plan is not None]
    assert planned
    assert all(a + length == b for (a, length), (b, _) in itertools.pairwise(planned)), "no gap, nothing twice"
    assert ahead.run == len(order) * piece


def test_small_requests_must_follow_each_other() -> None:
    ahead = ReadAhead(8 * MIB)
    assert [ahead.plan(at * 4096, 4096) for at in (0, 2, 1, 3, 0)] == [None] * 5
    assert ahead.plan(4096, 4096) is not None
