"""Joining of pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.errors import Invalid
from fscore.files.compose import Piece, Range, Zeros, data, merge, total

FILES = {"/a": bytes(range(100)), "/b": bytes(range(100, 200))}


def content(pieces: list[Piece]) -> bytes:
    out = b""
    for piece in pieces:
        if isinstance(piece, Range):
            out += FILES[piece.path][piece.offset : piece.offset + piece.length]
        elif isinstance(piece, Zeros):
            out += bytes(piece.length)
        else:
            out += b"".join(bytes(part) for part in piece.chunks())
    return out


PIECES = st.one_of(
    st.builds(Range, st.sampled_from(["/a", "/b"]), st.integers(0, 50), st.integers(0, 50)),
    st.builds(Zeros, st.integers(0, 20)),
    st.builds(data, st.binary(max_size=10)),
)


@given(st.lists(PIECES, max_size=12))
def test_merging_keeps_the_content(pieces: list[Piece]) -> None:
    merged = merge(pieces)
    assert content(merged) == content(pieces)
    assert total(merged) == total(pieces)
    assert all(piece.length for piece in merged)


def test_adjacent_ranges_become_one() -> None:
    pieces: list[Piece] = [Range("/a", 0, 10), Range("/a", 10, 5), Range("/a", 16, 4), Range("/b", 20, 1)]
    assert merge(pieces) == [Range("/a", 0, 15), Range("/a", 16, 4), Range("/b", 20, 1)]


def test_data_pieces_stay_apart() -> None:
    assert len(merge([data(b"a"), data(b"b")])) == 2


@pytest.mark.parametrize("piece", [Range("/a", -1, 5), Range("/a", 0, -5), Zeros(-1)])
def test_negative_pieces_are_refused(piece: Piece) -> None:
    with pytest.raises(Invalid):
        merge([piece])
