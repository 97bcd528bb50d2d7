"""Index files: what went in is found, and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.errors import CorruptError
from fscore.hub.segments import Directory, IndexBase, IndexFile, Row, pack, unpack

DIRECTORY = Directory((IndexBase("m", 1, "", "sha256:1"),), (IndexFile(0, "w", 10, 7, 8, "md5", "sha"),))


def sha(n: int) -> bytes:
    return hashlib.sha256(str(n).encode()).digest()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 2**40), st.integers(0, 2**50)), max_size=60))
def test_lookup_finds_every_row_and_only_those(made: list[tuple[int, int, int]]) -> None:
    rows = [Row(sha(content), length, 0, offset) for content, length, offset in made]
    segment = unpack(pack(DIRECTORY, rows))
    assert len(segment) == len(rows)
    assert segment.directory == DIRECTORY
    wanted = [(sha(content), length) for content, length in {(c, n) for c, n, _ in made} | {(31, 5)}]
    found = {(wanted[position], offset) for position, _, offset in segment.find(wanted)}
    assert found == {((sha(content), length), offset) for content, length, offset in made}
    assert sorted(segment.rows(), key=repr) == sorted(rows, key=repr)


def test_same_first_bytes_are_no_match() -> None:
    near = sha(1)[:8] + bytes(24)
    segment = unpack(pack(DIRECTORY, [Row(near, 5, 0, 0)]))
    assert list(segment.find([(sha(1), 5)])) == []
    assert list(segment.find([(near, 5)])) == [(0, 0, 0)]
    assert list(segment.find([(near, 6)])) == []


def test_broken_files_are_told() -> None:
    data = pack(DIRECTORY, [Row(sha(1), 5, 0, 0)])
    for broken in (b"", b"x" * 40, data[:-1], data[:20], data + b"z"):
        with pytest.raises(CorruptError):
            unpack(broken)
