"""Lock ranges against the obvious model: for each owner an array of bytes, each locked by nobody or by (kind, pid)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain import locks
from fscore.domain.errors import CorruptError
from fscore.domain.locks import EOF, LockKind, LockRange, Ranges

BYTES = 24


@st.composite
def steps(draw: st.DrawFn) -> LockRange:
    """One call of an owner; ends at `EOF` now and then."""
    start = draw(st.integers(0, BYTES - 1))
    end = draw(st.one_of(st.integers(start, BYTES - 1), st.just(EOF)))
    return LockRange(draw(st.sampled_from(LockKind)), draw(st.integers(1, 2)), start, end)


Cells = list[tuple[LockKind, int] | None]


def _paint(cells: Cells, step: LockRange) -> None:
    value = None if step.kind == LockKind.UNLOCK else (step.kind, step.pid)
    for at in range(step.start, min(step.end, BYTES) + 1):
        cells[at] = value


def _cells(ranges: Ranges) -> Cells:
    cells: Cells = [None] * (BYTES + 1)
    for one in ranges:
        assert one.start <= one.end
        for at in range(one.start, min(one.end, BYTES) + 1):
            assert cells[at] is None, "ranges overlap"
            cells[at] = (one.kind, one.pid)
    return cells


@given(st.lists(steps(), max_size=12))
def test_ranges_are_what_an_array_of_bytes_says(history: list[LockRange]) -> None:
    ranges: Ranges = ()
    cells: Cells = [None] * (BYTES + 1)
    for step in history:
        ranges = locks.apply(ranges, step)
        _paint(cells, step)
        assert _cells(ranges) == cells
        assert list(ranges) == sorted(ranges, key=lambda one: one.start)
        for one, two in itertools.pairwise(ranges):
            assert one.end + 1 < two.start or (one.kind, one.pid) != (two.kind, two.pid), "neighbours not merged"
        assert locks.parse(locks.render(ranges)) == ranges


@given(st.lists(steps(), max_size=8), steps())
def test_a_conflict_is_a_byte_that_both_want_and_one_alone(history: list[LockRange], step: LockRange) -> None:
    ranges: Ranges = ()
    for old in history:
        ranges = locks.apply(ranges, old)
    wanted = _cells(locks.apply((), step))
    clashing = [
        at
        for at, (have, want) in enumerate(zip(_cells(ranges), wanted, strict=True))
        if have and want and LockKind.WRITE in {have[0], want[0]}
    ]
    found = locks.conflict(ranges, step.kind, step.start, step.end)
    assert (found is not None) == bool(clashing)
    if found is not None:
        assert found.start <= clashing[0] <= found.end, "the first one is told"


def test_the_stored_form() -> None:
    """Written by 1.4.1 (volume-format.md 10)."""
    raw = bytes.fromhex(
        "0000000100000aac000000000000003200000000000000950000000000000aac00000000000001f400000000000001fd"
    )
    ranges = (LockRange(LockKind.WRITE, 2732, 50, 149), LockRange(LockKind.READ, 2732, 500, 509))
    assert locks.parse(raw) == ranges
    assert locks.render(ranges) == raw
    with pytest.raises(CorruptError):
        locks.parse(raw[:-1])


def test_a_kind_of_another_system_is_exclusive() -> None:
    raw = bytes.fromhex("0000000300000aac00000000000000320000000000000095")
    assert locks.parse(raw)[0].kind == LockKind.WRITE


def test_an_upgrade_in_the_middle_splits_and_a_downgrade_heals() -> None:
    read = LockRange(LockKind.READ, 7, 0, EOF)
    split = locks.apply((read,), LockRange(LockKind.WRITE, 7, 10, 19))
    assert split == (
        LockRange(LockKind.READ, 7, 0, 9),
        LockRange(LockKind.WRITE, 7, 10, 19),
        LockRange(LockKind.READ, 7, 20, EOF),
    )
    assert locks.apply(split, LockRange(LockKind.READ, 7, 10, 19)) == (read,)
    assert locks.apply(split, LockRange(LockKind.UNLOCK, 9, 0, EOF)) == ()
