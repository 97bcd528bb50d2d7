"""Clones of files and trees, on every engine."""

from __future__ import annotations

import pytest

from fscore.domain.attr import Kind
from fscore.domain.errors import Denied, Exists, NoSpace, NotADir, NotFound, NotPermitted
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT, TRASH
from fscore.meta.records import DirStat
from fscore.meta.service import AttrChange, MetaService
from fscore.runtime.clock import FakeClock
from tests.contracts.meta.test_data import references
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, SUPER, kinds, mkdir, mkfile, names, put


def test_a_cloned_file_shares_every_slice(meta: MetaService, meta_clock: FakeClock) -> None:
    source = mkfile(meta, b"s", who=ALICE)
    ids = put(meta, source, 100, CHUNK + 1000)
    meta.truncate(SUPER, source, CHUNK)
    meta.setxattr(SUPER, source, b"user.a", b"\xff")
    meta.setattr(SUPER, source, AttrChange(mode=0o4777))
    meta.link(SUPER, source, ROOT, b"s2")
    meta_clock.advance(7)
    ino, attr = meta.clone(SUPER, source, ROOT, b"c")
    assert meta.lookup(SUPER, ROOT, b"c") == (ino, attr)
    assert (attr.kind, attr.length, attr.nlink, attr.parent) == (Kind.FILE, CHUNK, 1, ROOT)
    assert (attr.uid, attr.gid, attr.mode) == (0, 0, 0o4755)
    assert {attr.atime_ns, attr.mtime_ns, attr.ctime_ns} == {meta_clock.now_ns()}
    assert meta.records(ino, 0) == meta.records(source, 0)
    assert meta.getxattr(ino, b"user.a") == b"\xff"
    assert [references(meta, one) for one in ids] == [2, 1], "chunks past the end are not cloned"
    put(meta, ino, 0, 10)
    assert len(meta.records(source, 0)) == 1
    assert meta.statfs()[2:4] == (2 * CHUNK, 2)


def test_preserve_keeps_whose_and_when(meta: MetaService, meta_clock: FakeClock) -> None:
    source = mkfile(meta, b"s", 10, who=ALICE)
    meta.setattr(SUPER, source, AttrChange(mode=0o4777, flags=1))
    before = meta.getattr(source)
    meta_clock.advance(7)
    _, attr = meta.clone(SUPER, source, ROOT, b"c", preserve=True)
    assert attr == before
    _, attr = meta.clone(SUPER, source, ROOT, b"d")
    assert attr.flags == 0, "a clone of a published file can be written"


def test_links_and_special_files(meta: MetaService) -> None:
    link, _ = meta.symlink(SUPER, ROOT, b"l", b"target")
    device, _ = meta.mknod(SUPER, ROOT, b"dev", Kind.CHAR, 0o600, rdev=259)
    clone, attr = meta.clone(SUPER, link, ROOT, b"l2")
    assert (meta.readlink(clone), attr.mode, attr.length) == (b"target", 0o755, 6), "less the umask, as 2.12 says"
    assert meta.clone(SUPER, device, ROOT, b"dev2")[1].rdev == 259


def build(meta: MetaService) -> int:
    """A tree with 300 files in one directory, a subtree, a link, a hard link and attributes."""
    top = mkdir(meta, b"top")
    meta.setxattr(SUPER, top, b"user.top", b"1")
    many = mkdir(meta, b"many", parent=top)
    for index in range(300):
        mkfile(meta, b"%03d" % index, 100 if index % 50 == 0 else 0, parent=many)
    deep = mkdir(meta, b"b", parent=mkdir(meta, b"a", parent=top))
    ino = mkfile(meta, b"f", 5000, parent=deep)
    meta.link(SUPER, ino, top, b"f2")
    meta.symlink(SUPER, top, b"l", b"a/b/f")
    return top


def listing(meta: MetaService, ino: int) -> dict[bytes, tuple[Kind, int, int]]:
    """Path to (kind, mode less the umask, length) of everything below a directory."""
    found: dict[bytes, tuple[Kind, int, int]] = {}
    pending = [(b"", ino)]
    while pending:
        prefix, at = pending.pop()
        for entry in meta.readdir(SUPER, at):
            assert entry.attr is not None
            found[prefix + entry.name] = (entry.kind, entry.attr.mode & ~SUPER.umask, entry.attr.length)
            if entry.kind == Kind.DIRECTORY:
                pending.append((prefix + entry.name + b"/", entry.ino))
    return found


def test_a_cloned_tree(meta: MetaService) -> None:
    top = build(meta)
    before = meta.statfs()
    clone, attr = meta.clone(SUPER, top, ROOT, b"clone")
    assert listing(meta, clone) == listing(meta, top)
    assert (attr.nlink, attr.parent) == (4, ROOT)
    assert meta.getattr(ROOT).nlink == 4
    assert meta.getxattr(clone, b"user.top") == b"1"
    after = meta.statfs()
    assert after.inodes_used - before.inodes_used == 307, "the hard link became a file of its own"
    assert meta.dir_stat(clone) == DirStat(5000, 8192 + 3 * 4096, 4)
    assert meta.dir_stat(ROOT) == DirStat(0, 2 * 4096, 2)
    assert list(meta.engine.scan_detached()) == []
    f, f2 = meta.resolve(SUPER, b"/clone/a/b/f")[0], meta.resolve(SUPER, b"/clone/f2")[0]
    assert f != f2
    assert references(meta, meta.records(f, 0)[0].id) == 3


def test_clone_within_itself_ends(meta: MetaService) -> None:
    top = mkdir(meta, b"top")
    mkfile(meta, b"f", 10, parent=top)
    clone, _ = meta.clone(SUPER, top, top, b"copy")
    assert set(names(meta, clone)) == {b"f"}
    assert set(kinds(meta, top)) == {b"f", b"copy"}


def test_clones_that_cannot_be(make_meta: MakeMeta) -> None:
    meta = make_meta(setting={"trash_days": 1, "inodes": 7})
    top = mkdir(meta, b"top")
    mkfile(meta, b"f", 10, parent=top)
    private = mkdir(meta, b"private", mode=0o700)
    shared = mkdir(meta, b"shared", mode=0o777)
    meta.setattr(SUPER, shared, AttrChange(mode=0o777))
    with pytest.raises(Exists):
        meta.clone(SUPER, top, ROOT, b"private")
    with pytest.raises(NotFound):
        meta.clone(SUPER, 999, ROOT, b"x")
    with pytest.raises(NotADir):
        meta.clone(SUPER, top, names(meta, top)[b"f"], b"x")
    with pytest.raises(NotPermitted):
        meta.clone(SUPER, top, TRASH, b"x")
    with pytest.raises(Denied):
        meta.clone(ALICE, private, shared, b"x")
    with pytest.raises(Denied):
        meta.clone(ALICE, top, private, b"x")
    meta.clone(SUPER, top, shared, b"one")
    with pytest.raises(NoSpace):
        meta.clone(SUPER, top, shared, b"two")
    assert set(names(meta, shared)) == {b"one"}
    assert list(meta.engine.scan_detached()) == [], "what was begun is taken away again"
    assert meta.statfs().inodes_used == 6
