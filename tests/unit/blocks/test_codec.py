"""Stored forms of a block: the vectors of volume-format.md section 10, and every damage told as such."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import lz4.block
import pytest
import zstandard

from fscore.blocks.cache.sums import sums, trailer, trailer_size
from fscore.blocks.codec import codec_for
from fscore.domain.errors import CorruptError, SettingError

CODECS = ["none", "lz4", "zstd"]


def test_vectors() -> None:
    assert bytes(codec_for("lz4").encode(b"tiny")).hex() == "4074696e79"
    assert bytes(codec_for("zstd").encode(b"tiny")).hex() == "28b52ffd20042100007" + "4696e79"
    assert codec_for("").encode(b"tiny") == b"tiny"
    assert codec_for("lz4").decode(bytes.fromhex("4074696e79"), 4) == b"tiny"
    assert codec_for("zstd").decode(bytes.fromhex("28b52ffd200421000074696e79"), 4) == b"tiny"


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [1, 100, 32 << 10, 4 << 20])
@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_round_trip(name: str, size: int, kind: str) -> None:
    codec = codec_for(name.upper())
    block = os.urandom(size) if kind == "random" else bytes(size)
    for form in (block, bytearray(block), memoryview(block)):
        stored = bytes(codec.encode(form))
        assert codec.decode(stored, size) == block
        assert len(stored) <= size + size // 255 + 16 + 16


def test_the_frame_holds_the_content_size_for_juicefs() -> None:
    for size in (1, 5000, 4 << 20):
        stored = bytes(codec_for("zstd").encode(bytes(size)))
        assert zstandard.frame_content_size(stored) == size


def test_a_frame_without_content_size_is_read() -> None:
    stored = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(b"x" * 5000)
    assert codec_for("zstd").decode(stored, 5000) == b"x" * 5000


@pytest.mark.parametrize("name", CODECS)
def test_too_short_is_corrupt(name: str) -> None:
    codec = codec_for(name)
    stored = bytes(codec.encode(b"x" * 100))
    with pytest.raises(CorruptError):
        codec.decode(stored, 101)
    with pytest.raises(CorruptError):
        codec.decode(b"", 100)
    with pytest.raises(CorruptError):
        codec.decode(stored[: len(stored) // 2], 100)


@pytest.mark.parametrize("name", ["lz4", "zstd"])
def test_garbage_is_corrupt(name: str) -> None:
    with pytest.raises(CorruptError):
        codec_for(name).decode(b"\xff" * 50, 100)


def test_extra_bytes_are_ignored() -> None:
    assert codec_for("none").decode(b"block and more", 5) == b"block"


def test_an_lz4_frame_is_not_what_is_stored() -> None:
    sized = lz4.block.compress(b"x" * 100, store_size=True)
    with pytest.raises(CorruptError):
        codec_for("lz4").decode(sized, 100)


def test_codecs_are_thread_safe() -> None:
    codec = codec_for("zstd")

    def work(number: int) -> bool:
        block = bytes([number]) * 300_000 + os.urandom(1000)
        return all(codec.decode(bytes(codec.encode(block)), len(block)) == block for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))


def test_an_unknown_codec_is_a_setting_error() -> None:
    with pytest.raises(SettingError, match="'brotli' is not one of none, lz4, zstd"):
        codec_for("brotli")


def test_trailer_vectors() -> None:
    assert trailer(memoryview(b"hello world")).hex() == "c99465aa"
    assert trailer(memoryview(bytes(40_000))).hex() == "bc43baada5f92803"
    assert trailer_size(40_000) == 8
    assert trailer_size(32 << 10) == 4


@pytest.mark.parametrize("cuts", [[], [1], [32767], [32768], [32769], [5, 40_000], [32768, 65536], [99_999]])
def test_sums_do_not_depend_on_how_the_bytes_lie(cuts: list[int]) -> None:
    data = os.urandom(100_000)
    edges = [0, *cuts, len(data)]
    parts = [memoryview(data)[a:b] for a, b in itertools.pairwise(edges)]
    assert sums(parts) == sums([memoryview(data)])
    kept = trailer(memoryview(data))
    assert kept == b"".join(value.to_bytes(4, "big") for value in sums(parts))
