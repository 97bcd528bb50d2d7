"""Test vectors of volume-format.md section 10, byte for byte."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import CorruptError
from fscore.domain.ids import TRASH
from fscore.domain.slices import RECORD, SliceRecord, hole, pack, unpack
from fscore.meta.engines.redis import codec, keys
from fscore.meta.engines.redis.codec import decode_attr, decode_entry, encode_attr, encode_entry
from fscore.meta.engines.sql import rows
from fscore.meta.records import Counter, Edge

BASE = 1_700_000_000
NS = 1_000_000_000
AT = BASE * NS


def h(text: str) -> bytes:
    """Bytes from hex with spaces."""
    return bytes.fromhex(text.replace(" ", ""))


FILE = Attr(
    Kind.FILE,
    0o644,
    1000,
    1000,
    AT + 123_456_789,
    AT + NS + 1,
    AT + 2 * NS + 999_999_999,
    1,
    10_485_760,
    0,
    1,
)
FILE_HEX = (
    "00 11a4 000003e8 000003e8 000000006553f100 075bcd15 000000006553f101 00000001 000000006553f102 3b9ac9ff"
    " 00000001 0000000000a00000 00000000 0000000000000001 00"
)
DIRECTORY = Attr(Kind.DIRECTORY, 0o755, 0, 0, AT, AT, AT, 3, 4096, 0, 1)
DIRECTORY_HEX = (
    "00 21ed 00000000 00000000 000000006553f100 00000000 000000006553f100 00000000 000000006553f100 00000000"
    " 00000003 0000000000001000 00000000 0000000000000001 00"
)
LINKED_HEX = (
    "0011a00000000000000000000000006b02cedb04b002fe000000006b02cedb04b860a9000000006b02cedb0502a78c"
    "00000003000000000000000b00000000000000000000000000"
)


@pytest.mark.parametrize(("attr", "text"), [(FILE, FILE_HEX), (DIRECTORY, DIRECTORY_HEX)])
def test_attributes(attr: Attr, text: str) -> None:
    assert encode_attr(attr) == h(text)
    assert len(h(text)) == 72
    assert decode_attr(h(text)) == attr


@pytest.mark.parametrize(
    ("changes", "kind_and_mode", "place"),
    [
        ({"mode": 0o777, "nlink": 2}, "21ff", "00000002 0000000000001000 00000000 0000000000000001"),
        ({"mode": 0o555, "nlink": 2}, "216d", "00000002 0000000000001000 00000000 0000000000000001"),
        (
            {"kind": Kind.SYMLINK, "mode": 0o777, "nlink": 1, "length": 8, "parent": 2},
            "31ff",
            "00000001 0000000000000008 00000000 0000000000000002",
        ),
        (
            {"kind": Kind.FILE, "mode": 0o600, "nlink": 2, "length": 5, "parent": 0},
            "1180",
            "00000002 0000000000000005 00000000 0000000000000000",
        ),
    ],
)
def test_root_trash_link_and_hard_link(changes: dict[str, int], kind_and_mode: str, place: str) -> None:
    raw = encode_attr(msgspec.structs.replace(DIRECTORY, **changes))
    assert raw[1:3] == h(kind_and_mode)
    assert raw[47:] == h(place + "00")


@pytest.mark.parametrize(
    ("changes", "tail", "size"),
    [
        ({"access_acl": 7}, "00000007 00000000 00", 80),
        ({"tier": 2}, "02 00", 73),
        ({"access_acl": 7, "default_acl": 9, "tier": 2}, "00000007 00000009 02 00", 81),
        ({"access_acl": 1}, "00000001 00000000 00", 80),
        ({"access_acl": 2, "default_acl": 3}, "00000002 00000003 00", 80),
    ],
)
def test_tails(changes: dict[str, int], tail: str, size: int) -> None:
    attr = msgspec.structs.replace(FILE, **changes)
    raw = encode_attr(attr)
    assert raw[71:] == h(tail)
    assert len(raw) == size
    assert decode_attr(raw) == attr


def test_a_file_with_three_links_as_the_client_wrote_it() -> None:
    attr = decode_attr(h(LINKED_HEX))
    assert (attr.kind, attr.mode, attr.nlink, attr.length, attr.parent) == (Kind.FILE, 0o640, 3, 11, 0)
    assert encode_attr(attr) == h(LINKED_HEX)
    assert codec.decode_parents({b"3": b"1", b"6": b"2", b"9": b"0", b"10": b"-1"}) == {3: 1, 6: 2}


def test_devices() -> None:
    char = Attr(Kind.CHAR, 0o644, nlink=1, rdev=0x103, parent=11)
    raw = encode_attr(char)
    assert raw[:3] == h("0061a4")
    assert raw[47:] == h("00000001 0000000000000000 00000103 000000000000000b 00")
    assert encode_attr(Attr(Kind.BLOCK, 0o644, rdev=0x11110370))[59:63] == h("11110370")


@pytest.mark.parametrize("size", [71, 72])
def test_a_value_without_the_pad_is_read(size: int) -> None:
    assert decode_attr(h(FILE_HEX)[:size]) == FILE


@pytest.mark.parametrize("raw", [b"", h(FILE_HEX)[:70], h("00 91a4") + h(FILE_HEX)[3:]])
def test_what_is_no_attribute_is_corrupt(raw: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_attr(raw)


ATTRS = st.builds(
    Attr,
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    atime_ns=st.integers(0, 2**62),
    mtime_ns=st.integers(0, 2**62),
    ctime_ns=st.integers(0, 2**62),
    nlink=st.integers(0, 2**31 - 1),
    length=st.integers(0, 2**57),
    rdev=st.integers(0, 2**32 - 1),
    parent=st.integers(0, 2**63 - 1),
    flags=st.integers(0, 255),
    access_acl=st.integers(0, 2**31),
    default_acl=st.integers(0, 2**31),
    tier=st.integers(0, 3),
)


@given(ATTRS)
def test_attributes_survive_both_layouts(attr: Attr) -> None:
    assert decode_attr(encode_attr(attr)) == attr
    assert rows.attr_of(rows.row_of(5, attr)[1:]) == attr


@given(ATTRS, ATTRS)
def test_changed_columns_turn_one_row_into_the_other(old: Attr, new: Attr) -> None:
    stored = dict(zip(rows.NODE_COLUMNS, rows.row_of(5, old), strict=True))
    for column, value in rows.changes(old, new).items():
        stored[column] = stored[column] + value if column == "nlink" else value
    assert rows.attr_of(tuple(stored.values())[1:]) == new
    assert rows.changes(old, old) == {}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (SliceRecord(0, 123456789, 10485760, 0, 10485760), "00000000 00000000075bcd15 00a00000 00000000 00a00000"),
        (
            SliceRecord(1 << 20, 123456789, 10485760, 4 << 20, 2 << 20),
            "00100000 00000000075bcd15 00a00000 00400000 00200000",
        ),
        (hole(5, 6), "00000005 0000000000000000 00000000 00000000 00000006"),
        (hole(0, 64 << 20), "00000000 0000000000000000 00000000 00000000 04000000"),
        (SliceRecord(7, 5, 200_000, 1000, 100_000), "00000007 0000000000000005 00030d40 000003e8 000186a0"),
        (SliceRecord(0, 13, 15_000, 0, 15_000), "00000000 000000000000000d 00003a98 00000000 00003a98"),
    ],
)
def test_slice_records(record: SliceRecord, text: str) -> None:
    assert pack([record]) == h(text)
    assert unpack(h(text)) == [record]
    assert RECORD.size == 24


def test_a_blob_of_two_records() -> None:
    blob = h("0000000000000000000000010000006400000000000000640000003200000000000000020000000a000000000000000a")
    assert rows.records_of(blob) == (SliceRecord(0, 1, 100, 0, 100), SliceRecord(50, 2, 10, 0, 10))
    with pytest.raises(CorruptError):
        rows.records_of(blob[:-1])


@pytest.mark.parametrize(
    ("edge", "text"),
    [
        (Edge(Kind.FILE, 1027), "01 0000000000000403"),
        (Edge(Kind.DIRECTORY, 2), "02 0000000000000002"),
        (Edge(Kind.SYMLINK, 3), "03 0000000000000003"),
        (Edge(Kind.DIRECTORY, TRASH + 1), "02 7fffffff10000001"),
    ],
)
def test_entries(edge: Edge, text: str) -> None:
    assert encode_entry(edge) == h(text)
    assert decode_entry(h(text)) == edge


@pytest.mark.parametrize("raw", [b"", b"\x01" * 8, b"\x00" * 9, b"\x09" + b"\x00" * 8])
def test_what_is_no_entry_is_corrupt(raw: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_entry(raw)


def test_fields_and_members() -> None:
    assert keys.ref_field(123456789, 10485760) == b"k123456789_10485760"
    assert keys.parse_ref(b"k123456789_10485760") == (123456789, 10485760)
    assert keys.parse_ref(b"knot") is None
    assert keys.delayed_field(123456790, BASE) == b"123456790_1700000000"
    assert keys.parse_delayed(b"123456790_1700000000") == (123456790, BASE)
    assert codec.pack_pairs([(123456789, 10485760)]) == h("00000000075bcd15 00a00000")
    assert rows.pack_pairs([(123456789, 10485760)]) == h("00000000075bcd15 00a00000")
    assert rows.unpack_pairs(h("00000000075bcd15 00a00000")) == [(123456789, 10485760)]
    assert keys.delfile_member(1027, 10485760) == b"1027:10485760"
    assert keys.parse_delfile(b"1027:10485760") == (1027, 10485760)
    assert keys.parse_delfile(b"1027:10485760:17") is None
    assert struct.pack(">qq", -1, -1) == h("ffffffffffffffff ffffffffffffffff")


def test_locks() -> None:
    assert keys.lock_field(1, 0xD8E6F55110705D44) == b"1_D8E6F55110705D44"
    assert keys.parse_lock_field(b"1_D8E6F55110705D44") == (1, 0xD8E6F55110705D44)
    with pytest.raises(CorruptError):
        keys.parse_lock_field(b"lock")


def test_an_acl_rule() -> None:
    rule = h("0007 0005 0005 0000 00000001 000003e8 0006 00000000")
    assert rows.acl_rule((7, 5, 5, 0, h("000003e8 0006"), None)) == rule
    assert len(rule) == 22
    assert rows.acl_rule((None, None, None, None, b"", b""))[:8] == b"\xff" * 8


def test_sql_time() -> None:
    row = dict(zip(rows.NODE_COLUMNS, rows.row_of(2, FILE), strict=True))
    assert (row["atime"], row["atimensec"]) == (1_700_000_000_123_456, 789)
    assert (row["mtime"], row["mtimensec"]) == (1_700_000_001_000_000, 1)
    assert (row["ctime"], row["ctimensec"]) == (1_700_000_002_999_999, 999)


def test_names_of_keys() -> None:
    single, cluster = keys.Keys(), keys.Keys(b"{3}")
    assert single.node(TRASH) == b"i9223372032828243968"
    assert single.dir(TRASH) == b"d9223372032828243968"
    assert single.chunk(9, 12) == b"c9_12"
    assert single.counter(Counter.INODE) == b"nextinode"
    assert single.counter(Counter.TRASH) == b"nextTrash"
    assert single.held(1) == b"session1"
    assert single.locked(1) == b"locked1"
    assert cluster.node(7) == b"{3}i7"
    assert cluster.slice_ref == b"{3}sliceRef"
    assert cluster.numbers_in(b"{3}c9_12", b"c") == (9, 12)
    assert single.numbers_in(b"i7x", b"i") is None
