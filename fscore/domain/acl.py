"""POSIX ACL rules as stored (volume-format.md 4.6), and the permission check over one (2.11). Read only so far."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.errors import CorruptError

ABSENT: Final = 0xFFFF
_HEAD: Final = struct.Struct(">HHHH")
_COUNT: Final = struct.Struct(">I")
_NAMED: Final = struct.Struct(">IH")


class Rule(NamedTuple):
    """One rule: permission bits of owner, group, mask and other, and of named users and groups."""

    owner: int
    group: int
    mask: int
    other: int
    users: tuple[tuple[int, int], ...]
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, data: bytes) -> Rule:
        """A rule from its 16 + 6n bytes."""
        try:
            owner, group, mask, other = _HEAD.unpack_from(data, 0)
            users, offset = _named(data, _HEAD.size)
            groups, offset = _named(data, offset)
        except struct.error as error:
            raise CorruptError(f"an ACL rule of {len(data)} bytes") from error
        if offset != len(data):
            raise CorruptError(f"an ACL rule with {len(data) - offset} bytes too many")
        return cls(owner, group, mask, other, users, groups)

    def render(self) -> bytes:
        """The stored form."""
        parts = [_HEAD.pack(self.owner, self.group, self.mask, self.other)]
        for named in (self.users, self.groups):
            parts.append(_COUNT.pack(len(named)))
            parts.extend(_NAMED.pack(who, bits) for who, bits in named)
        return b"".join(parts)

    def grants(self, attr: Attr, who: Caller, mask: int) -> bool:
        """Whether the rule of a node gives the caller every permission of `mask`."""
        if who.uid == attr.uid:
            return self.owner & mask == mask
        for uid, bits in self.users:
            if uid == who.uid:
                return bits & self.mask & mask == mask
        matched = [bits for gid, bits in ((attr.gid, self.group), *self.groups) if who.in_group(gid)]
        if matched:
            return any(bits & self.mask & mask == mask for bits in matched)
        return self.other & mask == mask


def _named(data: bytes, offset: int) -> tuple[tuple[tuple[int, int], ...], int]:
    (count,) = _COUNT.unpack_from(data, offset)
    offset += _COUNT.size
    named = tuple(_NAMED.unpack_from(data, offset + index * _NAMED.size) for index in range(count))
    return named, offset + count * _NAMED.size
