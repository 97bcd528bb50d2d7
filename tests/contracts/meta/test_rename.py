"""Rename in all its forms, on every engine."""

from __future__ import annotations

import pytest

from fscore.domain.errors import (
    Denied,
    Exists,
    Invalid,
    IsADir,
    NotADir,
    NotEmpty,
    NotFound,
    NotPermitted,
    Unsupported,
)
from fscore.domain.ids import ROOT, TRASH
from fscore.meta.records import DirStat
from fscore.meta.service import AttrChange, MetaService, RenameFlag
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, BOB, SUPER, mkdir, mkfile, names


def test_within_a_directory(meta: MetaService, meta_clock: FakeClock) -> None:
    ino = mkfile(meta, b"a", 100)
    meta_clock.advance(5)
    moved, attr = meta.rename(SUPER, ROOT, b"a", ROOT, b"b")
    assert (moved, attr.ctime_ns, attr.parent) == (ino, meta_clock.now_ns(), ROOT)
    assert attr.mtime_ns < attr.ctime_ns
    assert names(meta) == {b"b": ino}
    assert meta.getattr(ROOT).mtime_ns == meta_clock.now_ns()
    assert meta.dir_stat(ROOT) == DirStat(100, 4096, 1)


def test_a_directory_between_directories_moves_its_link(meta: MetaService) -> None:
    one, two = mkdir(meta, b"one"), mkdir(meta, b"two")
    sub = mkdir(meta, b"sub", parent=one)
    mkfile(meta, b"f", 5000, parent=sub)
    meta.rename(SUPER, one, b"sub", two, b"bus")
    assert [meta.getattr(ino).nlink for ino in (one, two)] == [2, 3]
    assert meta.getattr(sub).parent == two
    assert meta.dir_stat(one) == DirStat(0, 0, 0)
    assert meta.dir_stat(two) == DirStat(0, 4096, 1)
    assert meta.resolve(SUPER, b"/two/bus/f")[1].length == 5000


def test_over_a_file_destroys_it(meta: MetaService) -> None:
    sub = mkdir(meta, b"sub")
    new = mkfile(meta, b"new", 5000)
    old = mkfile(meta, b"old", 100_000, parent=sub)
    meta.rename(SUPER, ROOT, b"new", sub, b"old")
    assert names(meta, sub) == {b"old": new}
    with pytest.raises(NotFound):
        meta.getattr(old)
    assert meta.statfs()[2:4] == (4096 + 8192, 2)
    assert meta.dir_stat(sub) == DirStat(5000, 8192, 1)
    assert meta.purge_deleted() == 1
    assert [size for _, size in meta.dead()] == [100_000]


def test_over_a_hard_link_leaves_the_other(meta: MetaService) -> None:
    sub = mkdir(meta, b"sub")
    old = mkfile(meta, b"old")
    meta.link(SUPER, old, sub, b"too")
    mkfile(meta, b"new")
    meta.rename(SUPER, ROOT, b"new", sub, b"too")
    assert meta.getattr(old).nlink == 1
    with meta.engine.view() as view:
        assert view.parents(old) == {ROOT: 1}


def test_of_a_hard_link_moves_its_parent(meta: MetaService) -> None:
    sub = mkdir(meta, b"sub")
    ino = mkfile(meta, b"a")
    meta.link(SUPER, ino, ROOT, b"b")
    meta.rename(SUPER, ROOT, b"b", sub, b"c")
    with meta.engine.view() as view:
        assert view.parents(ino) == {ROOT: 1, sub: 1}


def test_two_names_of_one_inode_are_left_alone(meta: MetaService) -> None:
    ino = mkfile(meta, b"a")
    meta.link(SUPER, ino, ROOT, b"b")
    before = meta.getattr(ino)
    meta.rename(SUPER, ROOT, b"a", ROOT, b"b")
    meta.rename(SUPER, ROOT, b"a", ROOT, b"a")
    assert names(meta) == {b"a": ino, b"b": ino}
    assert meta.getattr(ino) == before
    with pytest.raises(Exists):
        meta.rename(SUPER, ROOT, b"a", ROOT, b"b", flags=RenameFlag.NO_REPLACE)


def test_over_directories(meta: MetaService) -> None:
    one, two = mkdir(meta, b"one"), mkdir(meta, b"two")
    mkfile(meta, b"f", parent=one)
    mkfile(meta, b"plain")
    with pytest.raises(NotEmpty):
        meta.rename(SUPER, ROOT, b"two", ROOT, b"one")
    with pytest.raises(IsADir):
        meta.rename(SUPER, ROOT, b"plain", ROOT, b"two")
    with pytest.raises(NotADir):
        meta.rename(SUPER, ROOT, b"one", ROOT, b"plain")
    meta.rename(SUPER, ROOT, b"one", ROOT, b"two")
    assert names(meta) == {b"two": one, b"plain": names(meta)[b"plain"]}
    assert meta.getattr(ROOT).nlink == 3
    with pytest.raises(NotFound):
        meta.getattr(two)


def test_never_below_itself(meta: MetaService) -> None:
    a = mkdir(meta, b"a")
    b = mkdir(meta, b"b", parent=a)
    c = mkdir(meta, b"c", parent=b)
    d = mkdir(meta, b"d", parent=c)
    for below in (a, b, c, d):
        with pytest.raises(Invalid):
            meta.rename(SUPER, ROOT, b"a", below, b"x")
    with pytest.raises(Invalid):
        meta.rename(SUPER, ROOT, b"a", c, b"d", flags=RenameFlag.EXCHANGE)
    with pytest.raises(Invalid):
        meta.rename(SUPER, c, b"d", ROOT, b"a", flags=RenameFlag.EXCHANGE)
    with pytest.raises(NotEmpty):
        meta.rename(SUPER, c, b"d", ROOT, b"a")
    meta.rename(SUPER, c, b"d", ROOT, b"d")
    meta.rename(SUPER, ROOT, b"a", d, b"a")


