"""Who asks: the identity that permission checks, new nodes and trash rules look at."""

from __future__ import annotations

import msgspec


class Caller(msgspec.Struct, frozen=True):
    """One caller's user, groups, process and umask. uid 0 passes permission checks."""

    uid: int
    gid: int
    gids: tuple[int, ...] = ()
    pid: int = 0
    umask: int = 0o022

    @property
    def is_root(self) -> bool:
        """Whether permission checks are passed without looking."""
        return self.uid == 0

    def in_group(self, gid: int) -> bool:
        """Whether the caller is a member of this group."""
        return gid == self.gid or gid in self.gids

    @classmethod
    def root(cls) -> Caller:
        """The superuser, with the usual umask."""
        return _ROOT


_ROOT = Caller(uid=0, gid=0)
