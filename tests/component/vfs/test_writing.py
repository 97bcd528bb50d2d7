"""What a writer promises while it holds bytes back: they are read and counted, and wait within bounds."""

from __future__ import annotations

import os

import pytest

from fscore.domain.caller import Caller
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT
from fscore.runtime.clock import FakeClock
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

WHO = Caller.root()
BLOCK = 64 << 10


def create(volume: Volume, name: bytes = b"f", flags: int = os.O_RDWR) -> tuple[int, int]:
    ino, _, fh = volume.vfs.create(WHO, ROOT, name, 0o644, flags)
    return ino, fh


def records(volume: Volume, ino: int, index: int = 0) -> int:
    return len(volume.meta.records(ino, index))


@pytest.mark.parametrize("size", [1, 4095, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 7])
def test_own_writes_are_read_at_every_size(sound_volume: Volume, size: int) -> None:
    vfs = sound_volume.vfs
    _, fh = create(sound_volume)
    want = bytearray()
    for turn in range(4):
        part = bytes([turn + 1]) * size
        at = turn * size // 2
        vfs.write(fh, at, part)
        want[at : at + size] = part
        assert vfs.length(fh) == len(want)
        assert vfs.read(fh, 0, len(want) + 10) == want
        assert vfs.read(fh, at + size - 1, 100) == part[-1:]
        assert vfs.read(fh, len(want), 1) == b""
        into = bytearray(b"?" * (size + 50))
        assert vfs.read_into(fh, at, memoryview(into)) == size
        assert into == part + b"?" * 50
    vfs.release(fh)


def test_small_writes_are_read_without_being_committed(sound_volume: Volume) -> None:
    vfs = sound_volume.vfs
    ino, fh = create(sound_volume)
    vfs.write(fh, 0, b"a" * 1000)
    vfs.flush(fh)
    vfs.write(fh, 10, b"b" * 10)
    vfs.write(fh, 2000, b"c")
    assert vfs.read(fh, 0, 5000) == b"a" * 10 + b"b" * 10 + b"a" * 980 + bytes(1000) + b"c"
    assert records(sound_volume, ino) == 1
    vfs.release(fh)
    assert records(sound_volume, ino) == 3


def test_a_thousand_scattered_writes_are_one_object(sound_volume: Volume) -> None:
    ino, fh = create(sound_volume)
    for number in range(16):
        sound_volume.vfs.write(fh, number * 7919 % 16 * 10_000, bytes([number]) * 4096)
    sound_volume.vfs.release(fh)
    found = sound_volume.meta.records(ino, 0)
    assert len(found) == 16
    assert len({record.id for record in found}) == 1


def test_two_handles_append_without_losing_anything(sound_volume: Volume) -> None:
    vfs = sound_volume.vfs
    ino, one = create(sound_volume, flags=os.O_RDWR | os.O_APPEND)
    two = vfs.open(WHO, ino, os.O_WRONLY | os.O_APPEND)
    for turn in range(5):
        vfs.write(one, 0, b"one%d." % turn)
        vfs.write(two, 12345, b"two%d." % turn)
    assert vfs.read(one, 0, 1000) == b"".join(b"one%d.two%d." % (turn, turn) for turn in range(5))
    assert vfs.truncate_open(two, 5).length == 5
    vfs.write(one, 0, b"end")
    assert vfs.read(one, 0, 100) == b"one0.end"
    vfs.release(one)
    vfs.release(two)


def test_opening_to_truncate_drops_what_another_handle_wrote(sound_volume: Volume) -> None:
    vfs = sound_volume.vfs
    ino, one = create(sound_volume)
    vfs.write(one, 0, b"x" * 1000)
    two = vfs.open(WHO, ino, os.O_RDWR | os.O_TRUNC)
    assert (vfs.length(one), vfs.read(one, 0, 10)) == (0, b"")
    vfs.write(one, 5, b"y")
    assert vfs.read(two, 0, 10) == bytes(5) + b"y"
    vfs.release(one)
    vfs.release(two)


def test_times_move_with_a_write_and_stay_when_it_is_committed(open_at: MakeVolume, clock: FakeClock) -> None:
    volume = open_at(clock=clock)
    vfs = volume.vfs
    ino, fh = create(volume)
    for _ in range(2):
        clock.advance(10)
        wrote = clock.now_ns()
        vfs.write(fh, 0, b"x")
        clock.advance(10)
        assert vfs.getattr(ino).mtime_ns == wrote
        vfs.flush(fh)
        attr = vfs.getattr(ino)
        assert (attr.mtime_ns, attr.ctime_ns) == (wrote, clock.now_ns())
    vfs.release(fh)
    assert_sound(volume)


def test_bytes_never_wait_for_long(open_at: MakeVolume, clock: FakeClock) -> None:
    volume = open_at(clock=clock)
    vfs = volume.vfs
    ino, fh = create(volume)
    for second in range(40):
        vfs.write(fh, second % 5, b"x")
        clock.advance(1)
        vfs.flush_idle(5.0)
        if second == 25:
            assert records(volume, ino) == 0
    assert records(volume, ino) == 1
    vfs.write(fh, 100, b"x")
    clock.advance(6)
    vfs.flush_idle(5.0)
    assert records(volume, ino) > 1
    assert vfs.getattr(ino).length == 101
    vfs.release(fh)
    assert_sound(volume)


def test_memory_is_bounded(make_volume: MakeVolume) -> None:
    volume = make_volume(buffer_size=1 << 20)
    vfs = volume.vfs
    ino, fh = create(volume)
    most = 0
    for number in range(2000):
        vfs.write(fh, number * 7919 % 2000 * 10_000, bytes([number % 251]) * 4096)
        most = max(most, vfs.buffered)
    assert most <= (1 << 20) + 4096
    vfs.flush(fh)
    assert vfs.buffered == 0
    for number in (0, 999, 1999):
        assert vfs.read(fh, number * 7919 % 2000 * 10_000, 4096) == bytes([number % 251]) * 4096
    vfs.release(fh)
    assert volume.meta.getattr(ino).length == 1999 * 10_000 + 4096
    assert_sound(volume)


def test_a_write_may_cross_chunks(sound_volume: Volume) -> None:
    vfs = sound_volume.vfs
    ino, fh = create(sound_volume)
    vfs.write(fh, CHUNK - 100, b"n" * 100 + b"m" * 100)
    vfs.write(fh, CHUNK - 10, b"c" * 20)
    want = b"n" * 90 + b"c" * 20 + b"m" * 90
    assert vfs.read(fh, CHUNK - 100, 500) == want
    vfs.release(fh)
    assert (records(sound_volume, ino, 0), records(sound_volume, ino, 1)) == (1, 1)
    fh = vfs.open(WHO, ino, os.O_RDONLY)
    assert vfs.read(fh, CHUNK - 100, 500) == want
    vfs.release(fh)
