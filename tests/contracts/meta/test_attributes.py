"""setattr, inode flags and extended attributes, on every engine."""

from __future__ import annotations

import pytest

from fscore.domain.errors import (
    Denied,
    Exists,
    Invalid,
    NoAttribute,
    NotFound,
    NotPermitted,
    TooLarge,
    TooLong,
    Unsupported,
)
from fscore.domain.ids import ROOT
from fscore.meta.service import NOW, AttrChange, MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.tree import ALICE, BOB, SUPER, mkdir, mkfile

DAY_NS = 86_400_000_000_000


def test_only_a_change_moves_ctime(meta: MetaService, meta_clock: FakeClock) -> None:
    ino = mkfile(meta, b"f")
    before = meta.getattr(ino)
    meta_clock.advance(3)
    assert meta.setattr(SUPER, ino, AttrChange(mode=0o644)) == before
    after = meta.setattr(SUPER, ino, AttrChange(mode=0o600))
    assert (after.mode, after.ctime_ns, after.mtime_ns) == (0o600, meta_clock.now_ns(), before.mtime_ns)
    assert meta.getattr(ino) == after


def test_times_have_nanoseconds_and_no_past_before_1970(meta: MetaService, meta_clock: FakeClock) -> None:
    ino = mkfile(meta, b"f")
    far = 4_102_444_800_123_456_789
    after = meta.setattr(SUPER, ino, AttrChange(atime_ns=far, mtime_ns=1))
    assert (after.atime_ns, after.mtime_ns) == (far, 1)
    meta_clock.advance(1)
    after = meta.setattr(SUPER, ino, AttrChange(mtime_ns=-5_000_000_000))
    assert (after.atime_ns, after.mtime_ns) == (far, meta_clock.now_ns())
    with meta.engine.view() as view:
        assert view.node(ino) == after


