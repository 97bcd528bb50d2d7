"""The trash: where things go, what they are called, who takes them out, and when they are gone; on every engine."""

from __future__ import annotations

import pytest

from fscore.domain.attr import Flag, Kind
from fscore.domain.errors import Exists, NotFound, NotPermitted
from fscore.domain.ids import ROOT, TRASH
from fscore.meta.records import DirStat
from fscore.meta.service import AttrChange, MetaService, RenameFlag
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, SUPER, mkdir, mkfile, names

HOUR = b"2023-11-14-22"
FIRST_HOUR = TRASH + 1


@pytest.fixture
def meta(make_meta: MakeMeta) -> MetaService:
    """A client of a volume that keeps deleted things for a day."""
    return make_meta(setting={"trash_days": 1})


def test_the_trash_root(meta: MetaService) -> None:
    ino, attr = meta.lookup(SUPER, ROOT, b".trash")
    assert (ino, attr.mode, attr.nlink, attr.parent) == (TRASH, 0o555, 2, ROOT)
    assert names(meta) == {}, "it is not listed"
    assert names(meta, TRASH) == {}
    assert meta.statfs()[2:4] == (0, 0)


def test_an_unlinked_file_lies_in_the_hour(meta: MetaService, meta_clock: FakeClock) -> None:
    sub = mkdir(meta, b"d")
    ino = mkfile(meta, b"a.txt", 5000, parent=sub)
    before = meta.getattr(ino)
    meta_clock.advance(3)
    meta.unlink(SUPER, sub, b"a.txt")
    assert names(meta, sub) == {}
    assert names(meta, TRASH) == {HOUR: FIRST_HOUR}
    hour = meta.getattr(FIRST_HOUR)
    assert (hour.kind, hour.mode, hour.nlink, hour.length, hour.parent) == (Kind.DIRECTORY, 0o555, 2, 4096, TRASH)
    assert (hour.uid, hour.gid) == (0, 0)
    assert names(meta, FIRST_HOUR) == {b"%d-%d-a.txt" % (sub, ino): ino}
    after = meta.getattr(ino)
    assert (after.nlink, after.parent, after.ctime_ns) == (1, FIRST_HOUR, meta_clock.now_ns())
    assert after.mtime_ns == before.mtime_ns
    assert meta.statfs()[2:4] == (4096 + 4096 + 8192, 3), "still charged, and the hour as well"
    assert meta.dir_stat(sub) == DirStat(0, 0, 0)
    assert meta.dir_stat(FIRST_HOUR) == DirStat(5000, 8192, 1)
    assert meta.dead() == []


def test_one_hour_directory_an_hour(meta: MetaService, meta_clock: FakeClock) -> None:
    for index in range(3):
        mkfile(meta, b"f%d" % index)
        meta.unlink(SUPER, ROOT, b"f%d" % index)
        meta_clock.advance(1800)
    assert names(meta, TRASH) == {HOUR: TRASH + 1, b"2023-11-14-23": TRASH + 2}
    assert len(names(meta, TRASH + 2)) == 1


def test_two_clients_share_the_hour(make_meta: MakeMeta) -> None:
    one, two = make_meta(setting={"trash_days": 1}), make_meta()
    mkfile(one, b"a")
    mkfile(two, b"b")
    one.unlink(SUPER, ROOT, b"a")
    two.unlink(SUPER, ROOT, b"b")
    assert len(names(one, TRASH)) == 1
    assert len(names(one, FIRST_HOUR)) == 2


def test_long_names_are_cut(meta: MetaService) -> None:
    ino = mkfile(meta, b"n" * 255)
    meta.unlink(SUPER, ROOT, b"n" * 255)
    (name,) = names(meta, FIRST_HOUR)
    assert name == (b"1-%d-" % ino + b"n" * 255)[:255]


def test_directories_go_too(meta: MetaService) -> None:
    sub = mkdir(meta, b"d")
    meta.rmdir(SUPER, ROOT, b"d")
    assert meta.getattr(ROOT).nlink == 2
    assert (meta.getattr(sub).nlink, meta.getattr(sub).parent) == (2, FIRST_HOUR)
    assert meta.getattr(FIRST_HOUR).nlink == 2, "links of hours are not kept"
    assert meta.engine.dir_stat(sub) is None


