"""Slice records and their overlay: vectors of volume-format.md section 10, and bytes as the obvious model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.errors import CorruptError
from fscore.domain.slices import SliceRecord, clip, hole, overlay, pack, unpack

MIB = 1 << 20


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        (SliceRecord(0, 123456789, 10 * MIB, 0, 10 * MIB), "00000000 00000000075bcd15 00a00000 00000000 00a00000"),
        (
            SliceRecord(MIB, 123456789, 10 * MIB, 4 * MIB, 2 * MIB),
            "00100000 00000000075bcd15 00a00000 00400000 00200000",
        ),
        (hole(5, 6), "00000005 0000000000000000 00000000 00000000 00000006"),
        (hole(0, 64 * MIB), "00000000 0000000000000000 00000000 00000000 04000000"),
        (SliceRecord(7, 5, 200_000, 1000, 100_000), "00000007 0000000000000005 00030d40 000003e8 000186a0"),
        (SliceRecord(0, 13, 15000, 0, 15000), "00000000 000000000000000d 00003a98 00000000 00003a98"),
    ],
)
def test_stored_records(record: SliceRecord, stored: str) -> None:
    assert pack([record]) == bytes.fromhex(stored)
    assert unpack(bytes.fromhex(stored)) == [record]


def test_a_stored_list() -> None:
    blob = "0000000000000000000000010000006400000000000000640000003200000000000000020000000a000000000000000a"
    assert unpack(bytes.fromhex(blob)) == [SliceRecord(0, 1, 100, 0, 100), SliceRecord(50, 2, 10, 0, 10)]
    for broken in (blob[:-2], blob + "00", "00"):
        with pytest.raises(CorruptError):
            unpack(bytes.fromhex(broken))
    assert unpack(b"") == []


def test_the_vector_of_the_overlay() -> None:
    records = [SliceRecord(0, 3, 100, 0, 100), SliceRecord(50, 4, 10, 0, 10), SliceRecord(300_000, 5, 7, 0, 7)]
    assert overlay(records) == [
        SliceRecord(0, 3, 100, 0, 50),
        SliceRecord(50, 4, 10, 0, 10),
        SliceRecord(60, 3, 100, 60, 40),
        hole(100, 299_900),
        SliceRecord(300_000, 5, 7, 0, 7),
    ]


SPAN = 120
RECORDS = st.lists(
    st.tuples(st.integers(0, SPAN - 1), st.integers(0, 6), st.integers(0, 40), st.integers(1, 40)), max_size=12
)


def build(raw: list[tuple[int, int, int, int]]) -> list[SliceRecord]:
    """Records inside SPAN; id 0 is a hole."""
    return [
        hole(pos, min(length, SPAN - pos))
        if slice_id == 0
        else SliceRecord(pos, slice_id, 200, off, min(length, SPAN - pos))
        for pos, slice_id, off, length in raw
    ]


def painted(records: list[SliceRecord]) -> list[tuple[int, int]]:
    """(slice id, offset in it) of every byte, painted oldest first."""
    out = [(0, 0)] * SPAN
    for record in records:
        for step in range(record.length):
            out[record.pos + step] = (record.id, record.off + step if record.id else 0)
    return out


@given(RECORDS)
def test_overlay_paints_bytes(raw: list[tuple[int, int, int, int]]) -> None:
    records = build(raw)
    view = overlay(records)
    assert painted(view) == painted(records)
    assert [piece.pos for piece in view] == [0, *(piece.end for piece in view)][: len(view)], "ascending, without gap"
    assert all(piece.length > 0 for piece in view)
    assert (view[-1].end if view else 0) == max((record.end for record in records), default=0)


@given(RECORDS, st.integers(0, SPAN), st.integers(0, SPAN))
def test_clip_is_a_window(raw: list[tuple[int, int, int, int]], pos: int, length: int) -> None:
    length = min(length, SPAN - pos)
    records = build(raw)
    pieces = clip(overlay(records), pos, length)
    assert painted(pieces)[pos : pos + length] == painted(records)[pos : pos + length]
    assert sum(piece.length for piece in pieces) == length
    assert all(pos <= piece.pos and piece.end <= pos + length for piece in pieces)
