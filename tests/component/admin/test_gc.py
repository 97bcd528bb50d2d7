"""gc finds what crashes leave behind and nothing else, on every engine, and removes only what is old."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import msgspec

from fscore.admin.compact import compact
from fscore.admin.gc import GcReport, gc
from fscore.domain.caller import Caller
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT
from fscore.domain.slices import SliceRecord
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

WHO = Caller.root()
HOUR = 3600
BLOCK = 64 << 10


def later(hours: float) -> FakeClock:
    return FakeClock(time.time_ns() + int(hours * HOUR) * 10**9)


def orphan_slice(volume: Volume, size: int = 2 * BLOCK + 5) -> int:
    """A slice that was uploaded and never committed."""
    slice_id = volume.meta.new_slice_id()
    writer = volume.blocks.new_writer(slice_id)
    writer.write(b"x" * size)
    writer.finish()
    return slice_id


def found(report: GcReport) -> dict[str, int]:
    names = ("leaked_objects", "lost_nodes", "lost_chunks", "detached_trees", "unfinished_files")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_a_healthy_volume_is_clean_however_old(sound_volume: Volume) -> None:
    fs = sound_volume.files
    fs.mkdir("/d/e", parents=True)
    fs.write_bytes("/d/f", b"x" * 3 * BLOCK)
    fs.link("/d/f", "/d/e/g")
    fs.symlink("f", "/d/s")
    fs.clone("/d", "/c")
    fs.truncate("/d/f", 10)
    report = gc(sound_volume, clock=later(2000))
    assert report.clean
    assert (report.objects, report.slices) == (3, 1)
    assert gc(sound_volume, delete=True, clock=later(2000)).clean
    assert fs.read_bytes("/c/e/g") == b"x" * 3 * BLOCK


def test_leaked_objects_go_when_they_are_old(sound_volume: Volume) -> None:
    volume = sound_volume
    volume.files.write_bytes("/kept", b"k" * BLOCK)
    orphan_slice(volume)
    young = gc(volume, delete=True)
    assert found(young) == {}
    assert (young.skipped_objects, young.skipped_bytes) == (3, 2 * BLOCK + 5)
    dry = gc(volume, clock=later(1.1))
    assert (found(dry), dry.leaked_bytes, dry.deleted) == ({"leaked_objects": 3}, 2 * BLOCK + 5, False)
    assert gc(volume, clock=later(1.1)).leaked_objects == 3
    assert gc(volume, delete=True, clock=later(1.1)).leaked_objects == 3
    after = gc(volume, clock=later(1.1))
    assert (after.objects, after.clean) == (1, True)
    assert volume.files.read_bytes("/kept") == b"k" * BLOCK


def test_a_block_that_its_slice_does_not_have_is_a_leak(sound_volume: Volume) -> None:
    volume = sound_volume
    volume.files.write_bytes("/f", b"k" * (BLOCK + 7))
    slice_id = volume.files.info("/f").chunks[0].records[0].id
    for key in (f"{slice_id}_1_8", f"{slice_id}_2_7", f"{slice_id}_0_65535"):
        volume.objects.put(f"chunks/0/0/{key}", b"?" * 8)
    volume.objects.put("chunks/0/0/somebody-elses", b"?")
    assert gc(volume, clock=later(2)).leaked_objects == 3
    gc(volume, delete=True, clock=later(2))
    assert gc(volume, clock=later(2)).clean
    volume.objects.delete("chunks/0/0/somebody-elses")


def test_a_slice_that_is_named_between_the_passes_stays(volume: Volume) -> None:
    """A reference that moves may hide from one pass over the records."""
    slice_id = orphan_slice(volume, 100)
    ino, _ = volume.meta.create(WHO, ROOT, b"f", 0o644)
    scan = volume.meta.engine.scan_delayed
    calls: list[int] = []

    def late() -> Iterator[tuple[int, int]]:
        calls.append(1)
        if len(calls) == 2:  # after the count of what is parked, and the first pass over the chunks
            volume.meta.write(ino, 0, [SliceRecord(0, slice_id, 100, 0, 100)], 1, new_length=100)
        return scan()

    volume.meta.engine.scan_delayed = late  # type: ignore[method-assign]
    report = gc(volume, delete=True, clock=later(2))
    assert calls
    assert report.leaked_objects == 0
    assert volume.files.read_bytes("/f") == b"x" * 100


def test_lost_nodes_and_chunk_lists(sound_volume: Volume) -> None:
    volume = sound_volume
    fs, engine = volume.files, volume.meta.engine
    fs.mkdir("/d")
    fs.write_bytes("/d/child", b"c" * 100)
    fs.write_bytes("/lost", b"l" * 100)
    fs.write_bytes("/gone", b"g" * 100)
    fs.symlink("somewhere", "/link")
    lost = {name: fs.stat(name, follow=False).ino for name in ("/d", "/lost", "/link", "/gone")}
    fs.setxattr("/lost", "user.x", b"1")

    def damage(txn: MetaTxn) -> None:
        root = txn.node(ROOT)
        assert root is not None
        for name in (b"d", b"lost", b"link", b"gone"):
            txn.del_edge(ROOT, name)
        txn.del_node(lost["/gone"])
        txn.put_node(ROOT, msgspec.structs.replace(root, nlink=2))
        txn.add_usage(-4096, -1)

    engine.transact(damage)
    assert found(gc(volume, clock=later(0.9))) == {"lost_chunks": 1}
    assert found(gc(volume, clock=later(1.1))) == {"lost_chunks": 1, "lost_nodes": 3}
    assert found(gc(volume, delete=True, clock=later(1.1))) == {"lost_chunks": 1, "lost_nodes": 3}
    assert gc(volume, clock=later(3)).clean
    with engine.view() as view:
        assert [view.node(ino) for ino in lost.values()] == [None] * 4
        assert not view.xattrs(lost["/lost"])
    assert list(engine.scan_chunks()) == []
    recount(volume)


def recount(volume: Volume) -> None:
    """The test took entries away behind the statistics' back."""
    volume.meta.flush()
    volume.meta._stats.recount(ROOT)