def test_a_replaced_file_goes_too(meta: MetaService) -> None:
    sub = mkdir(meta, b"d")
    old, new = mkfile(meta, b"old", 10, parent=sub), mkfile(meta, b"new")
    meta.rename(SUPER, ROOT, b"new", sub, b"old")
    assert names(meta, sub) == {b"old": new}
    assert names(meta, FIRST_HOUR) == {b"%d-%d-old" % (sub, old): old}


def test_hard_links_keep_their_count(meta: MetaService) -> None:
    ino = mkfile(meta, b"a")
    meta.link(SUPER, ino, ROOT, b"b")
    meta.unlink(SUPER, ROOT, b"a")
    assert (meta.getattr(ino).nlink, meta.getattr(ino).parent) == (2, 0)
    with meta.engine.view() as view:
        assert view.parents(ino) == {ROOT: 1, FIRST_HOUR: 1}
    meta.link(SUPER, ino, ROOT, b"a")
    meta.unlink(SUPER, ROOT, b"a")
    assert meta.getattr(ino).nlink == 2, "its name is in the trash already, so this link is gone for good"
    with meta.engine.view() as view:
        assert view.parents(ino) == {ROOT: 1, FIRST_HOUR: 1}


def test_what_skips_the_trash(meta: MetaService) -> None:
    mkfile(meta, b"a", 10)
    meta.unlink(SUPER, ROOT, b"a", skip_trash=True)
    mkdir(meta, b"d")
    meta.rmdir(SUPER, ROOT, b"d", skip_trash=True)
    flagged = mkdir(meta, b"flagged")
    meta.setattr(SUPER, flagged, AttrChange(flags=Flag.SKIP_TRASH))
    inside, attr = meta.create(SUPER, flagged, b"f", 0o644)
    assert attr.flags == Flag.SKIP_TRASH, "new nodes inherit it"
    meta.unlink(SUPER, flagged, b"f")
    with pytest.raises(NotFound):
        meta.getattr(inside)
    meta.rmdir(SUPER, ROOT, b"flagged")
    assert sum(len(names(meta, hour)) for hour in names(meta, TRASH).values()) == 0


