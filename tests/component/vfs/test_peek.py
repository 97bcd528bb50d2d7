"""Vfs.peek: answers only what is in memory and fresh, with the bytes that read() gives; it never asks anybody."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle
from fscore.domain.slices import hole
from fscore.runtime.clock import FakeClock
from fscore.vfs.options import VfsOptions
from fscore.vfs.vfs import Vfs
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

ROOT = Caller.root()
BLOCK = 64 << 10
DATA = random.Random(3).randbytes(5 * BLOCK + 77)


@pytest.fixture
def one(open_at: MakeVolume, tmp_path: Path) -> Iterator[Volume]:
    """A volume in memory with /f holding DATA and a disk cache."""
    opened = open_at(cache_dir=str(tmp_path / "cache"), memory_cache=1 << 20, free_space_ratio=0.0)
    opened.files.write_bytes("/f", DATA)
    yield opened
    assert_sound(opened)


def open_file(volume: Volume, path: bytes = b"/f", flags: int = os.O_RDONLY) -> tuple[int, int]:
    ino, _ = volume.meta.resolve(ROOT, path)
    return ino, volume.vfs.open(ROOT, ino, flags)


def test_a_cold_file_is_asked_for_and_then_known(one: Volume) -> None:
    _, fh = open_file(one)
    assert one.vfs.peek(fh, 0, 100) is None
    assert one.vfs.read(fh, 0, BLOCK) == DATA[:BLOCK]
    assert one.vfs.peek(fh, 5, 100) == DATA[5:105]
    assert one.vfs.peek(fh, BLOCK - 5, 10) is None, "the second block is not here"
    assert one.vfs.read(fh, BLOCK, 1) == DATA[BLOCK : BLOCK + 1]
    one.vfs.read(fh, 0, len(DATA))
    assert one.vfs.peek(fh, BLOCK - 5, 10) == DATA[BLOCK - 5 : BLOCK + 5]
    assert one.vfs.peek(fh, 3, len(DATA)) == DATA[3:]
    assert one.vfs.peek(fh, len(DATA), 10) == b""
    assert one.vfs.peek(fh, -1, 10) is None
    one.vfs.release(fh)
    with pytest.raises(BadHandle):
        one.vfs.peek(fh, 0, 1)


def test_a_part_of_a_block_in_memory_is_not_copied(one: Volume) -> None:
    _, fh = open_file(one)
    one.vfs.read(fh, 0, BLOCK)
    found = one.vfs.peek(fh, 10, 1000)
    assert isinstance(found, memoryview)
    assert memoryview(found.obj).nbytes == BLOCK
    one.vfs.release(fh)


def test_holes_and_pieces_are_joined(one: Volume) -> None:
    ino, fh = open_file(one, flags=os.O_RDWR)
    one.meta.write(ino, 0, [hole(BLOCK + 10, 500)], 0, new_length=0)
    one.vfs.write(fh, 2 * BLOCK - 3, b"seven" + b"!!")
    one.vfs.flush(fh)
    want = bytearray(DATA)
    want[BLOCK + 10 : BLOCK + 510] = bytes(500)
    want[2 * BLOCK - 3 : 2 * BLOCK + 4] = b"seven!!"
    one.vfs.changed(ino)
    assert one.vfs.read(fh, 0, len(DATA)) == want
    assert one.vfs.peek(fh, BLOCK, 2 * BLOCK) == want[BLOCK : 3 * BLOCK]
    assert one.vfs.peek(fh, BLOCK + 20, 30) == bytes(30)
    one.vfs.release(fh)


def test_what_is_not_committed_is_not_peeked_over(one: Volume) -> None:
    _, fh = open_file(one, flags=os.O_RDWR)
    one.vfs.read(fh, 0, BLOCK)
    one.vfs.write(fh, 10, b"new")
    assert one.vfs.peek(fh, 0, 20) is None
    assert one.vfs.read(fh, 9, 5) == DATA[9:10] + b"new" + DATA[13:14]
    one.vfs.release(fh)


def test_a_handle_for_writing_only_is_not_peeked_through(one: Volume) -> None:
    _, fh = open_file(one, flags=os.O_WRONLY)
    assert one.vfs.peek(fh, 0, 1) is None
    one.vfs.release(fh)


def test_attributes_that_are_old_are_asked_for_again(one: Volume) -> None:
    clock = FakeClock()
    vfs = Vfs(one.meta, one.blocks, clock, VfsOptions(background=False, read_ahead=0))
    ino, _ = one.meta.resolve(ROOT, b"/f")
    fh = vfs.open(ROOT, ino, os.O_RDONLY)
    vfs.read(fh, 0, BLOCK)
    assert vfs.peek(fh, 0, 4) == DATA[:4]
    clock.advance(1.5)
    assert vfs.peek(fh, 0, 4) is None
    assert vfs.read(fh, 0, 4) == DATA[:4]
    assert vfs.peek(fh, 0, 4) == DATA[:4]
    vfs.close()


def test_a_sequence_of_peeks_reads_ahead(one: Volume) -> None:
    _, fh = open_file(one)
    one.vfs.read(fh, 0, BLOCK)
    assert one.vfs.peek(fh, 0, 1000) is not None
    assert one.vfs.peek(fh, 1000, 1000) is not None
    for _ in range(200):
        if one.vfs.peek(fh, 4 * BLOCK, 10) is not None:
            break
        one.vfs._clock.sleep(0.01)
    assert one.vfs.peek(fh, 4 * BLOCK, 10) == DATA[4 * BLOCK : 4 * BLOCK + 10]
    one.vfs.release(fh)


def test_the_page_cache_answers_what_memory_has_no_room_for(open_at: MakeVolume, tmp_path: Path) -> None:
    small = open_at(cache_dir=str(tmp_path / "cache"), memory_cache=BLOCK, free_space_ratio=0.0)
    small.files.write_bytes("/f", DATA)
    _, fh = open_file(small)
    small.vfs.read(fh, 0, len(DATA))
    small.blocks.cache.flush()
    for at in range(0, len(DATA), BLOCK):
        small.vfs.read(fh, at, 10)
    assert small.vfs.peek(fh, 0, 3 * BLOCK) == DATA[: 3 * BLOCK]
    assert small.metrics.get("cache.disk.peek.bytes") >= 2 * BLOCK or not hasattr(os, "RWF_NOWAIT")
    small.vfs.release(fh)
