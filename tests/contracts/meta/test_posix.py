"""What POSIX, and pjdfstest with it, asks of metadata and the other suites do not tell; on every engine.

Each test names the folder of pjdfstest whose expectations it mirrors. What only a kernel can check (paths, descriptors,
umask of a process) is in tests/mount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import Denied, Exists, FsError, Invalid, IsADir, NotFound, NotPermitted, TooLarge, TooLong
from fscore.domain.ids import ROOT
from fscore.meta.ops.change import MAX_LENGTH, NOW, AttrChange
from fscore.meta.service import MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.tree import SUPER, mkdir, mkfile, names, put

OWNER = Caller(uid=65534, gid=65534)
MEMBER = Caller(uid=65534, gid=65533, gids=(65532,))
OTHER = Caller(uid=65533, gid=65533)
KINDS = [kind for kind in Kind if kind != Kind.DIRECTORY]


def make(meta: MetaService, parent: int, name: bytes, kind: Kind, uid: int = 0, mode: int = 0o644) -> int:
    """A node of any kind that belongs to somebody."""
    if kind == Kind.DIRECTORY:
        ino, _ = meta.mkdir(SUPER, parent, name, mode)
    else:
        target = b"target" if kind == Kind.SYMLINK else b""
        ino, _ = meta.mknod(SUPER, parent, name, kind, mode, rdev=0x103, target=target)
    meta.setattr(SUPER, ino, AttrChange(uid=uid, gid=uid))
    return ino


def refused(error: type[FsError], *deeds: Callable[[], object]) -> None:
    """Each of them ends with this error."""
    for deed in deeds:
        with pytest.raises(error) as caught:
            deed()
        assert type(caught.value) is error


@pytest.fixture
def sticky(meta: MetaService) -> int:
    """A directory where everybody may write, and only owners may remove."""
    ino = mkdir(meta, b"sticky")
    meta.setattr(SUPER, ino, AttrChange(mode=0o1777))
    return ino


def test_chmod(meta: MetaService, meta_clock: FakeClock) -> None:
    for number, kind in enumerate(Kind):
        ino = make(meta, ROOT, b"n%d" % number, kind, uid=OWNER.uid)
        before = meta.getattr(ino)
        meta_clock.advance(1)
        refused(NotPermitted, partial(meta.setattr, OTHER, ino, AttrChange(mode=0o111)))
        assert meta.getattr(ino, fresh=True) == before, "what fails moves no time"
        after = meta.setattr(OWNER, ino, AttrChange(mode=0o111))
        assert (after.mode, after.ctime_ns > before.ctime_ns, after.mtime_ns) == (0o111, True, before.mtime_ns)


def test_chown(meta: MetaService, meta_clock: FakeClock) -> None:
    for number, kind in enumerate(Kind):
        ino = make(meta, ROOT, b"n%d" % number, kind)
        meta.setattr(SUPER, ino, AttrChange(uid=65534, gid=65533))
        meta.setattr(SUPER, ino, AttrChange(mode=0o6555))
        assert meta.setattr(OTHER, ino, AttrChange()).mode == 0o6555, "who asks for nothing needs no permission"
        refused(
            NotPermitted,
            partial(meta.setattr, MEMBER, ino, AttrChange(uid=65533)),
            partial(meta.setattr, MEMBER, ino, AttrChange(gid=65000)),
            partial(meta.setattr, OTHER, ino, AttrChange(uid=65534, gid=65533)),
        )
        before = meta.getattr(ino)
        meta_clock.advance(1)
        after = meta.setattr(MEMBER, ino, AttrChange(uid=65534, gid=65532))
        assert (after.uid, after.gid, after.ctime_ns > before.ctime_ns) == (65534, 65532, True)
        assert after.mode == (0o6555 if kind == Kind.DIRECTORY else 0o555), "as Linux: directories keep the bits"


def test_writing_and_truncating_take_setuid(meta: MetaService) -> None:
    for mode, left in ((0o4777, 0o777), (0o2777, 0o777), (0o6777, 0o777), (0o6766, 0o2766)):
        ino = mkfile(meta, b"f", 10)
        meta.setattr(SUPER, ino, AttrChange(mode=mode))
        assert meta.truncate(SUPER, ino, 7).mode == mode, "uid 0 may"
        assert meta.truncate(OTHER, ino, 5).mode == left
        meta.setattr(SUPER, ino, AttrChange(mode=mode))
        assert meta.strip_privileges(ino, meta.getattr(ino)).mode == left
        meta.unlink(SUPER, ROOT, b"f")


def test_utimensat(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    both = AttrChange(atime_ns=NOW, mtime_ns=NOW)
    explicit = [AttrChange(mtime_ns=5), AttrChange(atime_ns=5), AttrChange(atime_ns=5, mtime_ns=6)]
    refused(Denied, partial(meta.setattr, OTHER, ino, both))
    meta.setattr(SUPER, ino, AttrChange(mode=0o666))
    meta.setattr(OTHER, ino, both)
    for change in explicit:
        refused(NotPermitted, partial(meta.setattr, OTHER, ino, change))
    meta.setattr(SUPER, ino, AttrChange(uid=OTHER.uid))
    meta.setattr(SUPER, ino, AttrChange(mode=0o444))
    meta.setattr(OTHER, ino, both)
    for change in explicit:
        meta.setattr(OTHER, ino, change)
    far = 4_294_967_296_000_000_001
    after = meta.setattr(OTHER, ino, AttrChange(atime_ns=2_147_483_648_100_000_000, mtime_ns=far))
    assert (after.atime_ns, after.mtime_ns) == (2_147_483_648_100_000_000, far)
    assert meta.getattr(ino, fresh=True) == after


@pytest.mark.parametrize("kind", list(Kind))
def test_sticky_directories(meta: MetaService, sticky: int, kind: Kind) -> None:
    """unlink/11, rmdir/11, rename/09 and /10: the owner of the entry or of the directory may, nobody else."""
    remove = meta.rmdir if kind == Kind.DIRECTORY else meta.unlink
    elsewhere = mkdir(meta, b"elsewhere", mode=0o777)
    meta.setattr(SUPER, elsewhere, AttrChange(mode=0o777))
    for above, own, may in ((65534, 65534, True), (65534, 0, True), (0, 65534, True), (0, 0, False), (65533, 0, False)):
        meta.setattr(SUPER, sticky, AttrChange(uid=above))
        make(meta, sticky, b"n", kind, uid=own, mode=0o777)
        if may:
            remove(OWNER, sticky, b"n")
            make(meta, sticky, b"n", kind, uid=own, mode=0o777)
            if kind == Kind.DIRECTORY:
                meta.setattr(SUPER, names(meta, sticky)[b"n"], AttrChange(mode=0o777))
            meta.rename(OWNER, sticky, b"n", elsewhere, b"n")
            make(meta, sticky, b"over", kind, uid=own)
            meta.rename(OWNER, elsewhere, b"n", sticky, b"over")
            remove(SUPER, sticky, b"over")
        else:
            refused(
                Denied,
                partial(remove, OWNER, sticky, b"n"),
                partial(meta.rename, OWNER, sticky, b"n", elsewhere, b"n"),
                partial(meta.rename, OWNER, sticky, b"n", sticky, b"m"),
            )
            make(meta, elsewhere, b"mine", kind, uid=OWNER.uid, mode=0o777)
            refused(Denied, partial(meta.rename, OWNER, elsewhere, b"mine", sticky, b"n"))
            remove(SUPER, sticky, b"n")
            remove(SUPER, elsewhere, b"mine")


def test_rename_of_a_directory_between_directories_needs_to_write_to_it(meta: MetaService) -> None:
    """rename/21: its entry `..` changes."""
    one, two = (mkdir(meta, name, mode=0o777) for name in (b"1", b"2"))
    for ino in (one, two):
        meta.setattr(SUPER, ino, AttrChange(mode=0o777))
    sub = mkdir(meta, b"sub", parent=one)
    refused(Denied, partial(meta.rename, OTHER, one, b"sub", two, b"sub"))
    meta.rename(OTHER, one, b"sub", one, b"sub2")
    meta.setattr(SUPER, sub, AttrChange(mode=0o777))
    meta.rename(OTHER, one, b"sub2", two, b"sub")


def test_link(meta: MetaService, meta_clock: FakeClock) -> None:
    """link/00: every name is as good as the first; mode, owner and count are shared; times move."""
    for number, kind in enumerate(KINDS):
        parent = mkdir(meta, b"d%d" % number)
        ino = make(meta, parent, b"a", kind)
        before, above = meta.getattr(ino), meta.getattr(parent)
        meta_clock.advance(1)
        meta.link(SUPER, ino, parent, b"b")
        assert meta.getattr(ino).ctime_ns > before.ctime_ns
        assert meta.getattr(parent).mtime_ns > above.mtime_ns
        meta.link(SUPER, ino, parent, b"c")
        meta.setattr(SUPER, ino, AttrChange(mode=0o201, uid=65534, gid=65533))
        assert {name: meta.lookup(SUPER, parent, name) for name in (b"a", b"b", b"c")} == dict.fromkeys(
            (b"a", b"b", b"c"), (ino, meta.getattr(ino))
        )
        for left, name in ((2, b"a"), (1, b"c")):
            meta_clock.advance(1)
            meta.unlink(SUPER, parent, name)
            attr = meta.getattr(ino, fresh=True)
            assert (attr.nlink, attr.mode, attr.ctime_ns) == (left, 0o201, meta_clock.now_ns())
        meta.unlink(SUPER, parent, b"b")
        refused(NotFound, partial(meta.getattr, ino, fresh=True))
    refused(NotPermitted, partial(meta.link, SUPER, names(meta)[b"d1"], ROOT, b"dir"))
    refused(Exists, partial(meta.link, SUPER, mkfile(meta, b"f"), ROOT, b"d1"))
    refused(Denied, partial(meta.link, OTHER, names(meta)[b"f"], names(meta)[b"d1"], b"g"))


def test_unlink_of_one_name_moves_ctime_of_the_others(meta: MetaService, meta_clock: FakeClock) -> None:
    """unlink/00, and rename/23: over a file of several names."""
    ino = mkfile(meta, b"a")
    meta.link(SUPER, ino, ROOT, b"b")
    meta_clock.advance(1)
    mkfile(meta, b"new")
    meta.rename(SUPER, ROOT, b"new", ROOT, b"a")
    attr = meta.getattr(ino, fresh=True)
    assert (attr.nlink, attr.ctime_ns) == (1, meta_clock.now_ns())


def test_new_nodes(meta: MetaService) -> None:
    """mkdir/00, mkfifo/00, mknod/11, open/00, symlink/00: mode and umask, owner and group, times of both."""
    parent = mkdir(meta, b"d")
    meta.setattr(SUPER, parent, AttrChange(uid=65534, gid=65534, mode=0o777))
    for umask, mode, made in (
        (0o022, 0o755, 0o755),
        (0o077, 0o151, 0o100),
        (0o070, 0o345, 0o305),
        (0o501, 0o345, 0o244),
    ):
        who = Caller(uid=65533, gid=65532, umask=umask)
        for kind in (Kind.FILE, Kind.DIRECTORY, Kind.FIFO, Kind.SOCKET):
            name = b"%o-%o-%d" % (umask, mode, kind)
            if kind == Kind.DIRECTORY:
                ino, attr = meta.mkdir(who, parent, name, mode)
            else:
                ino, attr = meta.mknod(who, parent, name, kind, mode)
            assert (attr.mode, attr.uid, attr.gid) == (made, 65533, 65532)
            assert attr.atime_ns == attr.mtime_ns == attr.ctime_ns == meta.getattr(parent).mtime_ns
            assert meta.getattr(ino, fresh=True) == attr
    _, attr = meta.create(OTHER, parent, b"wild", 0o7777)
    assert attr.mode == 0o7755


def test_setgid_of_files_in_setgid_directories(meta: MetaService) -> None:
    parent = mkdir(meta, b"d")
    meta.setattr(SUPER, parent, AttrChange(uid=65534, gid=50))
    meta.setattr(SUPER, parent, AttrChange(mode=0o2777))
    member = Caller(uid=65533, gid=65533, gids=(50,), umask=0)
    stranger = Caller(uid=65533, gid=65533, umask=0)
    made = {
        name: meta.create(who, parent, name, mode)[1]
        for name, who, mode in ((b"m", member, 0o2775), (b"s", stranger, 0o2775), (b"x", stranger, 0o2765))
    }
    assert {name: (attr.gid, attr.mode) for name, attr in made.items()} == {
        b"m": (50, 0o2775),
        b"s": (50, 0o775),
        b"x": (50, 0o2765),
    }
    assert meta.mkdir(stranger, parent, b"sub", 0o755)[1].mode == 0o2755


def _names() -> Iterator[bytes]:
    yield bytes(range(1, 256)).replace(b"/", b"")
    yield b"\xff" * 255
    yield "é".encode() * 127
    yield b"-" * 255
    yield b"\n\t \\'\"*?%s"
    yield b"..."


def test_names_of_255_bytes_of_any_kind(meta: MetaService) -> None:
    """*/02: 255 bytes are a name, 256 are too many; all bytes but slash and NUL."""
    for name in _names():
        ino = mkfile(meta, name)
        assert meta.lookup(SUPER, ROOT, name)[0] == ino
        sub = mkdir(meta, b"sub")
        meta.rename(SUPER, ROOT, name, sub, name)
        meta.link(SUPER, ino, ROOT, name)
        assert names(meta, sub) == {name: ino}
        meta.unlink(SUPER, sub, name)
        meta.rmdir(SUPER, ROOT, b"sub")
    assert set(names(meta)) == set(_names())
    long = b"x" * 256
    ino = mkfile(meta, b"f")
    refused(
        TooLong,
        partial(meta.create, SUPER, ROOT, long, 0o644),
        partial(meta.mkdir, SUPER, ROOT, long, 0o755),
        partial(meta.symlink, SUPER, ROOT, long, b"x"),
        partial(meta.link, SUPER, ino, ROOT, long),
        partial(meta.rename, SUPER, ROOT, b"f", ROOT, long),
        partial(meta.lookup, SUPER, ROOT, long),
    )


def test_targets_of_4095_and_4096_bytes(meta: MetaService) -> None:
    """symlink/03: through a mount 4095 are the most; the volume keeps 4096."""
    for length in (1, 4095, 4096):
        target = bytes([47 + length % 7]) * length
        ino, attr = meta.symlink(SUPER, ROOT, b"l%d" % length, target)
        assert (attr.length, attr.mode, meta.readlink(ino)) == (length, 0o777, target)
    refused(TooLong, partial(meta.symlink, SUPER, ROOT, b"long", b"x" * 4097))
    refused(NotFound, partial(meta.symlink, SUPER, ROOT, b"none", b""))
    refused(Invalid, partial(meta.symlink, SUPER, ROOT, b"nul", b"a\0b"))


def test_special_files(meta: MetaService) -> None:
    """mknod/11: numbers of devices come back; nothing is written to them here."""
    for name, kind, rdev in (
        (b"null", Kind.CHAR, 0x103),
        (b"disk", Kind.BLOCK, 0x11110370),
        (b"high", Kind.CHAR, 0xFFFFF),
    ):
        ino, attr = meta.mknod(SUPER, ROOT, name, kind, 0o660, rdev=rdev)
        assert (attr.rdev, attr.length) == (rdev, 0)
        assert meta.getattr(ino, fresh=True) == attr
        refused(Invalid, partial(meta.truncate, SUPER, ino, 5))
        meta.link(SUPER, ino, ROOT, name + b"2")
        meta.rename(SUPER, ROOT, name + b"2", ROOT, name + b"3")
        meta.unlink(SUPER, ROOT, name)
        assert meta.getattr(ino, fresh=True).nlink == 1


def test_truncate(meta: MetaService, meta_clock: FakeClock) -> None:
    """truncate/00, /12, ftruncate/12: length, times; what fails changes nothing; a petabyte is no length too many."""
    ino = mkfile(meta, b"f")
    put(meta, ino, 0, 100)
    meta_clock.advance(1)
    attr = meta.truncate(SUPER, ino, 1_234_567)
    assert (attr.length, attr.mtime_ns, attr.ctime_ns) == (1_234_567, meta_clock.now_ns(), meta_clock.now_ns())
    meta_clock.advance(1)
    refused(Denied, partial(meta.truncate, OTHER, ino, 5))
    refused(Invalid, partial(meta.truncate, SUPER, ino, -1))
    refused(TooLarge, partial(meta.truncate, SUPER, ino, MAX_LENGTH + 1))
    refused(IsADir, partial(meta.truncate, SUPER, mkdir(meta, b"d"), 5))
    assert meta.getattr(ino, fresh=True) == attr
    assert meta.truncate(SUPER, ino, 999_999_999_999_999).length == 999_999_999_999_999
    assert meta.truncate(SUPER, ino, 10).length == 10
    assert meta.statfs().used == 8192


def test_open(meta: MetaService) -> None:
    """open/06 and /07: the class of the caller alone decides, even when another class could."""
    for mode, reads, writes in (
        (0o477, True, False), (0o077, False, False), (0o277, False, True), (0o600, True, True)
    ):  # fmt: skip
        ino = mkfile(meta, b"f", who=OWNER)
        meta.setattr(SUPER, ino, AttrChange(mode=mode))
        for write, may in ((False, reads), (True, writes)):
            if may:
                meta.open_file(OWNER, ino, write=write)
                meta.close_file(ino)
            else:
                refused(Denied, partial(meta.open_file, OWNER, ino, write=write))
        meta.unlink(SUPER, ROOT, b"f")
    refused(IsADir, partial(meta.open_file, SUPER, mkdir(meta, b"d"), write=True))
