"""Compaction on every engine: who triggers it, what it replaces, and what it must not touch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from fscore.blocks.upload import SliceWriter
from fscore.domain.attr import Flag
from fscore.domain.caller import Caller
from fscore.domain.errors import UnavailableError
from fscore.domain.ids import ROOT
from fscore.files.compose import Range, data
from fscore.meta.service import AttrChange
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty
from fscore.vfs.compaction import Thresholds
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

WHO = Caller.root()


def scribble(volume: Volume, name: bytes, pieces: int, size: int = 1000) -> tuple[int, bytes]:
    """A file of so many slices, each a commit of its own."""
    ino, _, fh = volume.vfs.create(WHO, ROOT, name, 0o644, os.O_RDWR)
    content = b""
    for number in range(pieces):
        part = bytes([number % 250 + 1]) * size
        volume.vfs.write(fh, len(content), part)
        volume.vfs.flush(fh)
        content += part
    volume.vfs.release(fh)
    return ino, content


def read(volume: Volume, ino: int) -> bytes:
    fh = volume.vfs.open(WHO, ino, os.O_RDONLY)
    try:
        return volume.vfs.read(fh, 0, 1 << 22)
    finally:
        volume.vfs.release(fh)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("trash_days", [0, 1])
def test_a_chunk_is_compacted_when_asked_for(make_volume: MakeVolume, trash_days: int) -> None:
    volume = make_volume(setting={"trash_days": trash_days})
    ino, content = scribble(volume, b"f", 20)
    before = volume.meta.records(ino, 0)
    assert volume.vfs.compact(ino, 0) == len(content)
    after = volume.meta.records(ino, 0)
    assert (len(before), len(after)) == (20, 1)
    assert volume.vfs.compact(ino, 0) == 0
    assert read(volume, ino) == content
    parked = sorted(volume.meta.engine.scan_delayed())
    assert parked == (sorted((record.id, record.size) for record in before) if trash_days else [])
    assert volume.collect().slices == (0 if trash_days else 20)
    assert_sound(volume)


def test_parked_slices_go_when_the_trash_would_have_let_them_go(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"trash_days": 1})
    ino, content = scribble(volume, b"f", 5)
    volume.vfs.compact(ino, 0)
    now = time.time_ns()
    hour = 3600 * 1_000_000_000
    assert volume.meta.purge_delayed(now + 23 * hour) == 0
    assert volume.meta.purge_delayed(now + 25 * hour) == 1
    assert volume.collect().slices == 5
    assert read(volume, ino) == content
    assert_sound(volume)


def test_a_reader_asks_for_it(make_volume: MakeVolume) -> None:
    volume = make_volume(background=True, heartbeat_s=0)
    ino, content = scribble(volume, b"f", 6)
    other, _ = scribble(volume, b"g", 4)
    assert read(volume, ino) == content
    read(volume, other)
    eventually(lambda: len(volume.meta.records(ino, 0)) == 1)
    volume.vfs.drain()
    assert len(volume.meta.records(other, 0)) == 4
    assert read(volume, ino) == content
    assert_sound(volume)


def test_a_writer_asks_for_it(make_volume: MakeVolume) -> None:
    volume = make_volume(background=True, heartbeat_s=0, compact=Thresholds(read=0, write=10))
    ino, content = scribble(volume, b"f", 40)
    volume.vfs.drain()
    # All thirty others may have been written before the first ten were read: then they wait for the next write.
    assert len(volume.meta.records(ino, 0)) <= 31
    assert read(volume, ino) == content
    assert_sound(volume)


def test_a_list_never_gets_longer_than_the_smallest_engine_can_hold(make_volume: MakeVolume) -> None:
    volume = make_volume(compact=Thresholds(read=0, write=0, force=50))
    ino, _, fh = volume.vfs.create(WHO, ROOT, b"f", 0o644, os.O_RDWR)
    want = bytearray(4 << 20)
    longest = 0
    for number in range(200):
        at = number * 7919 * 100 % (4 << 20)
        for step in range(3):
            volume.vfs.write(fh, at + step * 300, b"x" * 100)
            want[at + step * 300 : at + step * 300 + 100] = b"x" * 100
        volume.vfs.flush(fh)
        longest = max(longest, len(volume.meta.records(ino, 0)))
    assert 40 < longest <= 50
    got = volume.vfs.read(fh, 0, 5 << 20)
    assert got == want[: len(got)]
    volume.vfs.release(fh)
    assert_sound(volume)


def test_immutable_files_are_left_alone(make_volume: MakeVolume) -> None:
    volume = make_volume(background=True, heartbeat_s=0)
    ino, content = scribble(volume, b"f", 8)
    volume.meta.setattr(WHO, ino, AttrChange(flags=int(Flag.IMMUTABLE)))
    assert read(volume, ino) == content
    volume.vfs.drain()
    assert volume.vfs.compact(ino, 0) == 0
    assert len(volume.meta.records(ino, 0)) == 8


def test_what_was_composed_here_keeps_what_it_shares(make_volume: MakeVolume) -> None:
    volume = make_volume(background=True, heartbeat_s=0)
    scribble(volume, b"f", 3)
    pieces = [piece for number in range(4) for piece in (Range("/f", number * 100, 50), data(b"new"))]
    volume.files.compose("/g", pieces)
    ino = volume.files.stat("/g").ino
    before = volume.meta.records(ino, 0)
    assert len(before) == 8
    volume.files.read_bytes("/g")
    volume.vfs.drain()
    assert volume.meta.records(ino, 0) == before
    assert_sound(volume)


def test_a_peer_that_is_faster_wins_and_nothing_stays_behind(make_volume: MakeVolume) -> None:
    ours, theirs = make_volume(), make_volume()
    ino, content = scribble(ours, b"f", 10)
    put = ours.blocks.new_writer

    def overtaken(slice_id: int, tier: int = 0) -> SliceWriter:
        ours.blocks.new_writer = put  # type: ignore[method-assign]
        assert theirs.vfs.compact(ino, 0) == len(content)
        return put(slice_id, tier)

    ours.blocks.new_writer = overtaken  # type: ignore[method-assign]
    assert ours.vfs.compact(ino, 0) == 0
    assert read(ours, ino) == content == read(theirs, ino)
    assert len(ours.meta.records(ino, 0)) == 1
    theirs.collect()
    assert_sound(ours)


def test_a_reader_survives_that_its_slices_vanish(make_volume: MakeVolume) -> None:
    reader, other = make_volume(memory_cache=0), make_volume()
    ino, content = scribble(other, b"f", 10)
    fh = reader.vfs.open(WHO, ino, os.O_RDONLY)
    assert reader.vfs.read(fh, 0, 100) == content[:100]
    other.vfs.compact(ino, 0)
    assert other.collect().slices == 10
    assert reader.vfs.read(fh, 5000, 3000) == content[5000:8000]
    reader.vfs.release(fh)
    assert_sound(other)


def test_a_failing_store_loses_nothing(make_volume: MakeVolume) -> None:
    store, plan = MemoryStore("compaction"), FaultPlan(calls=frozenset({"put"}), error=UnavailableError)
    volume = make_volume(setting={"object_store": store}, object_store=Faulty(store, plan), attempts=1)
    ino, content = scribble(volume, b"f", 10)
    plan.seen, plan.at, plan.persistent = 0, 1, True
    with pytest.raises(UnavailableError):
        volume.vfs.compact(ino, 0)
    plan.heal()
    assert len(volume.meta.records(ino, 0)) == 10
    assert read(volume, ino) == content
    assert volume.vfs.compact(ino, 0) == len(content)
    assert_sound(volume)
