"""fallocate, seek and copy_file_range through handles, on every engine."""

from __future__ import annotations

import errno
import os

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle, FsError, Invalid, PastEnd, Unsupported
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT
from fscore.volume import Volume

WHO = Caller.root()
KEEP, PUNCH, ZERO = 1, 3, 16
DATA, HOLE = 3, 4
TB = 1 << 40


def make(volume: Volume, name: bytes = b"f", content: bytes = b"") -> tuple[int, int]:
    """A new file, open to read and write: (inode, handle)."""
    ino, _, fh = volume.vfs.create(WHO, ROOT, name, 0o644, os.O_RDWR)
    if content:
        volume.vfs.write(fh, 0, content)
    return ino, fh


def whole(volume: Volume, fh: int) -> bytes:
    return volume.vfs.read(fh, 0, volume.vfs.length(fh))


def test_fallocate_extends_or_keeps(sound_volume: Volume) -> None:
    ino, fh = make(sound_volume, content=b"abc")
    assert sound_volume.vfs.fallocate(fh, KEEP, 0, 100).length == 3
    assert sound_volume.vfs.fallocate(fh, 0, 2, 8).length == 10
    assert sound_volume.vfs.fallocate(fh, 0, 0, 4).length == 10
    assert whole(sound_volume, fh) == b"abc" + bytes(7)
    assert sound_volume.vfs.getattr(ino).length == 10
    sound_volume.vfs.release(fh)


def test_holes_and_zeros_are_punched(sound_volume: Volume) -> None:
    content = bytes(range(1, 201)) * 1000
    _, fh = make(sound_volume, content=content)
    vfs = sound_volume.vfs
    vfs.fallocate(fh, PUNCH, 100, 70_000)
    want = bytearray(content)
    want[100:70_100] = bytes(70_000)
    assert whole(sound_volume, fh) == want
    vfs.write(fh, 200, b"again")
    want[200:205] = b"again"
    assert vfs.fallocate(fh, ZERO, 199_990, 100).length == 200_090
    want[199_990:] = bytes(100)
    assert whole(sound_volume, fh) == want
    assert vfs.fallocate(fh, ZERO | KEEP, 0, 300_000).length == 200_090
    assert whole(sound_volume, fh) == bytes(200_090)
    vfs.truncate_open(fh, 300_000)
    assert whole(sound_volume, fh) == bytes(300_000)
    vfs.release(fh)


def test_a_file_may_be_punched_whose_mode_forbids_writing_by_its_handle(sound_volume: Volume) -> None:
    alice = Caller(uid=1000, gid=1000)
    _, _, fh = sound_volume.vfs.create(alice, ROOT, b"f", 0o444, os.O_RDWR)
    sound_volume.vfs.write(fh, 0, b"abc")
    sound_volume.vfs.fallocate(fh, PUNCH, 0, 1)
    assert sound_volume.vfs.copy_file_range(fh, 1, fh, 10, 2) == 2
    assert whole(sound_volume, fh) == b"\0bc" + bytes(7) + b"bc"
    sound_volume.vfs.release(fh)


@pytest.mark.parametrize("mode", [8, 32, 2, 2 | 16 | 1, 64])
def test_other_modes_are_not_supported(volume: Volume, mode: int) -> None:
    _, fh = make(volume, content=b"abc")
    with pytest.raises(Unsupported):
        volume.vfs.fallocate(fh, mode, 0, 1)
    with pytest.raises(Invalid):
        volume.vfs.fallocate(fh, 0, 0, 0)
    ino, reader = make(volume, b"g")
    volume.vfs.release(reader)
    reader = volume.vfs.open(WHO, ino, os.O_RDONLY)
    with pytest.raises(BadHandle):
        volume.vfs.fallocate(reader, 0, 0, 1)
    for handle in (fh, reader):
        volume.vfs.release(handle)


