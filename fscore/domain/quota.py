"""Quotas as values: whose they are, what they allow, what is used (volume-format.md 2.5, 2.10).

Rule 1  a limit of zero or less is none; only growth is ever refused.
Rule 2  a directory's quota counts every entry below it, itself excluded: a hard link counts wherever it has a name.
Rule 3  a user's or group's quota counts every node that it owns once, in the trash or held open too.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

UNLIMITED: Final = -1
"""How an absent limit is stored."""


class QuotaKind(enum.IntEnum):
    """What a quota is for, with the numbers that the volume format stores."""

    DIRECTORY = 0
    USER = 1
    GROUP = 2


class QuotaKey(NamedTuple):
    """Whose quota: `number` is an inode, a uid or a gid."""

    kind: QuotaKind
    number: int


class Quota(NamedTuple):
    """Limits and usage of one directory, user or group, in bytes and nodes."""

    max_space: int = UNLIMITED
    max_inodes: int = UNLIMITED
    used_space: int = 0
    used_inodes: int = 0

    @property
    def limits(self) -> bool:
        """Whether it limits anything; a record of an owner without a quota only counts."""
        return self.max_space > 0 or self.max_inodes > 0

    def allows(self, space: int, inodes: int) -> bool:
        """Whether usage may grow by this much."""
        if space > 0 and 0 < self.max_space < self.used_space + space:
            return False
        return not (inodes > 0 and 0 < self.max_inodes < self.used_inodes + inodes)

    def grown(self, space: int, inodes: int) -> Quota:
        """With usage changed by this much."""
        return Quota(self.max_space, self.max_inodes, self.used_space + space, self.used_inodes + inodes)

    def limited(self, max_space: int | None, max_inodes: int | None) -> Quota:
        """With other limits; None keeps one."""
        return self._replace(
            max_space=self.max_space if max_space is None else max_space,
            max_inodes=self.max_inodes if max_inodes is None else max_inodes,
        )


class Load(NamedTuple):
    """Bytes and nodes: a usage, or a change of one."""

    space: int = 0
    inodes: int = 0

    def plus(self, space: int, inodes: int) -> Load:
        """With this much more."""
        return Load(self.space + space, self.inodes + inodes)
