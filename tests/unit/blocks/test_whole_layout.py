"""Layouts: equal content has equal keys however it was cut; records: what was not packed is not believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.blocks.cache.whole.layout import Layout, Part, layout_of
from fscore.blocks.cache.whole.record import CELL, Look, Record, cells, unpack
from fscore.domain.errors import CorruptError
from fscore.domain.geometry import CHUNK
from fscore.domain.slices import SliceRecord, hole

MIB = 1 << 20


def test_a_layout_is_what_a_reader_sees_without_holes() -> None:
    views = [
        (0, [SliceRecord(0, 7, 10 * MIB, MIB, 2 * MIB), hole(2 * MIB, MIB), SliceRecord(3 * MIB, 8, MIB, 0, MIB)]),
        (1, [SliceRecord(0, 9, 5 * MIB, 0, 5 * MIB)]),
    ]
    layout = layout_of(CHUNK + 3 * MIB, views)
    assert layout.parts == (
        Part(0, 7, 10 * MIB, MIB, 2 * MIB),
        Part(3 * MIB, 8, MIB, 0, MIB),
        Part(CHUNK, 9, 5 * MIB, 0, 3 * MIB),
    )
    assert layout.length == CHUNK + 3 * MIB


def test_the_key_does_not_depend_on_how_a_slice_was_cut() -> None:
    whole = layout_of(100, [(0, [SliceRecord(0, 5, 100, 0, 100)])])
    cut = layout_of(100, [(0, [SliceRecord(0, 5, 100, 0, 40), SliceRecord(40, 5, 100, 40, 60)])])
    longer = layout_of(100, [(0, [SliceRecord(0, 5, 200, 0, 200)])])
    assert whole.key == cut.key
    assert whole.parts == cut.parts
    assert longer.key != whole.key, "the slice has another size, so its blocks have other names"


@pytest.mark.parametrize(
    "other",
    [
        layout_of(99, [(0, [SliceRecord(0, 5, 100, 0, 100)])]),
        layout_of(100, [(0, [SliceRecord(0, 6, 100, 0, 100)])]),
        layout_of(100, [(0, [SliceRecord(1, 5, 100, 0, 99)])]),
        layout_of(100, [(0, [SliceRecord(0, 5, 100, 1, 99)])]),
        layout_of(100, []),
    ],
)
def test_another_content_has_another_key(other: Layout) -> None:
    assert other.key != layout_of(100, [(0, [SliceRecord(0, 5, 100, 0, 100)])]).key


pieces = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=12)


@given(pieces, st.integers(0, 200), st.integers(1, 120))
def test_what_lies_within_a_range_is_what_lies_there(
    found: list[tuple[int, int, int]], start: int, length: int
) -> None:
    parts: list[Part] = []
    at = 0
    for number, (gap, size, off) in enumerate(found, 1):
        parts.append(Part(at + gap, number, size + off, off, size))
        at += gap + size
    model = {part.pos + k: (part.id, part.off + k) for part in parts for k in range(part.length)}
    seen = {
        part.pos + k: (part.id, part.off + k)
        for part in Layout(at, parts).within(start, length)
        for k in range(part.length)
    }
    assert seen == {pos: what for pos, what in model.items() if start <= pos < start + length}


@pytest.mark.parametrize("length", [1, CELL - 1, CELL, CELL + 1, 5 * CELL])
def test_a_record_comes_back(length: int) -> None:
    record = Record(length, Look(12, 1_700_000_000_123_456_789, -5), tuple(range(cells(length))))
    assert unpack(record.pack()) == record


def test_a_damaged_record_is_not_believed() -> None:
    data = Record(2 * CELL, Look(1, 2, 3), (4, 5)).pack()
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x20
        with pytest.raises(CorruptError):
            unpack(bytes(broken))
    for end in range(len(data)):
        with pytest.raises(CorruptError):
            unpack(data[:end])
    with pytest.raises(CorruptError):
        unpack(Record(2 * CELL, Look(1, 2, 3), (4,)).pack())
