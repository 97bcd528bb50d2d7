"""Object keys, shards, geometry and charges: vectors of volume-format.md section 10."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.attr import Attr, Kind, align4k, space_of
from fscore.domain.geometry import CHUNK, block_length, by_block, by_chunk, chunk_count
from fscore.domain.keys import block_key, parse_block_key, shard_of, slice_keys

BLOCK = 4 << 20


def test_plain_and_hashed_keys_and_their_shards() -> None:
    plain = "myjfs/" + block_key(123456789, 3, BLOCK)
    hashed = "myjfs/" + block_key(123456789, 3, BLOCK, hash_prefix=True)
    assert plain == "myjfs/chunks/123/123456/123456789_3_4194304"
    assert hashed == "myjfs/chunks/15/123/123456789_3_4194304"
    assert (shard_of(plain, 4), shard_of(hashed, 4)) == (0, 3)
    assert (shard_of(plain, 1 << 32), shard_of(hashed, 1 << 32)) == (0x53726258, 0x4F6750C3)
    assert block_key(7, 0, 5) == "chunks/0/0/7_0_5"
    assert block_key(171, 0, 5, hash_prefix=True) == "chunks/AB/0/171_0_5"


def test_the_blocks_of_a_slice() -> None:
    keys = [key.rsplit("/", 1)[1] for key in slice_keys(1, 10 << 20, BLOCK)]
    assert keys == ["1_0_4194304", "1_1_4194304", "1_2_2097152"]
    assert list(slice_keys(1, 0, BLOCK)) == []
    assert [key.rsplit("/", 1)[1] for key in slice_keys(1, BLOCK, BLOCK)] == ["1_0_4194304"]


@pytest.mark.parametrize("key", ["chunks/0/0/7_0_5", "myjfs/chunks/AB/0/7_0_5", "7_0_5"])
def test_keys_are_read_back(key: str) -> None:
    assert parse_block_key(key) == (7, 0, 5)


@pytest.mark.parametrize(
    "key", ["juicefs_uuid", "chunks/0/0/7_0", "chunks/0/0/7_0_5_1", "chunks/0/0/a_0_5", "", "x/7_-1_5"]
)
def test_what_is_no_block(key: str) -> None:
    assert parse_block_key(key) is None


@given(st.integers(0, 5 * CHUNK), st.integers(0, 3 * CHUNK))
def test_ranges_are_cut_at_chunk_borders(offset: int, length: int) -> None:
    parts = list(by_chunk(offset, length))
    assert sum(part for _, _, part in parts) == length
    at = offset
    for index, pos, part in parts:
        assert index * CHUNK + pos == at
        assert 0 < part <= CHUNK - pos
        at += part


@given(st.integers(0, CHUNK), st.integers(0, CHUNK), st.sampled_from([1 << 16, 1 << 20, BLOCK]))
def test_slices_are_cut_at_block_borders(offset: int, length: int, block: int) -> None:
    at = offset
    for index, pos, part in by_block(offset, length, block):
        assert index * block + pos == at
        assert 0 < part <= block - pos
        at += part
    assert at == offset + length


def test_counts() -> None:
    assert [chunk_count(length) for length in (0, 1, CHUNK, CHUNK + 1)] == [0, 1, 1, 2]
    assert [block_length(10 << 20, index, BLOCK) for index in range(3)] == [BLOCK, BLOCK, 2 << 20]


def test_charges() -> None:
    assert [align4k(length) for length in (0, 1, 4096, 4097, 10_485_760)] == [4096, 4096, 4096, 8192, 10_485_760]
    assert [space_of(kind, 9000) for kind in (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK)] == [12288, 4096, 4096]


def test_the_mode_of_stat() -> None:
    assert Attr(kind=Kind.DIRECTORY, mode=0o1777).st_mode == 0o041777
    assert Attr(kind=Kind.FILE, mode=0o644).st_mode == 0o100644