def test_no_replace(meta: MetaService) -> None:
    ino = mkfile(meta, b"a")
    mkfile(meta, b"b")
    with pytest.raises(Exists):
        meta.rename(SUPER, ROOT, b"a", ROOT, b"b", flags=RenameFlag.NO_REPLACE)
    meta.rename(SUPER, ROOT, b"a", ROOT, b"c", flags=RenameFlag.NO_REPLACE)
    assert names(meta)[b"c"] == ino


def test_exchange(meta: MetaService, meta_clock: FakeClock) -> None:
    one, two = mkdir(meta, b"one"), mkdir(meta, b"two")
    folder = mkdir(meta, b"x", parent=one)
    inside = mkfile(meta, b"inside", 3, parent=folder)
    plain = mkfile(meta, b"y", 9000, parent=two)
    meta.link(SUPER, plain, two, b"z")
    meta_clock.advance(1)
    meta.rename(SUPER, one, b"x", two, b"y", flags=RenameFlag.EXCHANGE)
    assert names(meta, one) == {b"x": plain}
    assert names(meta, two) == {b"y": folder, b"z": plain}
    assert names(meta, folder) == {b"inside": inside}
    assert [meta.getattr(ino).nlink for ino in (one, two)] == [2, 3]
    assert meta.getattr(folder).parent == two
    assert meta.getattr(plain).ctime_ns == meta_clock.now_ns()
    with meta.engine.view() as view:
        assert view.parents(plain) == {one: 1, two: 1}
    assert meta.dir_stat(one) == DirStat(9000, 12288, 1)
    assert meta.dir_stat(two) == DirStat(9000, 12288 + 4096, 2)
    with pytest.raises(NotFound):
        meta.rename(SUPER, one, b"x", two, b"nothing", flags=RenameFlag.EXCHANGE)
    with pytest.raises(Invalid):
        meta.rename(SUPER, one, b"x", two, b"y", flags=RenameFlag.EXCHANGE | RenameFlag.NO_REPLACE)
    with pytest.raises(Unsupported):
        meta.rename(SUPER, one, b"x", two, b"y", flags=RenameFlag.WHITEOUT)


def test_missing_and_reserved_names(meta: MetaService) -> None:
    mkfile(meta, b"a")
    with pytest.raises(NotFound):
        meta.rename(SUPER, ROOT, b"nothing", ROOT, b"x")
    with pytest.raises(NotFound):
        meta.rename(SUPER, ROOT, b"a", 999, b"x")
    with pytest.raises(NotPermitted):
        meta.rename(SUPER, ROOT, b"a", ROOT, b".trash")
    with pytest.raises(NotPermitted):
        meta.rename(SUPER, ROOT, b"a", TRASH, b"a")
    with pytest.raises(Invalid):
        meta.rename(SUPER, ROOT, b"a", ROOT, b"..")


def test_permissions_of_both_directories(meta: MetaService) -> None:
    mine, theirs = mkdir(meta, b"mine", who=ALICE), mkdir(meta, b"theirs", who=BOB)
    mkfile(meta, b"f", parent=mine, who=ALICE)
    mkfile(meta, b"g", parent=theirs, who=BOB)
    for who, source, target in ((ALICE, (mine, b"f"), (theirs, b"f")), (ALICE, (theirs, b"g"), (mine, b"g"))):
        with pytest.raises(Denied):
            meta.rename(who, *source, *target)
    meta.rename(ALICE, mine, b"f", mine, b"ff")


def test_flags_stand_in_the_way(meta: MetaService) -> None:
    fixed, open_ = mkdir(meta, b"fixed"), mkdir(meta, b"open")
    mkfile(meta, b"in", parent=fixed)
    frozen = mkfile(meta, b"frozen", parent=open_)
    mkfile(meta, b"free", parent=open_)
    meta.setattr(SUPER, fixed, AttrChange(flags=1))
    meta.setattr(SUPER, frozen, AttrChange(flags=1))
    for source, target in (
        ((fixed, b"in"), (open_, b"in")),
        ((open_, b"free"), (fixed, b"free")),
        ((open_, b"frozen"), (open_, b"thawed")),
        ((open_, b"free"), (open_, b"frozen")),
        ((ROOT, b"fixed"), (ROOT, b"unfixed")),
    ):
        with pytest.raises(NotPermitted):
            meta.rename(SUPER, *source, *target)
    with pytest.raises(NotPermitted):
        meta.rename(SUPER, open_, b"free", open_, b"frozen", flags=RenameFlag.EXCHANGE)
    meta.setattr(SUPER, fixed, AttrChange(flags=0))
    meta.rename(SUPER, fixed, b"in", open_, b"in")


def test_two_clients_never_lose_an_entry(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    sub = mkdir(one, b"sub")
    for index in range(40):
        ino = mkfile(one, b"f%d" % index)
        two.rename(SUPER, ROOT, b"f%d" % index, sub, b"g%d" % index)
        one.rename(SUPER, sub, b"g%d" % index, sub, b"h%d" % index)
        assert two.resolve(SUPER, b"/sub/h%d" % index)[0] == ino
    assert len(names(two, sub)) == 40
