"""Replies and notices as bytes: every field where the kernel's header has it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.attr import Attr, Entry, Kind
from fscore.mount.api import AttrReply, EntryReply, StatfsReply
from fscore.mount.transports.kernel import protocol as p
from fscore.mount.transports.kernel import wire

U32 = st.integers(0, (1 << 32) - 1)
U63 = st.integers(0, (1 << 63) - 1)
TIMES = st.integers(-(10**18), 4 * 10**18)
ATTRS = st.builds(
    Attr,
    st.sampled_from(Kind),
    st.integers(0, 0o7777),
    uid=U32,
    gid=U32,
    atime_ns=TIMES,
    mtime_ns=TIMES,
    ctime_ns=TIMES,
    nlink=U32,
    length=U63,
    rdev=U32,
    flags=st.integers(0, 63),
)
TTL = st.floats(0, 100_000)
ATTR = struct.Struct("=QQQqqqIIIIIIIIII")
LIVES = wire.Lifetimes((1, 0), (2, 0), (3, 500), (4, 0), (86400, 0))


def attr_in(data: bytes, at: int) -> tuple[int, Attr]:
    """The inode and the attributes of a `struct fuse_attr`."""
    ino, size, blocks, a, m, c, a_ns, m_ns, c_ns, mode, nlink, uid, gid, rdev, block, flags = ATTR.unpack_from(data, at)
    assert blocks == -(-size // 512)
    assert (block, flags) == (65536, 0)
    kind = next(kind for kind in Kind if Attr(kind, 0).st_mode == mode & 0o170000)
    times = (a * 10**9 + a_ns, m * 10**9 + m_ns, c * 10**9 + c_ns)
    assert max(a_ns, m_ns, c_ns) < 10**9
    return ino, Attr(kind, mode & 0o7777, uid, gid, *times, nlink, size, rdev)


def plain(attr: Attr) -> Attr:
    """What of the attributes the kernel is told."""
    times = (attr.atime_ns, attr.mtime_ns, attr.ctime_ns)
    return Attr(attr.kind, attr.mode, attr.uid, attr.gid, *times, attr.nlink, attr.length, attr.rdev)


@given(U63, U63, ATTRS, TTL, TTL)
def test_an_entry(unique: int, ino: int, attr: Attr, entry_s: float, attr_s: float) -> None:
    data = wire.entry_reply(unique, EntryReply(ino, attr, entry_s, attr_s))
    assert struct.unpack_from("=IiQ", data) == (len(data), 0, unique)
    assert len(data) == 16 + 128
    node, generation, entry_sec, attr_sec, entry_ns, attr_ns = struct.unpack_from("=QQQQII", data, 16)
    assert (node, generation) == (ino, 1)
    assert entry_sec + entry_ns / 1e9 == pytest.approx(entry_s, abs=2e-9)
    assert attr_sec + attr_ns / 1e9 == pytest.approx(attr_s, abs=2e-9)
    assert attr_in(data, 16 + 40) == (ino, plain(attr))


@given(U63, U63, ATTRS)
def test_attributes(unique: int, ino: int, attr: Attr) -> None:
    data = wire.attr_reply(unique, AttrReply(ino, attr, 1.5))
    assert struct.unpack_from("=IiQQII", data) == (16 + 104, 0, unique, 1, 500_000_000, 0)
    assert attr_in(data, 32) == (ino, plain(attr))


def test_a_create_is_an_entry_and_an_open() -> None:
    reply = EntryReply(7, Attr(Kind.FILE, 0o600), 1.0, 1.0)
    data = wire.create_reply(5, reply, 9, p.Fopen.PASSTHROUGH, 3)
    assert data[4:144] == wire.entry_reply(5, reply)[4:]
    assert struct.unpack_from("=QIi", data, 144) == (9, 128, 3)
    assert wire.open_reply(5, 9, 128, 3)[16:] == data[144:]
    assert struct.unpack_from("=I", data)[0] == len(data) == 160


def test_small_replies() -> None:
    assert struct.unpack("=IiQ", wire.error(9, 2)) == (16, -2, 9)
    assert struct.unpack("=IiQ", wire.head(9, 100)) == (116, 0, 9)
    assert struct.unpack("=IiQII", wire.write_reply(9, 7)) == (24, 0, 9, 7, 0)
    assert struct.unpack("=IiQII", wire.size_reply(9, 7)) == (24, 0, 9, 7, 0)
    assert struct.unpack("=IiQQ", wire.u64_reply(9, 1 << 40)) == (24, 0, 9, 1 << 40)
    assert struct.unpack("=IiQQQII", wire.lk_reply(9, 1, 5, 1, 77)) == (40, 0, 9, 1, 5, 1, 77)


def test_totals() -> None:
    data = wire.statfs_reply(9, StatfsReply(4096, 100, 60, 50, 20))
    assert struct.unpack_from("=IiQQQQQQIIII", data) == (96, 0, 9, 100, 60, 60, 50, 20, 4096, 255, 4096, 0)
    assert len(data) == 96


def test_the_answer_to_init() -> None:
    flags = p.Init.ASYNC_READ | p.Init.INIT_EXT | p.Init.PASSTHROUGH
    numbers = {"max_readahead": 5, "max_background": 64, "max_write": 1 << 20, "max_pages": 256, "max_stack_depth": 1}
    data = wire.init_reply(9, 45, flags, **numbers)
    assert len(data) == 16 + 64
    found = struct.unpack_from("=IIIIHHIIHHIIH", data, 16)
    assert found == (7, 45, 5, 1 | 1 << 30, 64, 48, 1 << 20, 1, 256, 0, 1 << 5, 1, 0)
    assert len(wire.init_reply(9, 22, flags, **numbers)) == 16 + 24


def test_notices() -> None:
    assert struct.unpack("=IiQQqq", wire.inval_inode(7, 0)) == (40, 2, 0, 7, 0, 0)
    data = wire.inval_entry(7, b"name")
    assert struct.unpack_from("=IiQQII", data) == (len(data), 3, 0, 7, 4, 0)
    assert data[32:] == b"name\0"


def records(data: bytes, *, plus: bool) -> list[tuple[int, int, int, bytes, bytes]]:
    """(inode, next offset, type, name, entry) of each record."""
    found, at = [], 0
    while at < len(data):
        entry = data[at : at + 128] if plus else b""
        at += len(entry)
        ino, offset, length, kind = struct.unpack_from("=QQII", data, at)
        found.append((ino, offset, kind, data[at + 24 : at + 24 + length], entry))
        at += 24 + (length + 7 & ~7)
    return found


NAMES = st.binary(min_size=1, max_size=255)
ENTRIES = st.lists(st.builds(Entry, NAMES, U63, st.sampled_from(Kind), st.none() | ATTRS), max_size=20)


@given(ENTRIES, st.integers(0, 5000), st.integers(0, 1 << 40))
def test_listings(entries: list[Entry], room: int, offset: int) -> None:
    for plus in (False, True):
        data = wire.dirents(entries, offset, room)
        if plus:
            data = wire.direntsplus(entries, [entry.attr for entry in entries], offset, room, LIVES)
        assert len(data) <= room
        found = records(data, plus=plus)
        sizes = [(152 if plus else 24) + (len(entry.name) + 7 & ~7) for entry in entries]
        fitting = max(count for count in range(len(entries) + 1) if sum(sizes[:count]) <= room)
        assert len(found) == fitting, "as many as fit"
        for number, (entry, (ino, after, kind, name, record)) in enumerate(zip(entries, found, strict=False)):
            assert (ino, after, name) == (entry.ino, offset + number + 1, entry.name)
            assert kind == Attr(entry.kind, 0).st_mode >> 12
            if plus:
                _check_plus(entry, record)


def _check_plus(entry: Entry, record: bytes) -> None:
    node, _, entry_s, attr_s, _, attr_ns = struct.unpack_from("=QQQQII", record)
    if entry.attr is None:
        assert record == bytes(128), "a name without a node: the kernel looks it up when it is asked"
        return
    assert node == entry.ino
    ino, attr = attr_in(record, 40)
    told = plain(entry.attr)
    assert (ino, attr.length, attr.mode, attr.mtime_ns) == (entry.ino, told.length, told.mode, told.mtime_ns)
    if entry.attr.flags & 1:
        assert (entry_s, attr_s) == (4, 86400)
    else:
        assert (entry_s, attr_s, attr_ns) == (2 if entry.kind == Kind.DIRECTORY else 1, 3, 500)


def test_names_in_a_body() -> None:
    assert wire.names_at(b"..old\0new\0junk", 2, 14) == (b"old", b"new")
