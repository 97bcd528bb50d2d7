"""Entries: create, mkdir, link, symlink, unlink, rmdir, lookup and resolve, on every engine."""

from __future__ import annotations

import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import (
    Denied,
    Exists,
    FsError,
    Invalid,
    IsADir,
    NotADir,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooLong,
    TooManyLinks,
)
from fscore.domain.ids import ROOT, TRASH
from fscore.meta.records import DirStat
from fscore.meta.service import AttrChange, MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, BOB, SUPER, kinds, mkdir, mkfile, names


def test_a_new_file_has_the_attributes_of_the_format(meta: MetaService, meta_clock: FakeClock) -> None:
    meta_clock.advance(10)
    ino, attr = meta.create(ALICE, ROOT, b"f", 0o6777)
    now = meta_clock.now_ns()
    assert (attr.kind, attr.mode, attr.uid, attr.gid) == (Kind.FILE, 0o6755, 1000, 1000)
    assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) == (now, now, now)
    assert (attr.nlink, attr.length, attr.rdev, attr.parent, attr.flags) == (1, 0, 0, ROOT, 0)
    root = meta.getattr(ROOT)
    assert (root.nlink, root.mtime_ns, root.ctime_ns) == (2, now, now)
    assert meta.lookup(ALICE, ROOT, b"f") == (ino, attr)
    assert meta.statfs()[2:4] == (4096, 1)
    assert meta.dir_stat(ROOT) == DirStat(0, 4096, 1)


def test_the_first_inodes_follow_the_root(meta: MetaService) -> None:
    assert [mkfile(meta, b"%d" % index) for index in range(3)] == [2, 3, 4]


def test_mkdir_counts_a_link_of_its_parent(meta: MetaService) -> None:
    ino, attr = meta.mkdir(SUPER, ROOT, b"d", 0o7777)
    assert (attr.kind, attr.mode, attr.nlink, attr.length) == (Kind.DIRECTORY, 0o7755, 2, 4096)
    assert meta.getattr(ROOT).nlink == 3
    assert meta.engine.dir_stat(ino) == DirStat(0, 0, 0)
    meta.rmdir(SUPER, ROOT, b"d")
    assert meta.getattr(ROOT).nlink == 2
    assert meta.statfs()[2:4] == (0, 0)
    assert meta.engine.dir_stat(ino) is None


def test_setgid_directories_hand_down_their_group(meta: MetaService) -> None:
    shared = mkdir(meta, b"shared", mode=0o777)
    meta.setattr(SUPER, shared, _chown(gid=500))
    meta.setattr(SUPER, shared, _chmod(0o2777))
    _, sub = meta.mkdir(ALICE, shared, b"sub", 0o755)
    assert (sub.gid, sub.mode) == (500, 0o2755)
    _, script = meta.create(ALICE, shared, b"script", 0o2755)
    assert (script.gid, script.mode) == (500, 0o755)
    _, plain = meta.create(ALICE, shared, b"plain", 0o2644)
    assert (plain.gid, plain.mode) == (500, 0o2644)


def _chown(*, uid: int | None = None, gid: int | None = None) -> AttrChange:
    return AttrChange(uid=uid, gid=gid)


def _chmod(mode: int) -> AttrChange:
    return AttrChange(mode=mode)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"", NotFound),
        (b".", Exists),
        (b"..", Exists),
        (b"a/b", Invalid),
        (b"a\0b", Invalid),
        (b"n" * 256, TooLong),
        (b".trash", NotPermitted),
        (b".control", NotPermitted),
    ],
)
def test_names_that_cannot_be(meta: MetaService, name: bytes, error: type[FsError]) -> None:
    with pytest.raises(error):
        meta.create(SUPER, ROOT, name, 0o644)
    assert names(meta) == {}


def test_names_are_bytes_of_any_sort(meta: MetaService) -> None:
    wanted = {b"\xff\xfe", b"n" * 255, b"tab\tnl\n", "e\u0301".encode(), "\u00e9".encode(), b".trash2", b" "}
    for name in wanted:
        mkfile(meta, name)
    assert set(names(meta)) == wanted
    inner = mkdir(meta, b"inner")
    mkfile(meta, b".trash", parent=inner)
    assert set(names(meta, inner)) == {b".trash"}