def test_who_may_change_the_mode(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", who=ALICE)
    with pytest.raises(NotPermitted):
        meta.setattr(BOB, ino, AttrChange(mode=0o777))
    assert meta.setattr(ALICE, ino, AttrChange(mode=0o4755)).mode == 0o4755
    meta.setattr(SUPER, ino, AttrChange(gid=77))
    assert meta.setattr(ALICE, ino, AttrChange(mode=0o2755)).mode == 0o755, "no member of the group keeps setgid"


def test_who_may_change_the_owner(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", who=ALICE)
    for change in (AttrChange(uid=2000), AttrChange(gid=2000)):
        with pytest.raises(NotPermitted):
            meta.setattr(BOB, ino, change)
        with pytest.raises(NotPermitted):
            meta.setattr(ALICE, ino, change)
    assert meta.setattr(ALICE, ino, AttrChange(gid=100)).gid == 100
    after = meta.setattr(SUPER, ino, AttrChange(uid=(1 << 31) - 1))
    assert (after.uid, after.gid) == ((1 << 31) - 1, 100)


@pytest.mark.parametrize(
    ("mode", "by_root", "by_owner"),
    [(0o6755, 0o755, 0o755), (0o6644, 0o2644, 0o644), (0o644, 0o644, 0o644)],
)
def test_a_new_owner_clears_setuid(meta: MetaService, mode: int, by_root: int, by_owner: int) -> None:
    ino = mkfile(meta, b"f", who=ALICE)
    meta.setattr(SUPER, ino, AttrChange(mode=mode))
    assert meta.setattr(SUPER, ino, AttrChange(gid=100)).mode == by_root
    meta.setattr(SUPER, ino, AttrChange(mode=mode))
    assert meta.setattr(ALICE, ino, AttrChange(gid=1000)).mode == by_owner
    sub = mkdir(meta, b"d")
    meta.setattr(SUPER, sub, AttrChange(mode=0o2755))
    assert meta.setattr(SUPER, sub, AttrChange(gid=9)).mode == 0o2755


def test_who_may_change_times(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", who=ALICE)
    with pytest.raises(NotPermitted):
        meta.setattr(BOB, ino, AttrChange(mtime_ns=DAY_NS))
    with pytest.raises(Denied):
        meta.setattr(BOB, ino, AttrChange(mtime_ns=NOW))
    meta.setattr(ALICE, ino, AttrChange(mode=0o666))
    meta.setattr(BOB, ino, AttrChange(atime_ns=NOW, mtime_ns=NOW))


def test_an_immutable_file_stays_as_it_is(meta: MetaService) -> None:
    sub = mkdir(meta, b"d")
    ino = mkfile(meta, b"f", 100, parent=sub)
    meta.setattr(SUPER, ino, AttrChange(flags=1))
    for forbidden in (
        lambda: meta.setattr(SUPER, ino, AttrChange(mode=0o600)),
        lambda: meta.setattr(SUPER, ino, AttrChange(uid=5)),
        lambda: meta.setattr(SUPER, ino, AttrChange(mtime_ns=5)),
        lambda: meta.truncate(SUPER, ino, 5),
        lambda: meta.unlink(SUPER, sub, b"f"),
        lambda: meta.link(SUPER, ino, ROOT, b"g"),
        lambda: meta.open_file(SUPER, ino, write=True),
        lambda: meta.setxattr(SUPER, ino, b"user.a", b""),
    ):
        with pytest.raises(NotPermitted):
            forbidden()
    with pytest.raises(NotPermitted):
        meta.setattr(BOB, ino, AttrChange(flags=0))
    assert meta.setattr(SUPER, ino, AttrChange(flags=0)).flags == 0
    meta.truncate(SUPER, ino, 5)


def test_an_immutable_directory_keeps_its_entries(meta: MetaService) -> None:
    sub = mkdir(meta, b"d")
    mkfile(meta, b"f", parent=sub)
    inner = mkdir(meta, b"inner", parent=sub)
    meta.setattr(SUPER, sub, AttrChange(flags=1))
    for forbidden in (
        lambda: meta.create(SUPER, sub, b"g", 0o644),
        lambda: meta.mkdir(SUPER, sub, b"g", 0o755),
        lambda: meta.unlink(SUPER, sub, b"f"),
        lambda: meta.rmdir(SUPER, sub, b"inner"),
        lambda: meta.rmdir(SUPER, ROOT, b"d"),
        lambda: meta.clone(SUPER, inner, sub, b"clone"),
    ):
        with pytest.raises(NotPermitted):
            forbidden()
    mkfile(meta, b"below", parent=inner)


def test_an_append_only_directory_grows(meta: MetaService) -> None:
    sub = mkdir(meta, b"d")
    meta.setattr(SUPER, sub, AttrChange(flags=2))
    mkfile(meta, b"f", parent=sub)
    with pytest.raises(NotPermitted):
        meta.unlink(SUPER, sub, b"f")
    with pytest.raises(NotPermitted):
        meta.rename(SUPER, sub, b"f", ROOT, b"f")
    ino = mkfile(meta, b"log")
    meta.setattr(SUPER, ino, AttrChange(flags=2))
    with pytest.raises(NotPermitted):
        meta.open_file(SUPER, ino, write=True)
    meta.open_file(SUPER, ino, write=True, append=True)
    meta.close_file(ino)


def test_xattrs_are_bytes(meta: MetaService, meta_clock: FakeClock) -> None:
    ino = mkfile(meta, b"f")
    before = meta.getattr(ino)
    meta_clock.advance(1)
    most = 65535 if meta.engine.name == "mysql" else 65536  # a BLOB there
    values = {b"user.empty": b"", b"user.big": b"x" * most, b"s3-etag": b"\0\xff", b"user.\xc3\xa9": b"1"}
    for name, value in values.items():
        meta.setxattr(SUPER, ino, name, value)
    assert meta.listxattr(ino) == sorted(values)
    assert {name: meta.getxattr(ino, name) for name in values} == values
    assert meta.getattr(ino) == before, "ctime stays"
    meta.setxattr(SUPER, ino, b"user.big", b"small", mode="replace")
    assert meta.getxattr(ino, b"user.big") == b"small"
    with pytest.raises(Exists):
        meta.setxattr(SUPER, ino, b"user.big", b"", mode="create")
    with pytest.raises(NoAttribute):
        meta.setxattr(SUPER, ino, b"user.none", b"", mode="replace")
    meta.removexattr(SUPER, ino, b"user.empty")
    for again in (lambda: meta.removexattr(SUPER, ino, b"user.empty"), lambda: meta.getxattr(ino, b"user.empty")):
        with pytest.raises(NoAttribute):
            again()
    meta.unlink(SUPER, ROOT, b"f")
    for gone in (lambda: meta.listxattr(ino), lambda: meta.setxattr(SUPER, ino, b"user.a", b"")):
        with pytest.raises(NotFound):
            gone()


def test_xattrs_that_cannot_be(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", who=ALICE)
    for name, value, error in (
        (b"", b"", Invalid),
        (b"n" * 256, b"", TooLong),
        (b"user.a", b"x" * 65537, TooLarge),
        (b"system.posix_acl_access", b"", Unsupported),
    ):
        with pytest.raises(error):
            meta.setxattr(SUPER, ino, name, value)
    with pytest.raises(Denied):
        meta.setxattr(BOB, ino, b"user.a", b"")
    with pytest.raises(Denied):
        meta.removexattr(BOB, ino, b"user.a")
