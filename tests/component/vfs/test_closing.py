"""A client that goes: what it wrote goes first, and deletions that never end keep it no longer than it was told."""

from __future__ import annotations

import time

import pytest

from fscore.domain.caller import Caller
from fscore.runtime.clock import SystemClock
from fscore.vfs import vfs as vfs_module
from fscore.vfs.collector import Collected
from fscore.vfs.vfs import Vfs, VfsOptions
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

ROOT = Caller.root()
FILES = 400


@pytest.fixture
def volume(open_at: MakeVolume) -> Volume:
    """A volume with many deleted files, whose objects are there."""
    volume = open_at(setting={"trash_days": 0}, caller=ROOT, background=False)
    for number in range(FILES):
        volume.files.write_bytes(f"/{number}", b"x")
    for number in range(FILES):
        volume.files.unlink(f"/{number}")
    return volume


class Slow:
    """Deletions of a slow store."""

    def __init__(self, patch: pytest.MonkeyPatch, volume: Volume) -> None:
        self.seen = 0
        self._delete = volume.blocks.delete
        patch.setattr(volume.blocks, "delete", self)

    def __call__(self, slice_id: int, size: int) -> None:
        self.seen += 1
        time.sleep(0.05)
        self._delete(slice_id, size)


def test_close_does_not_wait_for_what_the_collector_still_has_to_do(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vfs_module, "FINISH_S", 0.0)
    slow = Slow(monkeypatch, volume)
    vfs = Vfs(volume.meta, volume.blocks, SystemClock(), VfsOptions(collect_every_s=0.01, read_threads=2))
    while not slow.seen:
        time.sleep(0.005)
    began = time.monotonic()
    vfs.close()
    assert time.monotonic() - began < 2, "all of them take ten seconds"
    gone = slow.seen
    assert 0 < gone < FILES
    assert volume.vfs.collect().slices == FILES - gone, "what was deleted is forgotten, the rest stays queued"
    assert_sound(volume)


def test_the_last_round_holds_its_deadline(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, volume)
    began = time.monotonic()
    done = volume.vfs._collector.finish(0.3)
    assert time.monotonic() - began < 2
    assert 0 < done.slices == slow.seen < FILES
    volume.vfs._collector.stop()
    assert volume.vfs.collect() == Collected(0, 0, 0)
