"""fsck finds every kind of damage: each test breaks one thing behind the volume's back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import pytest

from fscore.admin.fsck import FsckReport, fsck
from fscore.domain.attr import Attr, Kind
from fscore.domain.slices import SliceRecord
from fscore.meta.records import DirStat, Edge
from fscore.meta.txn import MetaTxn
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume

BLOCK = 64 << 10


@pytest.fixture
def volume(make_volume: MakeVolume) -> Volume:
    volume = make_volume()
    volume.files.mkdir("/d/e", parents=True)
    volume.files.write_bytes("/d/f", bytes(range(256)) * 1024)
    volume.files.clone("/d/f", "/d/g")
    volume.files.symlink("f", "/d/l")
    volume.files.link("/d/f", "/d/e/h")
    volume.sync()
    assert fsck(volume) == msgspec.structs.replace(fsck(volume), problems=[], leaks=[])
    return volume


def ino(volume: Volume, path: str) -> int:
    return volume.files.stat(path, follow=False).ino


def edit(volume: Volume, body: Callable[[MetaTxn], None]) -> None:
    volume.meta.engine.transact(body)


def node(txn: MetaTxn, number: int) -> Attr:
    attr = txn.node(number)
    assert attr is not None
    return attr


def kinds(report: FsckReport) -> set[str]:
    return {problem.kind for problem in report.problems}


def test_counts(volume: Volume) -> None:
    counts = fsck(volume).counts
    assert (counts["nodes_directory"], counts["nodes_file"], counts["nodes_symlink"]) == (3, 2, 1)
    assert (counts["entries"], counts["slices"], counts["records"], counts["objects"]) == (6, 1, 2, 4)
    assert counts["object_bytes"] == counts["slice_bytes"] == 256 * 1024


def test_a_missing_block(volume: Volume) -> None:
    key = volume.files.info("/d/f").chunks[0].objects[2].key
    volume.objects.delete(key)
    report = fsck(volume)
    assert [(found.kind, found.where) for found in report.problems] == [("missing_block", key)]
    assert fsck(volume, objects=False).sound


def test_a_block_of_the_wrong_size(volume: Volume) -> None:
    key = volume.files.info("/d/f").chunks[0].objects[0].key
    volume.objects.put(key, b"short")
    assert kinds(fsck(volume)) == {"block_size"}


def test_objects_that_nobody_refers_to_are_leaks(volume: Volume) -> None:
    volume.objects.put("chunks/0/0/999_0_5", b"12345")
    volume.objects.put("chunks/0/0/what-is-this", b"12345")
    report = fsck(volume)
    assert report.sound
    assert [leak.kind for leak in report.leaks] == ["object", "object"]


def test_too_few_and_too_many_references(volume: Volume) -> None:
    record = volume.meta.records(ino(volume, "/d/f"), 0)[0]
    edit(volume, lambda txn: txn.add_refs(record.id, record.size, -1))
    assert kinds(fsck(volume)) == {"refs"}
    edit(volume, lambda txn: txn.add_refs(record.id, record.size, 5))
    report = fsck(volume)
    assert report.sound
    assert [leak.kind for leak in report.leaks] == ["refs"]


def test_a_link_count_that_is_wrong(volume: Volume) -> None:
    for path in ("/d", "/d/f"):
        number = ino(volume, path)
        edit(volume, partial(_one_link_more, number=number))
    report = fsck(volume)
    assert kinds(report) == {"nlink"}
    assert len(report.problems) == 2


def _one_link_more(txn: MetaTxn, number: int) -> None:
    _put(txn, number, nlink=node(txn, number).nlink + 1)


def _put(txn: MetaTxn, number: int, **changes: int) -> None:
    txn.put_node(number, msgspec.structs.replace(node(txn, number), **changes))


def test_a_parent_that_is_wrong(volume: Volume) -> None:
    number = ino(volume, "/d/g")
    edit(volume, lambda txn: _put(txn, number, parent=1))
    assert kinds(fsck(volume)) == {"parent"}


def test_parents_of_a_hard_link_that_are_wrong(volume: Volume) -> None:
    number = ino(volume, "/d/f")
    parent = ino(volume, "/d")
    edit(volume, lambda txn: txn.add_parent(number, parent, 1))
    found = kinds(fsck(volume))
    assert found <= {"parents"}
    assert found or volume.meta.engine.name == "sqlite3"  # which counts parents from the entries themselves


def test_an_entry_that_leads_nowhere(volume: Volume) -> None:
    edit(volume, lambda txn: txn.put_edge(1, b"ghost", Edge(Kind.FILE, 123456)))
    assert "dangling_entry" in kinds(fsck(volume))


def test_a_node_that_no_entry_leads_to(volume: Volume) -> None:
    parent = ino(volume, "/d")
    edit(volume, lambda txn: txn.del_edge(parent, b"g"))
    assert kinds(fsck(volume)) == {"orphan_node"}


def test_an_entry_that_says_another_kind(volume: Volume) -> None:
    parent, number = ino(volume, "/d"), ino(volume, "/d/g")
    edit(volume, lambda txn: txn.put_edge(parent, b"g", Edge(Kind.FIFO, number)))
    assert kinds(fsck(volume)) == {"wrong_kind"}


def test_a_tree_cut_off_from_the_root(volume: Volume) -> None:
    top, below = ino(volume, "/d"), ino(volume, "/d/e")

    def loop(txn: MetaTxn) -> None:
        attr = node(txn, top)
        txn.del_edge(1, b"d")
        txn.put_edge(below, b"d", Edge(Kind.DIRECTORY, top))
        txn.put_node(top, msgspec.structs.replace(attr, parent=below))

    edit(volume, loop)
    assert "loop" in kinds(fsck(volume))


def test_records_out_of_bounds(volume: Volume) -> None:
    number = ino(volume, "/d/g")
    record = volume.meta.records(number, 0)[0]

    def grow(txn: MetaTxn) -> None:
        txn.append(number, 0, [SliceRecord(0, record.id, record.size, 10, record.size)])
        txn.add_refs(record.id, record.size, 1)

    edit(volume, grow)
    assert kinds(fsck(volume)) == {"record"}


def test_a_slice_with_two_sizes(volume: Volume) -> None:
    number = ino(volume, "/d/g")
    record = volume.meta.records(number, 0)[0]
    edit(volume, lambda txn: txn.append(number, 0, [SliceRecord(0, record.id, record.size - 1, 0, 1)]))
    assert "record" in kinds(fsck(volume))


def test_usage_that_does_not_add_up(volume: Volume) -> None:
    edit(volume, lambda txn: txn.add_usage(4096, 1))
    report = fsck(volume)
    found = report.leaks if volume.meta.engine.name == "sqlite3" else report.problems
    assert [one.kind for one in found] == ["usage"]


def test_directory_statistics(volume: Volume) -> None:
    engine = volume.meta.engine
    number = ino(volume, "/d")
    engine.set_dir_stat(number, DirStat(1, 4096, 1))
    report = fsck(volume)
    assert report.sound
    assert [note.kind for note in report.notes] == ["dir_stat"]
    engine.set_dir_stat(number, DirStat(-1, 4096, 1))
    assert kinds(fsck(volume)) == {"dir_stat"}
    edit(volume, lambda txn: txn.del_dir_records(number))
    assert kinds(fsck(volume)) == {"dir_stat"}


def test_a_dead_slice_is_a_leak_until_collected(volume: Volume) -> None:
    volume.files.unlink("/d/g")
    volume.files.unlink("/d/f")
    volume.files.unlink("/d/e/h")
    volume.meta.purge_deleted()
    report = fsck(volume)
    assert report.sound
    assert "dead_slice" in {leak.kind for leak in report.leaks}
    volume.collect()
    assert fsck(volume).leaks == []


def test_compressed_volumes_are_checked_too(make_volume: MakeVolume) -> None:
    volume = make_volume(setting={"compression": "lz4", "hash_prefix": True})
    volume.files.write_bytes("/f", bytes(3 * BLOCK))
    report = fsck(volume)
    assert report.sound
    assert report.counts["object_bytes"] < report.counts["slice_bytes"]
    volume.objects.delete(volume.files.info("/f").chunks[0].objects[1].key)
    assert kinds(fsck(volume)) == {"missing_block"}


@pytest.fixture
def busy(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Somebody makes a directory with a file whenever nodes have been read and entries have not."""
    scan = volume.meta.engine.scan_edges
    numbers = itertools.count()

    def scan_edges() -> Iterator[tuple[int, bytes, Edge]]:
        number = next(numbers)
        volume.files.mkdir(f"/d/new{number}")
        volume.files.write_bytes(f"/d/new{number}/file", b"x" * 5000)
        return scan()

    monkeypatch.setattr(volume.meta.engine, "scan_edges", scan_edges)
    return volume


def test_who_writes_meanwhile_is_no_problem(busy: Volume) -> None:
    report = fsck(busy)
    assert report.problems == []
    told = {one.kind for one in [*report.notes, *report.leaks]}
    assert "usage" in told, "totals that nobody could compare are told"


def test_damage_is_found_while_others_write(busy: Volume) -> None:
    (key,) = [found.key for found in busy.objects.scan("chunks/") if found.key.endswith("_3_65536")]
    busy.objects.delete(key)
    edit(busy, lambda txn: txn.put_edge(1, b"gone", Edge(Kind.FILE, 4711)))
    report = fsck(busy)
    assert kinds(report) == {"missing_block", "dangling_entry"}
    assert {problem.where for problem in report.problems} == {key, "b'gone' in inode 1"}
