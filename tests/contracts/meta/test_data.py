"""What files hold: commits, truncation with its zero records, composition and copies, on every engine."""

from __future__ import annotations

import pytest

from fscore.domain.errors import Denied, Invalid, IsADir, NotFound, NotPermitted, TooLarge
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT
from fscore.domain.slices import SliceRecord, hole, pack
from fscore.meta.records import DirStat
from fscore.meta.service import AttrChange, FreshSlice, Hole, MetaService, SliceRange
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, BOB, SUPER, mkdir, mkfile, put, shape

MIB = 1 << 20


def references(meta: MetaService, slice_id: int) -> int:
    """References of a slice as its stored record says; without one it has one."""
    return next((refs for found, _, refs in meta.engine.scan_refs() if found == slice_id), 1)


def test_a_commit_grows_the_file_and_is_charged(meta: MetaService, meta_clock: FakeClock) -> None:
    ino = mkfile(meta, b"f")
    first = meta.new_slice_id()
    meta_clock.advance(2)
    attr = meta.write(ino, 0, [SliceRecord(0, first, 5000, 0, 5000)], 1_700_000_000_000_000_007, new_length=5000)
    assert (attr.length, attr.mtime_ns, attr.ctime_ns) == (5000, 1_700_000_000_000_000_007, meta_clock.now_ns())
    assert meta.statfs()[2:4] == (8192, 1)
    second = meta.new_slice_id()
    assert second == first + 1
    attr = meta.write(ino, 0, [SliceRecord(1000, second, 10, 0, 10)], 1_700_000_000_000_000_008, new_length=1010)
    assert attr.length == 5000
    assert meta.records(ino, 0) == [SliceRecord(0, first, 5000, 0, 5000), SliceRecord(1000, second, 10, 0, 10)]
    assert shape(meta, ino, 5000) == [(0, first, 0, 1000), (1000, second, 0, 10), (1010, first, 1010, 3990)]
    assert meta.dir_stat(ROOT) == DirStat(5000, 8192, 1)


