"""Rows to values and back: what the columns of `node` mean (volume-format.md 3.3, 4.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import CorruptError
from fscore.domain.slices import SliceRecord, unpack
from fscore.meta.records import Edge

NODE_COLUMNS: Final = (
    "inode", "type", "flags", "mode", "uid", "gid", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec",
    "nlink", "length", "rdev", "parent", "access_acl_id", "default_acl_id", "tier_id",
)  # fmt: skip
PAIR: Final = struct.Struct(">QI")
"""A parked slice: id and size (volume-format.md 4.5)."""

KINDS: Final = {int(kind): kind for kind in Kind}


def attr_of(row: Sequence[int]) -> Attr:
    """The attributes in a row of `NODE_COLUMNS` without the inode; NULL reads as 0."""
    kind, flags, mode, uid, gid, atime, mtime, ctime, atimensec, mtimensec, ctimensec = row[:11]
    nlink, length, rdev, parent, access_acl, default_acl, tier = row[11:]
    try:
        return Attr(
            KINDS[kind],
            mode,
            uid,
            gid,
            atime * 1000 + atimensec,
            mtime * 1000 + mtimensec,
            ctime * 1000 + ctimensec,
            nlink,
            length,
            rdev or 0,
            parent or 0,
            flags,
            access_acl or 0,
            default_acl or 0,
            tier or 0,
        )
    except KeyError:
        raise CorruptError(f"a node row has the type {kind}, which no node has") from None


def edge_of(kind: int, ino: int) -> Edge:
    """The entry in the columns `type` and `inode`."""
    try:
        return Edge(KINDS[kind], ino)
    except KeyError:
        raise CorruptError(f"an entry for inode {ino} has the type {kind}, which no node has") from None


def row_of(ino: int, attr: Attr) -> tuple[int, ...]:
    """The row of `NODE_COLUMNS` that stores a node."""
    atime, atimensec = divmod(attr.atime_ns, 1000)
    mtime, mtimensec = divmod(attr.mtime_ns, 1000)
    ctime, ctimensec = divmod(attr.ctime_ns, 1000)
    return (
        ino, attr.kind.value, attr.flags, attr.mode, attr.uid, attr.gid, atime, mtime, ctime, atimensec, mtimensec,
        ctimensec, attr.nlink, attr.length, attr.rdev, attr.parent, attr.access_acl, attr.default_acl, attr.tier,
    )  # fmt: skip


def changes(old: Attr, new: Attr) -> dict[str, int]:
    """Columns whose stored value differs, to the value to store; `nlink` to the number to add."""
    found: dict[str, int] = {}
    for column, field in _PLAIN:
        value = getattr(new, field)
        if value != getattr(old, field):
            found[column] = int(value)
    for column, field in _TIMES:
        time_ns = getattr(new, field)
        if time_ns != getattr(old, field):
            found[column], found[column + "nsec"] = divmod(time_ns, 1000)
    if new.nlink != old.nlink:
        found["nlink"] = new.nlink - old.nlink
    return found


_PLAIN: Final = (
    ("type", "kind"),
    ("flags", "flags"),
    ("mode", "mode"),
    ("uid", "uid"),
    ("gid", "gid"),
    ("length", "length"),
    ("rdev", "rdev"),
    ("parent", "parent"),
    ("access_acl_id", "access_acl"),
    ("default_acl_id", "default_acl"),
    ("tier_id", "tier"),
)
_TIMES: Final = (("atime", "atime_ns"), ("mtime", "mtime_ns"), ("ctime", "ctime_ns"))


def records_of(blob: bytes) -> tuple[SliceRecord, ...]:
    """The slice records of a chunk's blob."""
    return tuple(unpack(blob))


def pack_pairs(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Parked (slice id, size) pairs as they are stored."""
    return b"".join(PAIR.pack(*pair) for pair in pairs)


def unpack_pairs(blob: bytes) -> list[tuple[int, int]]:
    """Parked pairs from their stored form."""
    if len(blob) % PAIR.size:
        raise CorruptError(f"a list of parked slices of {len(blob)} bytes is no multiple of {PAIR.size}")
    return [(slice_id, size) for slice_id, size in PAIR.iter_unpack(blob)]


def acl_rule(row: Sequence[object]) -> bytes:
    """An ACL row (owner, group, mask, other, users, groups) in the bytes of volume-format.md 4.6."""
    bits = [0xFFFF if value is None else int(str(value)) for value in row[:4]]
    users, groups = (value if isinstance(value, bytes) else b"" for value in row[4:])
    return b"".join(
        (
            struct.pack(">4H", *bits),
            struct.pack(">I", len(users) // 6),
            users,
            struct.pack(">I", len(groups) // 6),
            groups,
        )
    )
