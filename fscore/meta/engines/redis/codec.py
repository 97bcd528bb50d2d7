"""The binary values of a volume in Redis (volume-format.md 4): big-endian, byte for byte as the official client writes.

attr   71 bytes, then the two ACL ids if either is set, then the tier if set, then one pad byte of zero
entry   9 bytes: type, inode         parked slices  n x 12 bytes: id, size
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.errors import CorruptError
from fscore.meta.records import Edge

ATTR: Final = struct.Struct(">BHIIqIqIqIIQIQ")
ENTRY: Final = struct.Struct(">BQ")
PARKED: Final = struct.Struct(">QI")
_ACLS: Final = struct.Struct(">II")
_KINDS: Final = {int(kind): kind for kind in Kind}
_SECOND: Final = 1_000_000_000
_PAD: Final = b"\x00"


def encode_attr(attr: Attr) -> bytes:
    """An Attr as stored."""
    atime, atime_ns = divmod(attr.atime_ns, _SECOND)
    mtime, mtime_ns = divmod(attr.mtime_ns, _SECOND)
    ctime, ctime_ns = divmod(attr.ctime_ns, _SECOND)
    data = ATTR.pack(
        attr.flags,
        attr.kind << 12 | attr.mode & 0o7777,
        attr.uid,
        attr.gid,
        atime,
        atime_ns,
        mtime,
        mtime_ns,
        ctime,
        ctime_ns,
        attr.nlink,
        attr.length,
        attr.rdev,
        attr.parent,
    )
    if attr.access_acl or attr.default_acl:
        data += _ACLS.pack(attr.access_acl, attr.default_acl)
    if attr.tier:
        data += bytes((attr.tier,))
    return data + _PAD


def decode_attr(data: bytes) -> Attr:
    """An Attr from its stored form, with or without the tail and the pad."""
    try:
        flags, bits, uid, gid, a_s, a_ns, m_s, m_ns, c_s, c_ns, nlink, length, rdev, parent = ATTR.unpack_from(data)
        kind = _KINDS[bits >> 12]
    except (struct.error, KeyError):
        raise CorruptError(f"an attribute record of {len(data)} bytes is none: {data[:80].hex()}") from None
    access, default, tier = _tail(data) if len(data) > ATTR.size + 1 else (0, 0, 0)
    return Attr(
        kind,
        bits & 0xFFF,
        uid,
        gid,
        a_s * _SECOND + a_ns,
        m_s * _SECOND + m_ns,
        c_s * _SECOND + c_ns,
        nlink,
        length,
        rdev,
        parent,
        flags,
        access,
        default,
        tier,
    )


def _tail(data: bytes) -> tuple[int, int, int]:
    at, access, default = ATTR.size, 0, 0
    if len(data) - at >= _ACLS.size:
        access, default = _ACLS.unpack_from(data, at)
        at += _ACLS.size
    return access, default, data[at] if at < len(data) else 0


def encode_entry(edge: Edge) -> bytes:
    """A directory entry as stored."""
    return ENTRY.pack(edge.kind, edge.ino)


def decode_entry(data: bytes) -> Edge:
    """A directory entry from its stored form."""
    try:
        kind, ino = ENTRY.unpack(data)
        return Edge(_KINDS[kind], ino)
    except (struct.error, KeyError):
        raise CorruptError(f"a directory entry of {len(data)} bytes is none: {data[:20].hex()}") from None


def decode_named(name: bytes, data: bytes) -> Entry:
    """A name and what is stored under it, as an entry without attributes."""
    try:
        kind, ino = ENTRY.unpack(data)
        return Entry(name, ino, _KINDS[kind])
    except (struct.error, KeyError):
        raise CorruptError(f"a directory entry of {len(data)} bytes is none: {data[:20].hex()}") from None


def pack_pairs(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Parked (slice id, size) pairs as stored."""
    return b"".join(PARKED.pack(*pair) for pair in pairs)


def unpack_pairs(data: bytes) -> list[tuple[int, int]]:
    """Parked pairs from their stored form."""
    if len(data) % PARKED.size:
        raise CorruptError(f"a list of parked slices of {len(data)} bytes is no multiple of {PARKED.size}")
    return [(slice_id, size) for slice_id, size in PARKED.iter_unpack(data)]


def decode_parents(fields: Mapping[bytes, bytes]) -> dict[int, int]:
    """Parents with at least one link; a count of zero or less means none is left there."""
    counts = {int(parent): int(count) for parent, count in fields.items()}
    return {parent: count for parent, count in counts.items() if count > 0}
