"""POSIX ACL rules as stored (volume-format.md 4.6) and as programs see them, and what they mean (2.11)."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.errors import CorruptError, Invalid

ABSENT: Final = 0xFFFF
ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
NAMES: Final = (ACCESS, DEFAULT)
"""Extended attributes that show the rules of a node; never stored as such."""

_HEAD: Final = struct.Struct(">HHHH")
_COUNT: Final = struct.Struct(">I")
_NAMED: Final = struct.Struct(">IH")
_VERSION: Final = struct.pack("<I", 2)
_WIRE: Final = struct.Struct("<HHI")
_NOBODY: Final = 0xFFFFFFFF


class _Tag(enum.IntEnum):
    """Who an entry of Linux's form is about (linux/posix_acl_xattr.h)."""

    OWNER = 1
    USER = 2
    OWNING_GROUP = 4
    GROUP = 8
    MASK = 16
    OTHER = 32


Named = tuple[tuple[int, int], ...]
"""(user or group, permission bits)."""


class Rule(NamedTuple):
    """One rule: permission bits of owner, group, mask and other (`ABSENT` without), and of named users and groups."""

    owner: int
    group: int
    mask: int
    other: int
    users: Named
    groups: Named

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

    @classmethod
    def from_xattr(cls, value: bytes) -> Rule:
        """A rule from the form in which programs and the kernel set it. Raises Invalid."""
        single: dict[_Tag, int] = {}
        named: dict[_Tag, dict[int, int]] = {_Tag.USER: {}, _Tag.GROUP: {}}
        for tag, bits, who in _entries(value):
            if tag in named and who not in named[tag]:
                named[tag][who] = bits
            elif tag not in named and tag not in single:
                single[tag] = bits
            else:
                raise Invalid(f"an ACL with two entries for {tag.name.lower()} {who}")
        if _Tag.MASK not in single and any(named.values()):
            raise Invalid("an ACL with named entries and without a mask")
        owner, group, mask, other = (
            single.get(tag, ABSENT) for tag in (_Tag.OWNER, _Tag.OWNING_GROUP, _Tag.MASK, _Tag.OTHER)
        )
        users, groups = (tuple(named[tag].items()) for tag in (_Tag.USER, _Tag.GROUP))
        return cls(owner, group, mask, other, users, groups)

    def to_xattr(self) -> bytes:
        """The form in which programs and the kernel read it."""
        entries = [(_Tag.OWNER, self.owner, _NOBODY)]
        entries += [(_Tag.USER, bits, who) for who, bits in self.users]
        entries.append((_Tag.OWNING_GROUP, self.group, _NOBODY))
        entries += [(_Tag.GROUP, bits, who) for who, bits in self.groups]
        entries += [(_Tag.MASK, self.mask, _NOBODY), (_Tag.OTHER, self.other, _NOBODY)]
        return _VERSION + b"".join(_WIRE.pack(*entry) for entry in entries if entry[1] != ABSENT)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing: to set it is to remove the rule."""
        return self == NOTHING

    @property
    def is_minimal(self) -> bool:
        """Whether mode bits say as much."""
        return not self.users and not self.groups and self.mask == ABSENT

    @property
    def mode(self) -> int:
        """The nine permission bits of a node with this rule: the group's are the mask's."""
        group = self.group if self.is_minimal else self.mask
        return (self.owner & 7) << 6 | (group & 7) << 3 | self.other & 7

    def with_mode(self, mode: int) -> Rule:
        """This rule after a chmod: group bits go to the mask, where there is one."""
        owner, group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
        if self.is_minimal:
            return self._replace(owner=owner, group=group, other=other)
        return self._replace(owner=owner, mask=group, other=other)

    def filled(self, mode: int) -> Rule:
        """This rule with what it leaves out of owner, group and other taken from a mode."""
        return self._replace(
            owner=mode >> 6 & 7 if self.owner == ABSENT else self.owner,
            group=mode >> 3 & 7 if self.group == ABSENT else self.group,
            other=mode & 7 if self.other == ABSENT else self.other,
        )

    def inherited(self, mode: int) -> Rule:
        """The access rule of a node that is created with this mode below a directory whose default rule this is."""
        return self._replace(
            owner=self.owner & mode >> 6 & 7, mask=self.mask & mode >> 3 & 7, other=self.other & mode & 7
        )

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


NOTHING: Final = Rule(ABSENT, ABSENT, ABSENT, ABSENT, (), ())
"""The rule that says nothing."""


def _named(data: bytes, offset: int) -> tuple[Named, int]:
    (count,) = _COUNT.unpack_from(data, offset)
    offset += _COUNT.size
    named = tuple(_NAMED.unpack_from(data, offset + index * _NAMED.size) for index in range(count))
    return named, offset + count * _NAMED.size


def _entries(value: bytes) -> Iterator[tuple[_Tag, int, int]]:
    if value[:4] != _VERSION or len(value) % _WIRE.size != 4:
        raise Invalid(f"{len(value)} bytes that are no ACL")
    for tag, bits, who in _WIRE.iter_unpack(value[4:]):
        try:
            yield _Tag(tag), bits, who
        except ValueError:
            raise Invalid(f"an ACL entry with the tag {tag}") from None
        if bits > 7:
            raise Invalid(f"an ACL entry with the permissions {bits}")
