"""A client that goes: what it wrote goes first, and deletions that never end keep it no longer than it was told."""

from __future__ import annotations

import time

import pytest

from fscore.domain.caller import Caller
from fscore.domain.setting import Setting
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty
from fscore.runtime.clock import SystemClock
from fscore.runtime.threads import Task
from fscore.vfs import background
from fscore.vfs.collector import Collected
from fscore.vfs.options import VfsOptions
from fscore.vfs.vfs import Vfs
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
    monkeypatch.setattr(background, "FINISH_S", 0.0)
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
    done = volume.vfs._behind.collector.finish(0.3)
    assert time.monotonic() - began < 2
    assert 0 < done.slices == slow.seen < FILES
    volume.vfs._behind.collector.stop()
    assert volume.vfs.collect() == Collected(0, 0, 0)


def test_a_store_that_does_not_answer_keeps_nobody_who_has_nothing_to_write(open_at: MakeVolume) -> None:
    plan = FaultPlan(1, persistent=True, calls=frozenset({"delete"}))
    volume = open_at(caller=ROOT, object_store=Faulty(MemoryStore(), plan))
    volume.files.write_bytes("/f", b"x")
    volume.files.unlink("/f")
    deletes = Task("collect", volume.collect)
    while not plan.struck:
        time.sleep(0.01)
    began = time.monotonic()
    volume.close()
    assert time.monotonic() - began < 3, "a deletion is tried for 75 seconds"
    assert deletes.join(1)
    assert deletes.error is None


class Closed(MemoryStore):
    """Knows how often it was closed, and says that this failed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        raise OSError("the connection is gone already")


def test_every_part_is_closed_whatever_the_others_say(open_at: MakeVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Closed] = []

    def make(*_: object, **__: object) -> Closed:
        made.append(Closed())
        return made[-1]

    open_at(caller=ROOT).close()
    monkeypatch.setattr("fscore.volume.open_store", make)
    monkeypatch.setattr(Setting, "tier_numbers", (0, 1))
    volume = open_at(caller=ROOT)
    end = volume.vfs.wholes.close

    def fail() -> None:
        end()
        raise RuntimeError("the first of all")

    monkeypatch.setattr(volume.vfs.wholes, "close", fail)
    with pytest.raises(RuntimeError, match="first"):
        volume.close()
    assert volume.meta._closed
    assert [store.closed for store in made] == [1, 1]