def test_seek_finds_data_and_holes_that_are_not_committed_yet(sound_volume: Volume) -> None:
    _, fh = make(sound_volume)
    vfs = sound_volume.vfs
    vfs.write(fh, 1000, b"x" * 100)
    vfs.write(fh, 3 * CHUNK - 10, b"y" * 20)
    vfs.truncate_open(fh, 4 * CHUNK)
    seeks = [(at, whence, vfs.seek(fh, at, whence)) for at in (0, 1000, 1050, 1100) for whence in (DATA, HOLE)]
    far = 3 * CHUNK - 10
    assert [found for _, _, found in seeks] == [1000, 0, 1000, 1100, 1050, 1100, far, 1100]
    assert vfs.seek(fh, far, HOLE) == far + 20
    assert vfs.seek(fh, far + 20, HOLE) == far + 20
    with pytest.raises(PastEnd) as caught:
        vfs.seek(fh, far + 20, DATA)
    assert caught.value.errno == errno.ENXIO
    for whence in (DATA, HOLE):
        with pytest.raises(PastEnd):
            vfs.seek(fh, 4 * CHUNK, whence)
    with pytest.raises(Invalid):
        vfs.seek(fh, 0, os.SEEK_END)
    vfs.release(fh)


def test_a_full_file_ends_with_a_hole(sound_volume: Volume) -> None:
    _, fh = make(sound_volume, content=b"x" * 100_000)
    assert sound_volume.vfs.seek(fh, 0, DATA) == 0
    assert sound_volume.vfs.seek(fh, 5, HOLE) == 100_000
    sound_volume.vfs.release(fh)


def test_copies_cross_chunk_borders_and_carry_holes(sound_volume: Volume) -> None:
    vfs = sound_volume.vfs
    _, source = make(sound_volume, b"source", b"0123456789")
    vfs.write(source, CHUNK - 5, b"abcdefghij")
    _, target = make(sound_volume, b"target", b"T" * 100)
    vfs.write(target, 2 * CHUNK - 50, b"U" * 100)
    assert vfs.copy_file_range(source, 5, target, 50, 10) == 10
    assert whole(sound_volume, target)[:100] == b"T" * 50 + b"56789" + bytes(5) + b"T" * 40
    assert vfs.copy_file_range(source, CHUNK - 20, target, 2 * CHUNK - 18, 100) == 25
    assert vfs.read(target, 2 * CHUNK - 50, 100) == b"U" * 32 + bytes(15) + b"abcdefghij" + b"U" * 43
    assert vfs.copy_file_range(source, CHUNK + 5, target, 0, 10) == 0
    assert vfs.copy_file_range(source, 0, source, CHUNK - 5, 5) == 5
    assert vfs.read(source, CHUNK - 5, 10) == b"01234fghij"
    with pytest.raises(Invalid):
        vfs.copy_file_range(source, 0, source, 4, 5)
    for fh in (source, target):
        vfs.release(fh)


def test_a_copy_needs_handles_that_read_and_write(volume: Volume) -> None:
    ino, fh = make(volume, content=b"abc")
    append = volume.vfs.open(WHO, ino, os.O_RDWR | os.O_APPEND)
    blind = volume.vfs.open(WHO, ino, os.O_WRONLY)
    for source, target in ((fh, append), (blind, fh)):
        with pytest.raises(BadHandle):
            volume.vfs.copy_file_range(source, 0, target, 10, 1)
    for handle in (fh, append, blind):
        volume.vfs.release(handle)


def test_a_terabyte_of_nothing_costs_nothing(sound_volume: Volume) -> None:
    vfs = sound_volume.vfs
    _, fh = make(sound_volume)
    vfs.write(fh, TB - 1, b"z")
    assert vfs.seek(fh, 0, DATA) == TB - 1
    assert vfs.seek(fh, 0, HOLE) == 0
    assert vfs.read(fh, TB // 2, 10) == bytes(10)
    assert vfs.fallocate(fh, 0, TB, TB).length == 2 * TB
    vfs.fallocate(fh, PUNCH, 0, 2 * TB)
    with pytest.raises(PastEnd):
        vfs.seek(fh, 0, DATA)
    vfs.write(fh, TB // 3, b"middle")
    assert vfs.truncate_open(fh, TB // 3 + 3).length == TB // 3 + 3
    assert vfs.truncate_open(fh, TB).length == TB
    assert vfs.read(fh, TB // 3, 10) == b"mid" + bytes(7)
    assert vfs.seek(fh, 0, DATA) == TB // 3
    records = sum(len(found) for _, _, found in sound_volume.meta.engine.scan_chunks())
    assert records < 20
    vfs.release(fh)


def test_a_removed_file_cannot_be_changed_by_others(volume: Volume) -> None:
    ino, fh = make(volume, content=b"abc")
    volume.meta.unlink(WHO, ROOT, b"f")
    volume.vfs.release(fh)
    with pytest.raises(FsError):
        volume.meta.fallocate(WHO, ino, 0, 0, 1)