def test_create_of_a_name_that_exists(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", 100)
    mkdir(meta, b"d")
    with pytest.raises(Exists):
        meta.create(SUPER, ROOT, b"f", 0o644)
    with pytest.raises(Exists):
        meta.mkdir(SUPER, ROOT, b"f", 0o755)
    found, attr = meta.create(SUPER, ROOT, b"f", 0o600, exclusive=False)
    assert (found, attr.length, attr.mode) == (ino, 100, 0o644)
    with pytest.raises(IsADir):
        meta.create(SUPER, ROOT, b"d", 0o644, exclusive=False)


def test_parents_that_cannot_hold_entries(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    with pytest.raises(NotADir):
        meta.create(SUPER, ino, b"x", 0o644)
    with pytest.raises(NotFound):
        meta.create(SUPER, 999, b"x", 0o644)
    with pytest.raises(NotPermitted):
        meta.create(SUPER, TRASH, b"x", 0o644)
    with pytest.raises(NotADir):
        list(meta.readdir(SUPER, ino))


def test_hard_links_keep_their_parents_apart(meta: MetaService) -> None:
    one, two = mkdir(meta, b"one"), mkdir(meta, b"two")
    ino = mkfile(meta, b"f", 10_000, parent=one)
    attr = meta.link(SUPER, ino, two, b"g")
    assert (attr.nlink, attr.parent) == (2, 0)
    assert meta.link(SUPER, ino, two, b"h").nlink == 3
    with meta.engine.view() as view:
        assert view.parents(ino) == {one: 1, two: 2}
    assert meta.statfs()[2:4] == (4096 * 2 + 12288, 3)
    meta.unlink(SUPER, two, b"g")
    meta.unlink(SUPER, one, b"f")
    assert (meta.getattr(ino).nlink, meta.getattr(ino).parent) == (1, 0)
    with meta.engine.view() as view:
        assert view.parents(ino) == {two: 1}
    assert meta.dir_stat(two) == DirStat(10_000, 12288, 1)
    assert meta.dir_stat(one) == DirStat(0, 0, 0)
    meta.unlink(SUPER, two, b"h")
    assert meta.statfs()[2:4] == (4096 * 2, 2)


def test_a_link_needs_a_file_and_a_free_name(meta: MetaService) -> None:
    ino, sub = mkfile(meta, b"f"), mkdir(meta, b"d")
    with pytest.raises(Exists):
        meta.link(SUPER, ino, ROOT, b"d")
    with pytest.raises(NotPermitted):
        meta.link(SUPER, sub, ROOT, b"dd")
    with pytest.raises(NotFound):
        meta.link(SUPER, 999, ROOT, b"g")


def test_symbolic_links(meta: MetaService) -> None:
    ino, attr = meta.symlink(ALICE, ROOT, b"l", b"some\xffwhere")
    assert (attr.kind, attr.mode, attr.length, attr.nlink) == (Kind.SYMLINK, 0o777, 10, 1)
    assert meta.readlink(ino) == b"some\xffwhere"
    with pytest.raises(Invalid):
        meta.readlink(ROOT)
    for target, error in ((b"", NotFound), (b"a\0", Invalid), (b"t" * 4097, TooLong)):
        with pytest.raises(error):
            meta.symlink(SUPER, ROOT, b"bad", target)
    meta.unlink(SUPER, ROOT, b"l")
    with pytest.raises(NotFound):
        meta.readlink(ino)


def test_special_files_keep_their_numbers(meta: MetaService) -> None:
    for kind in (Kind.FIFO, Kind.BLOCK, Kind.CHAR, Kind.SOCKET):
        meta.mknod(SUPER, ROOT, kind.name.encode(), kind, 0o600, rdev=0x11110370)
    assert kinds(meta) == {kind.name.encode(): kind for kind in (Kind.FIFO, Kind.BLOCK, Kind.CHAR, Kind.SOCKET)}
    ino, attr = meta.lookup(SUPER, ROOT, b"BLOCK")
    assert (attr.rdev, attr.length) == (0x11110370, 0)
    meta.unlink(SUPER, ROOT, b"BLOCK")
    with pytest.raises(NotFound):
        meta.getattr(ino)


def test_unlink_and_rmdir_take_their_own_kind(meta: MetaService) -> None:
    mkfile(meta, b"f")
    sub = mkdir(meta, b"d")
    mkfile(meta, b"inside", parent=sub)
    with pytest.raises(NotPermitted):
        meta.unlink(SUPER, ROOT, b"d")
    with pytest.raises(NotADir):
        meta.rmdir(SUPER, ROOT, b"f")
    with pytest.raises(NotEmpty):
        meta.rmdir(SUPER, ROOT, b"d")
    for name in (b"nothing", b"n" * 300):
        with pytest.raises(NotFound):
            meta.unlink(SUPER, ROOT, name)
        with pytest.raises(NotFound):
            meta.rmdir(SUPER, ROOT, name)
    with pytest.raises(Invalid):
        meta.rmdir(SUPER, ROOT, b".")


def test_resolve_walks_follows_and_explains(meta: MetaService) -> None:
    a = mkdir(meta, b"a")
    b = mkdir(meta, b"b", parent=a)
    f = mkfile(meta, b"f", parent=b)
    meta.symlink(SUPER, ROOT, b"abs", b"/a/b")
    meta.symlink(SUPER, a, b"rel", b"b/f")
    meta.symlink(SUPER, a, b"loop", b"loop")
    for path, ino in {
        b"/": ROOT,
        b"": ROOT,
        b"/a//b/./f": f,
        b"/a/b/..": a,
        b"/abs/f": f,
        b"/a/rel": f,
        b"/abs/../rel": f,
        b"/..": ROOT,
        b"/a/b/": b,
        b"/abs/": b,
    }.items():
        assert meta.resolve(SUPER, path)[0] == ino, path
    assert meta.resolve(SUPER, b"f", parent=b)[0] == f
    assert meta.resolve(SUPER, b"/abs", follow=False)[1].kind == Kind.SYMLINK
    for path, error in {
        b"/a/x": NotFound,
        b"/x/y": NotFound,
        b"/a/b/f/g": NotADir,
        b"/a/b/f/": NotADir,
        b"/a/loop": TooManyLinks,
        b"/" + b"n" * 256: TooLong,
    }.items():
        with pytest.raises(error):
            meta.resolve(SUPER, path)


def test_resolve_of_a_cold_client_sees_what_another_made(make_meta: MakeMeta) -> None:
    first, second = make_meta(), make_meta()
    deep = int(ROOT)
    for level in range(12):
        deep = mkdir(first, b"d%d" % level, parent=deep)
    leaf = mkfile(first, b"leaf", parent=deep)
    path = b"/".join(b"d%d" % level for level in range(12)) + b"/leaf"
    assert second.resolve(SUPER, path)[0] == leaf
    assert second.resolve(ALICE, path)[0] == leaf


def test_mode_bits_decide_who_may_what(meta: MetaService) -> None:
    private = mkdir(meta, b"private", who=ALICE, mode=0o700)
    mkfile(meta, b"f", parent=private, who=ALICE)
    with pytest.raises(Denied):
        meta.lookup(BOB, private, b"f")
    with pytest.raises(Denied):
        meta.resolve(BOB, b"/private/f")
    with pytest.raises(Denied):
        meta.readdir(BOB, private)
    with pytest.raises(Denied):
        meta.create(BOB, private, b"g", 0o644)
    with pytest.raises(Denied):
        meta.unlink(BOB, private, b"f")
    assert meta.lookup(SUPER, private, b"f")
    group = mkdir(meta, b"group", who=ALICE, mode=0o750)
    meta.setattr(SUPER, group, _chown(gid=100))
    meta.access(Caller(uid=3, gid=3, gids=(100,)), group, 5)
    with pytest.raises(Denied):
        meta.access(Caller(uid=3, gid=100), group, 2)


def test_sticky_directories_protect_owners(meta: MetaService) -> None:
    tmp = mkdir(meta, b"tmp", mode=0o777)
    meta.setattr(SUPER, tmp, _chmod(0o1777))
    mkfile(meta, b"alices", parent=tmp, who=ALICE)
    mkdir(meta, b"alices-dir", parent=tmp, who=ALICE)
    mkfile(meta, b"bobs", parent=tmp, who=BOB)
    with pytest.raises(Denied):
        meta.unlink(BOB, tmp, b"alices")
    with pytest.raises(Denied):
        meta.rmdir(BOB, tmp, b"alices-dir")
    with pytest.raises(Denied):
        meta.rename(BOB, tmp, b"alices", tmp, b"mine")
    with pytest.raises(Denied):
        meta.rename(BOB, tmp, b"bobs", tmp, b"alices")
    meta.unlink(ALICE, tmp, b"alices")
    meta.unlink(SUPER, tmp, b"bobs")


def test_a_large_directory_lists_each_name_once(meta: MetaService) -> None:
    sub = mkdir(meta, b"many")
    wanted = {b"file-%05d" % index for index in range(700)}
    for name in wanted:
        mkfile(meta, name, parent=sub)
    batches = list(meta.engine.scan_dir(sub, attrs=True, batch=100))
    assert max(map(len, batches)) <= 100 or meta.engine.name == "redis"
    listed = [entry.name for batch in batches for entry in batch]
    assert sorted(listed) == sorted(wanted)
    assert all(entry.attr is not None and entry.attr.parent == sub for batch in batches for entry in batch)
    assert {entry.attr for entry in meta.readdir(SUPER, sub, attrs=False)} == {None}
    assert meta.summary(SUPER, ROOT) == (0, 4096 * 702, 700, 2)