def test_the_trash_is_frozen(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", 10)
    sub = mkdir(meta, b"d")
    inner = mkfile(meta, b"inner", parent=sub)
    meta.unlink(SUPER, sub, b"inner", skip_trash=True)
    meta.unlink(SUPER, ROOT, b"f")
    meta.rmdir(SUPER, ROOT, b"d")
    name = b"1-%d-f" % ino
    for forbidden in (
        lambda: meta.setattr(SUPER, ino, AttrChange(mode=0)),
        lambda: meta.setattr(SUPER, FIRST_HOUR, AttrChange(mode=0)),
        lambda: meta.truncate(SUPER, ino, 0),
        lambda: meta.open_file(SUPER, ino, write=True),
        lambda: meta.link(SUPER, ino, ROOT, b"back"),
        lambda: meta.create(SUPER, FIRST_HOUR, b"x", 0o644),
        lambda: meta.create(SUPER, TRASH, b"x", 0o644),
        lambda: meta.rmdir(SUPER, TRASH, HOUR),
        lambda: meta.unlink(ALICE, FIRST_HOUR, name),
        lambda: meta.rename(ALICE, FIRST_HOUR, name, ROOT, b"f"),
        lambda: meta.rename(SUPER, TRASH, HOUR, ROOT, b"hour"),
        lambda: meta.setxattr(SUPER, ino, b"user.a", b""),
    ):
        with pytest.raises(NotPermitted):
            forbidden()
    with pytest.raises(NotFound):
        meta.create(SUPER, sub, b"x", 0o644)
    assert inner
    meta.open_file(SUPER, ino, write=False)
    meta.close_file(ino)


def test_the_superuser_takes_out_and_empties(meta: MetaService) -> None:
    one, two = mkfile(meta, b"one", 10), mkfile(meta, b"two", 10)
    meta.unlink(SUPER, ROOT, b"one")
    meta.unlink(SUPER, ROOT, b"two")
    hour = meta.getattr(FIRST_HOUR)
    meta.rename(SUPER, FIRST_HOUR, b"1-%d-one" % one, ROOT, b"uno")
    assert (names(meta), meta.getattr(one).parent) == ({b"uno": one}, ROOT)
    meta.unlink(SUPER, FIRST_HOUR, b"1-%d-two" % two)
    with pytest.raises(NotFound):
        meta.getattr(two)
    assert meta.getattr(FIRST_HOUR) == hour, "its times stay"
    assert meta.purge_deleted() == 1


def test_restore_puts_things_where_they_were(meta: MetaService) -> None:
    sub = mkdir(meta, b"d")
    ino = mkfile(meta, b"a-b-c", 10, parent=sub)
    other = mkfile(meta, b"x", parent=sub)
    meta.unlink(SUPER, sub, b"a-b-c")
    meta.unlink(SUPER, sub, b"x")
    again = mkfile(meta, b"x", parent=sub)
    assert meta.restore(SUPER, FIRST_HOUR, b"%d-%d-a-b-c" % (sub, ino)) == ino
    with pytest.raises(Exists):
        meta.restore(SUPER, FIRST_HOUR, b"%d-%d-x" % (sub, other))
    assert names(meta, sub) == {b"a-b-c": ino, b"x": again}
    with pytest.raises(NotPermitted):
        meta.rename(ALICE, FIRST_HOUR, b"%d-%d-x" % (sub, other), sub, b"y", flags=RenameFlag(33))


def test_purge_waits_for_its_day_and_two_hours(meta: MetaService, meta_clock: FakeClock) -> None:
    sub = mkdir(meta, b"d")
    deep = mkdir(meta, b"deep", parent=sub)
    mkfile(meta, b"f", 10_000, parent=deep)
    linked = mkfile(meta, b"l", 10)
    meta.link(SUPER, linked, ROOT, b"l2")
    meta.unlink(SUPER, ROOT, b"l")
    meta.unlink(SUPER, deep, b"f")
    meta.rmdir(SUPER, sub, b"deep")
    meta.rmdir(SUPER, ROOT, b"d")
    assert meta.purge_trash() == 0
    meta_clock.advance(26 * 3600)
    assert meta.purge_trash() == 0
    meta_clock.advance(3600)
    assert meta.purge_trash() == 1
    assert names(meta, TRASH) == {}
    assert (meta.getattr(linked).nlink, names(meta)) == (1, {b"l2": linked})
    assert meta.statfs()[2:4] == (4096, 1)
    assert meta.purge_deleted() == 1
    assert [size for _, size in meta.dead()] == [10_000]


def test_purge_takes_a_tree_that_was_moved_in_whole(meta: MetaService, meta_clock: FakeClock) -> None:
    """A directory that a peer moved into the trash with entries below is emptied from the bottom."""
    sub = mkdir(meta, b"d")
    mkfile(meta, b"gone", 1)
    meta.unlink(SUPER, ROOT, b"gone")
    deep = mkdir(meta, b"deep", parent=sub)
    mkfile(meta, b"f", 10_000, parent=deep)
    meta.remove_tree(ROOT, b"d", sub)
    assert names(meta) == {}
    assert meta.getattr(ROOT).nlink == 2
    meta_clock.advance(3600)
    assert meta.purge_trash() == 0


def test_the_hour_is_made_only_for_something(meta: MetaService, meta_clock: FakeClock) -> None:
    mkfile(meta, b"a")
    meta.rename(SUPER, ROOT, b"a", ROOT, b"b")
    with pytest.raises(NotFound):
        meta.unlink(SUPER, ROOT, b"a")
    assert names(meta, TRASH) == {}
    mkfile(meta, b"a")
    meta.rename(SUPER, ROOT, b"a", ROOT, b"b")
    assert len(names(meta, FIRST_HOUR)) == 1
    meta_clock.advance(3600)
    meta.unlink(SUPER, ROOT, b"b")
    assert len(names(meta, TRASH)) == 2
