"""Which records give way to one, and that readers see the same afterwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.compaction import BIG, MOST, Plan, plan
from fscore.domain.geometry import CHUNK
from fscore.domain.slices import SliceRecord, clip, hole, overlay

MIB = 1 << 20
NEW = 10_000


def seen(records: list[SliceRecord], made: Plan | None = None) -> list[tuple[int, int, int, int]]:
    """(position, slice, offset, length) that a reader meets; bytes of the new slice shown as what they were."""
    found: list[tuple[int, int, int, int]] = []
    for piece in clip(overlay(records), 0, CHUNK):
        if not piece.id:
            continue
        if piece.id != NEW or made is None:
            found.append((piece.pos, piece.id, piece.off, piece.length))
            continue
        at = 0
        for old in made.pieces:
            low, high = max(at, piece.off), min(at + old.length, piece.off + piece.length)
            if low < high and old.id:
                found.append((piece.pos + low - piece.off, old.id, old.off + low - at, high - low))
            at += old.length
    return joined(found)


def joined(pieces: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    out: list[tuple[int, int, int, int]] = []
    for pos, slice_id, off, length in pieces:
        if out:
            last = out[-1]
            if last[1] == slice_id and last[0] + last[3] == pos and last[2] + last[3] == off:
                out[-1] = (last[0], slice_id, last[2], last[3] + length)
                continue
        out.append((pos, slice_id, off, length))
    return out


LENGTHS = st.one_of(st.integers(1, 5000), st.integers(MIB, 6 * MIB))
RECORDS = st.lists(
    st.builds(
        lambda pos, slice_id, off, length: (
            hole(pos, length) if slice_id == 0 else SliceRecord(pos, slice_id, off + length, off, length)
        ),
        st.one_of(st.integers(0, 9000), st.integers(0, 58 * MIB)),
        st.integers(0, 5),
        st.integers(0, 100),
        LENGTHS,
    ),
    max_size=12,
)


@given(RECORDS)
def test_what_readers_see_does_not_change(records: list[SliceRecord]) -> None:
    made = plan(records)
    if made is None:
        return
    fresh = made.records(NEW)
    assert len(fresh) < len(made.replaced)
    assert list(made.snapshot) == records[: len(made.snapshot)]
    after = [*made.kept, *fresh, *records[len(made.snapshot) :]]
    assert seen(after, made) == seen(records)
    assert all(record.length > 0 and record.end <= CHUNK for record in fresh)
    assert all(record.off + record.length <= record.size for record in fresh if record.id)
    assert len(overlay(fresh)) < 5, "no client's reader asks for the same again"


def test_the_vector_of_the_format() -> None:
    writes = [SliceRecord(1000 * number, number + 1, 10_000, 0, 10_000) for number in range(6)]
    made = plan(writes)
    assert made is not None
    assert made.records(13) == (SliceRecord(0, 13, 15_000, 0, 15_000),)


def test_big_records_in_front_stay() -> None:
    big = SliceRecord(0, 1, 10 * MIB, 0, 10 * MIB)
    small = [SliceRecord(10 * MIB + 100 * number, number + 2, 100, 0, 100) for number in range(5)]
    made = plan([big, *small])
    assert made is not None
    assert made.kept == (big,)
    assert made.size == 500
    over = plan([big, SliceRecord(5, 9, 100, 0, 100), *small])
    assert over is not None
    assert over.kept == ()
    again = plan([big, *small, big])
    assert again is not None
    assert again.kept == ()
    many = [SliceRecord(number * BIG, number + 1, BIG, 0, BIG) for number in range(5)]
    assert plan(many) is None
    few = plan([SliceRecord(number * BIG, number + 1, BIG - 1, 0, BIG - 1) for number in range(5)])
    assert few is not None


def test_only_holes_become_one_hole() -> None:
    made = plan([SliceRecord(5, 1, 10, 0, 10), hole(0, 100), hole(50, 100)])
    assert made is not None
    assert made.size == 0
    assert made.records(NEW) == (hole(5, 10),)


def test_a_big_record_that_holes_cover_whole_becomes_a_hole() -> None:
    big, over = SliceRecord(4 * MIB, 1, 4 * MIB, 0, 4 * MIB), hole(4 * MIB, 4 * MIB)
    for front in [(), (SliceRecord(0, 2, 4 * MIB, 0, 4 * MIB),)]:
        made = plan([*front, big, over])
        assert made is not None
        assert made.kept == front
        assert made.replaced == (big, over)
        assert made.records(NEW) == (over,)


def test_a_wide_hole_is_not_written() -> None:
    records = [SliceRecord(0, 1, 100, 0, 100), SliceRecord(60 * MIB, 2, 100, 0, 100), SliceRecord(50, 3, 80, 0, 80)]
    made = plan(records)
    assert made is not None
    assert made.size == 230
    assert [record.pos for record in made.records(NEW)] == [0, 60 * MIB]


def test_one_round_has_a_limit() -> None:
    made = plan([SliceRecord(0, number + 1, 10, 0, 10) for number in range(MOST + 500)])
    assert made is not None
    assert len(made.replaced) == MOST
    assert plan([SliceRecord(0, 1, 10, 0, 10)]) is None
    assert plan([]) is None
