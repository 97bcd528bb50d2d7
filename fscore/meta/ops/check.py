"""Rules that many operations ask: names, permission bits, the sticky bit, flags, what is frozen in the trash.

Pure: attributes in, an error out. (volume-format.md 2.8, 2.17; ACL rules are evaluated, never written.)
"""

from __future__ import annotations

from typing import Final, Protocol

from fscore.domain.acl import Rule
from fscore.domain.attr import Attr, Flag, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import Denied, Exists, Invalid, NotADir, NotFound, NotPermitted, TooLong
from fscore.domain.ids import MAX_NAME, RESERVED_ROOT_NAMES, ROOT, TRASH

READ: Final = 4
WRITE: Final = 2
EXECUTE: Final = 1
STICKY: Final = 0o1000
FIXED: Final = Flag.IMMUTABLE | Flag.APPEND


def check_name(parent: int, name: bytes) -> None:
    """A name for a new entry: 1 to 255 bytes, no slash, no NUL, not reserved."""
    if not name:
        raise NotFound("an empty name")
    if len(name) > MAX_NAME:
        raise TooLong(f"a name of {len(name)} bytes, {MAX_NAME} are allowed")
    if b"/" in name or b"\0" in name:
        raise Invalid("a name holds a slash or a NUL", name)
    if name in {b".", b".."}:
        raise Exists(path=name)
    if parent == ROOT and name in RESERVED_ROOT_NAMES:
        raise NotPermitted("the name is reserved in the root", name)


def check_victim_name(parent: int, name: bytes) -> None:
    """A name of an entry that goes away or moves."""
    if name == b".":
        raise Invalid("the entry . cannot go")
    if name == b"..":
        raise NotPermitted("the entry .. cannot go")
    if parent == ROOT and name in RESERVED_ROOT_NAMES:
        raise NotPermitted("the name is reserved in the root", name)


def directory(attr: Attr | None, ino: int) -> Attr:
    """The attributes of a node that must be a directory."""
    if attr is None:
        raise NotFound(f"inode {ino}")
    if attr.kind != Kind.DIRECTORY:
        raise NotADir(f"inode {ino}")
    return attr


class RuleSource(Protocol):
    """Where stored ACL rules are found: a view, a transaction, or what this client remembers."""

    def acl(self, rule_id: int) -> bytes | None:
        """A rule in its stored form."""


def check_access(rules: RuleSource, attr: Attr, who: Caller, mask: int) -> None:
    """Denied unless the caller has every permission of `mask` (read 4, write 2, execute 1). uid 0 passes."""
    if who.uid == 0:
        return
    if attr.access_acl and attr.mode & 0o070:
        stored = rules.acl(attr.access_acl)
        if stored is not None:
            if not Rule.parse(stored).grants(attr, who, mask):
                raise Denied("an ACL rule")
            return
    if who.uid == attr.uid:
        bits = attr.mode >> 6
    elif who.in_group(attr.gid):
        bits = attr.mode >> 3
    else:
        bits = attr.mode
    if bits & mask != mask:
        raise Denied


def check_sticky(parent: Attr, victim: Attr, who: Caller) -> None:
    """In a sticky directory only the owner of the entry or of the directory may remove or rename it."""
    if parent.mode & STICKY and who.uid not in {0, parent.uid, victim.uid}:
        raise Denied("the directory is sticky")


def check_growable(attr: Attr) -> None:
    """A directory that may get another entry."""
    if attr.flags & Flag.IMMUTABLE:
        raise NotPermitted("the directory is immutable")
    if attr.parent > TRASH:
        raise NotFound("the directory is in the trash")


def check_shrinkable(attr: Attr) -> None:
    """A directory that may lose an entry."""
    if attr.flags & FIXED:
        raise NotPermitted("the directory is immutable or append-only")


def check_movable(attr: Attr) -> None:
    """A node that may be unlinked, renamed, linked or truncated."""
    if attr.flags & FIXED:
        raise NotPermitted("it is immutable or append-only")


def check_thawed(attr: Attr) -> None:
    """A node outside the trash: what lies in an hour directory is frozen."""
    if attr.parent > TRASH:
        raise NotPermitted("it is in the trash")


def check_trash_parent(parent: int, who: Caller) -> None:
    """Only uid 0 takes entries out of hour directories; nobody takes an hour directory out of the trash."""
    if parent == TRASH or (parent > TRASH and who.uid != 0):
        raise NotPermitted("the trash")