def test_an_entry_that_leads_to_a_node_keeps_it(sound_volume: Volume) -> None:
    """An unlinked file that is still open, and one that only the trash knows, are nobody's leak."""
    volume = sound_volume
    _, _, fh = volume.vfs.create(WHO, ROOT, b"open", 0o644, os.O_RDWR)
    volume.vfs.write(fh, 0, b"x" * 100)
    volume.vfs.flush(fh)
    volume.meta.unlink(WHO, ROOT, b"open")
    assert gc(volume, delete=True, clock=later(3)).clean
    assert volume.vfs.read(fh, 0, 200) == b"x" * 100
    volume.vfs.release(fh)


def test_dead_clones_and_unfinished_files(sound_volume: Volume) -> None:
    volume = sound_volume
    fs, engine = volume.files, volume.meta.engine
    fs.mkdir("/d/e", parents=True)
    fs.write_bytes("/d/e/f", b"f" * 100)
    root = fs.stat("/d").ino
    fs.rename("/d", "/clone")
    fs.write_bytes("/.model.safetensors.0123456789ab.tmp", b"t" * 100)
    fs.write_bytes("/.model.0123456789.tmp", b"mine")
    fs.write_bytes("/model.0123456789ab.tmp", b"mine")

    def detach(txn: MetaTxn) -> None:
        txn.del_edge(ROOT, b"clone")
        txn.detach(root, int(time.time()))

    engine.transact(detach)
    assert found(gc(volume, clock=later(23))) == {}
    assert found(gc(volume, clock=later(25))) == {"detached_trees": 1, "unfinished_files": 1}
    gc(volume, delete=True, clock=later(25))
    assert gc(volume, clock=later(50)).clean
    assert sorted(fs.listdir("/")) == [".model.0123456789.tmp", "model.0123456789ab.tmp"]
    assert not list(engine.scan_detached())

    def mend(txn: MetaTxn) -> None:
        above = txn.node(ROOT)
        assert above is not None
        txn.put_node(ROOT, msgspec.structs.replace(above, nlink=2))

    engine.transact(mend)
    recount(volume)


def test_gc_does_the_hourly_jobs_at_once(make_volume: MakeVolume) -> None:
    volume, other = make_volume(setting={"trash_days": 0}), make_volume()
    other.files.write_bytes("/f", b"x" * 100)
    other.files.unlink("/f")
    assert gc(volume).pending_files == 1
    assert gc(volume, delete=True).pending_files == 1, "it is another client's for an hour"
    other.collect()
    assert gc(volume).pending_files == 0
    assert_sound(volume)


def test_compact_walks_a_tree(sound_volume: Volume) -> None:
    volume = sound_volume
    volume.files.mkdir("/d")
    for name in ("/d/a", "/d/b", "/c"):
        for number in range(4):
            with volume.files.open(name, "ab") as file:
                file.write(bytes([number]) * 1000)
    volume.files.write_bytes("/d/single", b"s")
    volume.files.set_immutable("/d/b", on=True)
    report = compact(volume, "/d")
    assert (report.files, report.chunks, report.compacted, report.immutable) == (3, 2, 1, 1)
    assert (report.records_before, report.records_after, report.bytes_written) == (5, 2, 4000)
    assert volume.files.read_bytes("/d/a") == b"".join(bytes([number]) * 1000 for number in range(4))
    assert compact(volume, "/c").compacted == 1
    assert compact(volume).compacted == 0


def test_the_hourly_job_removes_unfinished_files_once_a_day(sound_volume: Volume) -> None:
    volume = sound_volume
    volume.files.write_bytes("/.f.0123456789ab.tmp", b"x")
    volume.files.write_bytes("/f", b"x")
    start = time.time_ns()
    for hour in range(1, 24):
        volume.meta.purge_trash(start + hour * HOUR * 10**9)
    assert volume.files.listdir("/") == [".f.0123456789ab.tmp", "f"]
    for hour in range(25, 50):
        volume.meta.purge_trash(start + hour * HOUR * 10**9)
    assert volume.files.listdir("/") == ["f"]


def test_a_file_whose_deletion_was_cut_short_is_nobodys_loss(sound_volume: Volume) -> None:
    volume, fs = sound_volume, sound_volume.files
    length = 5 * CHUNK + 10
    with fs.open("/big", "wb") as file:
        for index in range(6):
            file.seek(index * CHUNK)
            file.write(b"x" * 10)
    ino = fs.stat("/big").ino
    fs.unlink("/big")
    asked = iter([False] * 3)
    assert volume.meta._drop_files([(ino, length)], set(), lambda: next(asked, True)) == 0
    assert {index for found, index, _ in volume.meta.engine.scan_chunks() if found == ino} == {2, 3, 4, 5}
    volume.meta._doomed.clear()  # its client goes
    assert_sound(volume)
    report = gc(volume, clock=later(2000))
    assert report.clean
    assert report.pending_files == 1
    assert volume.meta.purge_deleted(later(2).now_ns(), gated=False) == 1
    assert list(volume.meta.engine.scan_chunks()) == []