def test_several_records_of_one_slice_in_one_commit(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    one, two = meta.new_slice_id(), meta.new_slice_id()
    records = [
        SliceRecord(0, one, 300, 0, 100),
        SliceRecord(200, one, 300, 200, 100),
        SliceRecord(100, two, 50, 0, 50),
        hole(150, 50),
    ]
    meta.write(ino, 0, records, 5, new_length=300)
    assert meta.records(ino, 0) == records
    assert (references(meta, one), references(meta, two)) == (2, 1)


def test_a_commit_counts_for_every_parent(meta: MetaService) -> None:
    one, two = mkdir(meta, b"one"), mkdir(meta, b"two")
    ino = mkfile(meta, b"f", parent=one)
    meta.link(SUPER, ino, two, b"g")
    meta.link(SUPER, ino, two, b"h")
    put(meta, ino, 0, 9000)
    assert meta.dir_stat(one) == DirStat(9000, 12288, 1)
    assert meta.dir_stat(two) == DirStat(18000, 24576, 2)
    meta.truncate(SUPER, ino, 1)
    assert meta.dir_stat(two) == DirStat(2, 8192, 2)


def test_commits_that_cannot_be(meta: MetaService) -> None:
    ino, sub = mkfile(meta, b"f"), mkdir(meta, b"d")
    good = SliceRecord(0, meta.new_slice_id(), 10, 0, 10)
    for records in ([], [good._replace(length=0)], [good._replace(off=1)], [good._replace(pos=CHUNK - 5)]):
        with pytest.raises(Invalid):
            meta.write(ino, 0, records, 5, new_length=10)
    with pytest.raises(IsADir):
        meta.write(sub, 0, [good], 5, new_length=10)
    with pytest.raises(TooLarge):
        meta.write(ino, (1 << 31), [good], 5, new_length=((1 << 31) + 1) * CHUNK)
    meta.setattr(SUPER, ino, AttrChange(flags=1))
    with pytest.raises(NotPermitted):
        meta.write(ino, 0, [good], 5, new_length=10)
    meta.setattr(SUPER, ino, AttrChange(flags=0))
    meta.unlink(SUPER, ROOT, b"f")
    with pytest.raises(NotFound):
        meta.write(ino, 0, [good], 5, new_length=10)


def test_truncate_leaves_the_records_of_the_format(meta: MetaService) -> None:
    """The vectors of volume-format.md section 10: grow 5000 -> 70 MiB, then shrink to 100."""
    ino = mkfile(meta, b"f", 5000)
    written = meta.records(ino, 0)
    meta.truncate(SUPER, ino, 70 * MIB)
    assert pack(meta.records(ino, 0)[1:]).hex() == "00001388" + "0" * 16 + "0" * 16 + "03ffec78"
    assert pack(meta.records(ino, 1)).hex() == "00000000" + "0" * 16 + "0" * 16 + "00600000"
    assert meta.statfs()[2] == 70 * MIB
    meta.truncate(SUPER, ino, 100)
    assert pack(meta.records(ino, 0)[2:]).hex() == "00000064" + "0" * 16 + "0" * 16 + "03ffff9c"
    assert pack(meta.records(ino, 1)[1:]).hex() == "00000000" + "0" * 16 + "0" * 16 + "00600000"
    assert meta.statfs()[2] == 4096
    assert shape(meta, ino, 100) == [(0, written[0].id, 0, 100)]


def test_a_small_shrink(meta: MetaService, meta_clock: FakeClock) -> None:
    ino = mkfile(meta, b"f", 11)
    meta_clock.advance(1)
    attr = meta.truncate(SUPER, ino, 5)
    assert (attr.length, attr.mtime_ns, attr.ctime_ns) == (5, meta_clock.now_ns(), meta_clock.now_ns())
    assert pack(meta.records(ino, 0)[1:]).hex() == "00000005" + "0" * 16 + "0" * 16 + "00000006"
    assert meta.truncate(SUPER, ino, 5) == attr
    assert len(meta.records(ino, 0)) == 2


def test_what_was_cut_off_never_comes_back(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", 5000)
    old = meta.records(ino, 0)[0].id
    meta.truncate(SUPER, ino, 100)
    (new,) = put(meta, ino, 4000, 10)
    assert shape(meta, ino, 4010) == [(0, old, 0, 100), (4000, new, 0, 10)]


def test_truncate_over_chunk_borders(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    put(meta, ino, 2 * CHUNK + 10, 100)
    meta.truncate(SUPER, ino, 5 * CHUNK)
    assert [len(meta.records(ino, index)) for index in range(5)] == [0, 0, 2, 0, 0]
    meta.truncate(SUPER, ino, CHUNK)
    assert [len(meta.records(ino, index)) for index in range(5)] == [0, 1, 3, 0, 0]
    assert meta.records(ino, 2)[2] == hole(0, CHUNK)
    meta.truncate(SUPER, ino, 0)
    assert meta.records(ino, 0) == [hole(0, CHUNK)]
    assert shape(meta, ino, 5 * CHUNK) == []


def test_truncate_of_a_huge_sparse_file_touches_what_exists(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    put(meta, ino, 900 * CHUNK, 10)
    meta.truncate(SUPER, ino, 1 << 50)
    meta.truncate(SUPER, ino, 10)
    assert [len(meta.records(ino, index)) for index in (0, 1, 899, 900, 901)] == [1, 0, 0, 3, 0]
    with pytest.raises(TooLarge):
        meta.truncate(SUPER, ino, (1 << 57) + 1)
    with pytest.raises(Invalid):
        meta.truncate(SUPER, ino, -1)


def test_truncate_asks_for_permission(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", 10, who=ALICE)
    with pytest.raises(Denied):
        meta.truncate(BOB, ino, 0)
    meta.truncate(BOB, ino, 0, checked=True)
    with pytest.raises(IsADir):
        meta.truncate(SUPER, ROOT, 0)


def test_copy_file_range_leaves_the_record_of_the_format(meta: MetaService) -> None:
    """The vector of section 10: source offset 1000, 100000 bytes, to offset 7."""
    source, target = mkfile(meta, b"s", 200_000), mkfile(meta, b"t")
    slice_id = meta.records(source, 0)[0].id
    assert meta.copy_file_range(SUPER, source, 1000, target, 7, 100_000) == 100_000
    assert meta.records(target, 0) == [SliceRecord(7, slice_id, 200_000, 1000, 100_000)]
    assert references(meta, slice_id) == 2
    assert meta.getattr(target).length == 100_007
    assert meta.copy_file_range(SUPER, source, 199_990, target, 0, 100) == 10
    assert meta.copy_file_range(SUPER, source, 300_000, target, 0, 100) == 0
    assert references(meta, slice_id) == 3
    for offsets in ((-1, 0, 5), (0, -1, 5), (0, 0, -5)):
        with pytest.raises(Invalid):
            meta.copy_file_range(SUPER, source, offsets[0], target, offsets[1], offsets[2])
    with pytest.raises(Invalid):
        meta.copy_file_range(SUPER, source, 0, source, 5, 10)
    assert meta.copy_file_range(SUPER, source, 0, source, 200_000, 10) == 10


def test_a_copy_brings_its_holes(meta: MetaService) -> None:
    source, target = mkfile(meta, b"s"), mkfile(meta, b"t", 1000)
    old = meta.records(target, 0)[0].id
    (new,) = put(meta, source, 500, 100)
    meta.truncate(SUPER, source, 900)
    meta.copy_file_range(SUPER, source, 0, target, 50, 900)
    assert shape(meta, target, 1000) == [(0, old, 0, 50), (550, new, 0, 100), (950, old, 950, 50)]


def test_compose_lays_pieces_and_merges_what_continues(meta: MetaService) -> None:
    source = mkfile(meta, b"s", 100_000)
    slice_id = meta.records(source, 0)[0].id
    target = mkfile(meta, b"t")
    fresh = meta.new_slice_id()
    attr = meta.compose(
        SUPER,
        target,
        0,
        [
            SliceRange(source, 0, 40_000),
            SliceRange(source, 40_000, 10_000),
            FreshSlice(fresh, 8000, 0, 3000),
            FreshSlice(fresh, 8000, 3000, 5000),
            Hole(2000),
            SliceRange(source, 50_000, 50_000),
        ],
    )
    assert attr.length == 110_000
    assert meta.records(target, 0) == [
        SliceRecord(0, slice_id, 100_000, 0, 50_000),
        SliceRecord(50_000, fresh, 8000, 0, 8000),
        SliceRecord(60_000, slice_id, 100_000, 50_000, 50_000),
    ]
    assert (references(meta, slice_id), references(meta, fresh)) == (3, 1)
    assert meta.statfs()[2] == 102_400 + 110_592


def test_compose_over_chunk_borders(meta: MetaService) -> None:
    source = mkfile(meta, b"s")
    ids = put(meta, source, 0, 2 * CHUNK)
    target = mkfile(meta, b"t")
    fresh = meta.new_slice_id()
    meta.compose(
        SUPER,
        target,
        0,
        [Hole(CHUNK - 1000), FreshSlice(fresh, 5000, 0, 5000), SliceRange(source, CHUNK - 500, CHUNK)],
    )
    assert shape(meta, target, 3 * CHUNK) == [
        (CHUNK - 1000, fresh, 0, 1000),
        (CHUNK, fresh, 1000, 4000),
        (CHUNK + 4000, ids[0], CHUNK - 500, 500),
        (CHUNK + 4500, ids[1], 0, CHUNK - 4500),
        (2 * CHUNK, ids[1], CHUNK - 4500, 4000),
    ]
    assert [references(meta, one) for one in (fresh, *ids)] == [2, 2, 3]
    assert meta.getattr(target).length == 2 * CHUNK + 4000


def test_compose_over_what_is_there(meta: MetaService) -> None:
    target = mkfile(meta, b"t", 10_000)
    old = meta.records(target, 0)[0].id
    meta.compose(SUPER, target, 2000, [Hole(1000)])
    assert shape(meta, target, 10_000) == [(0, old, 0, 2000), (3000, old, 3000, 7000)]
    assert meta.compose(SUPER, target, 0, []).length == 10_000


def test_compose_refuses_what_does_not_fit(meta: MetaService) -> None:
    source, target, sub = mkfile(meta, b"s", 100, who=ALICE), mkfile(meta, b"t", who=BOB), mkdir(meta, b"d")
    meta.setattr(SUPER, source, AttrChange(mode=0o600))
    for pieces, error in (
        ([SliceRange(source, 50, 51)], Invalid),
        ([SliceRange(source, -1, 5)], Invalid),
        ([SliceRange(sub, 0, 5)], IsADir),
        ([SliceRange(999, 0, 5)], NotFound),
        ([FreshSlice(meta.new_slice_id(), 10, 5, 6)], Invalid),
        ([Hole(-1)], Invalid),
    ):
        with pytest.raises(error):
            meta.compose(SUPER, target, 0, pieces)
    with pytest.raises(Denied):
        meta.compose(BOB, target, 0, [SliceRange(source, 0, 5)])
    with pytest.raises(Denied):
        meta.compose(ALICE, target, 0, [SliceRange(source, 0, 5)])
    meta.setattr(SUPER, source, AttrChange(flags=1))
    meta.compose(SUPER, target, 0, [SliceRange(source, 0, 5)])
    meta.setattr(SUPER, target, AttrChange(flags=1))
    with pytest.raises(NotPermitted):
        meta.compose(SUPER, target, 0, [SliceRange(source, 0, 5)])


def test_a_shared_slice_dies_with_its_last_record(meta: MetaService) -> None:
    source, target = mkfile(meta, b"s", 1000), mkfile(meta, b"t")
    slice_id = meta.records(source, 0)[0].id
    meta.copy_file_range(SUPER, source, 0, target, 0, 500)
    meta.unlink(SUPER, ROOT, b"s")
    assert meta.purge_deleted() == 1
    assert meta.dead() == []
    assert references(meta, slice_id) == 1
    meta.unlink(SUPER, ROOT, b"t")
    assert meta.purge_deleted() == 1
    assert meta.dead() == [(slice_id, 1000)]
    assert meta.dead() == [(slice_id, 1000)], "asked again it comes again"
    meta.forget([(slice_id, 1000)])
    assert meta.dead() == []
    assert list(meta.engine.scan_refs()) == []
    assert list(meta.engine.scan_chunks()) == []


def test_what_a_file_held_past_its_end_goes_with_it(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", 3 * CHUNK)
    meta.truncate(SUPER, ino, 10)
    meta.unlink(SUPER, ROOT, b"f")
    meta.purge_deleted()
    assert len(meta.dead()) == 3
    assert list(meta.engine.scan_chunks()) == []


def test_deleted_files_of_a_dead_client_wait_an_hour(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    one, two = make_meta(), make_meta()
    mkfile(one, b"f", 1000)
    one.unlink(SUPER, ROOT, b"f")
    assert two.purge_deleted() == 0
    meta_clock.advance(3700)
    assert two.purge_deleted() == 1
    assert [size for _, size in two.dead()] == [1000]
    assert one.purge_deleted() == 1, "again is harmless"


def test_reading_a_file_that_is_gone(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    assert meta.read(ino, 0) == []
    meta.unlink(SUPER, ROOT, b"f")
    with pytest.raises(NotFound):
        meta.read(ino, 0)


def test_opening_asks_for_permission_and_fresh_attributes(make_meta: MakeMeta) -> None:
    one, two = make_meta(cache_s=100.0), make_meta()
    ino = mkfile(one, b"f", 10, who=ALICE)
    one.getattr(ino)
    put(two, ino, 10, 10)
    assert one.getattr(ino).length == 10, "within the ceiling it may be old"
    assert one.open_file(ALICE, ino, write=True).length == 20
    one.close_file(ino)
    one.open_file(BOB, ino, write=False)
    one.close_file(ino)
    with pytest.raises(Denied):
        one.open_file(BOB, ino, write=True)
    with pytest.raises(IsADir):
        one.open_file(SUPER, ROOT, write=True)
