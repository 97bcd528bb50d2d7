"""Changes of a node itself: mode, owner, times, flags, length, extended attributes (volume-format.md 2.16, 2.17)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from fscore.domain.acl import NAMES
from fscore.domain.attr import Attr, Kind, align4k, space_of
from fscore.domain.errors import (
    Exists,
    Invalid,
    IsADir,
    NoAttribute,
    NotFound,
    NotPermitted,
    TooLarge,
    TooLong,
    Unsupported,
)
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import MAX_CHUNKS, MAX_XATTR_NAME, MAX_XATTR_VALUE, ROOT, in_trash
from fscore.domain.slices import SliceRecord, hole
from fscore.meta.ops import acl
from fscore.meta.ops.acl import XattrMode
from fscore.meta.ops.check import FIXED, WRITE, check_access, check_movable, check_thawed
from fscore.meta.ops.work import NANO, Work
from fscore.meta.records import want_file, want_node, want_xattr
from fscore.meta.txn import MetaView

NOW: Final = -1
"""A time that means this moment."""

MAX_LENGTH: Final = MAX_CHUNKS * CHUNK
NEAR: Final = 256
"""Chunks between the ends of a truncate up to which each is asked to append; farther apart, those that exist."""

ALL_FLAGS: Final = 63
SECOND_NS: Final = 1_000_000_000
DAY_NS: Final = 86400 * SECOND_NS
SUID_SGID: Final = 0o6000
SGID: Final = 0o2000
GROUP_EXECUTE: Final = 0o010

XATTR_MODES: Final = {"set": 0, "create": 1, "replace": 2}
SET_BITS: Final = {"mode": 1, "uid": 2, "gid": 4, "atime_ns": 16, "mtime_ns": 32, "tier": 1024, "flags": 32768}
NOW_BITS: Final = {"atime_ns": 128, "mtime_ns": 256}
"""What of a node was changed, as lines of the change log say it (volume-format.md 2.15)."""

NOBODY: Final = -1
"""No user: only the group's quota is asked."""


class AttrChange(msgspec.Struct, frozen=True):
    """What setattr shall change; None keeps. Times of `NOW` (any negative one) mean this moment."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    flags: int | None = None
    tier: int | None = None


def existing(view: MetaView, ino: int) -> Attr:
    """The attributes of a node that must be there."""
    attr = view.node(ino)
    if attr is None:
        raise NotFound(f"inode {ino}")
    return attr


def setattr(work: Work, ino: int, change: AttrChange) -> Attr:  # noqa: A001 - the POSIX verb
    """Apply a change; ctime moves only when something did."""
    txn = work.txn
    txn.prefetch(want_node(ino))
    attr = existing(txn, ino)
    if in_trash(ino):
        raise NotPermitted("the trash's own directories are not changed")
    check_thawed(attr)
    _check_setattr(work, attr, change)
    changed = _owned(work, attr, change)
    if change.mode is not None:
        mode = change.mode & 0o7777
        if mode & SGID and work.who.uid != 0 and not work.who.in_group(changed.gid):
            mode &= ~SGID
        changed = acl.chmod(work, changed, mode)
    if change.atime_ns is not None:
        changed = replace(changed, atime_ns=_moment(work, change.atime_ns))
    if change.mtime_ns is not None:
        changed = replace(changed, mtime_ns=_moment(work, change.mtime_ns))
    if change.flags is not None:
        changed = replace(changed, flags=change.flags)
    if change.tier is not None:
        changed = replace(changed, tier=change.tier)
    if changed == attr:
        return attr
    changed = replace(changed, ctime_ns=work.now_ns)
    _check_room(work, attr, changed)
    work.put_node(ino, changed)
    work.hand_over(attr, changed)
    _log_setattr(work, ino, change, changed)
    return changed


def _log_setattr(work: Work, ino: int, change: AttrChange, now: Attr) -> None:
    """Which fields were asked for, as the bits of the official client, and what all of them are now."""
    if work.rules.log is None:
        return
    asked = sum(bit for name, bit in SET_BITS.items() if getattr(change, name) is not None)
    asked += sum(bit for name, bit in NOW_BITS.items() if (getattr(change, name) or 0) < 0)
    atime, atime_ns = divmod(now.atime_ns, NANO)
    mtime, mtime_ns = divmod(now.mtime_ns, NANO)
    ctime, ctime_ns = divmod(now.ctime_ns, NANO)
    values = (asked, 0, now.uid, now.gid, now.mode, now.flags, atime, mtime, atime_ns, mtime_ns, ctime, ctime_ns)
    work.log("SETATTR(%d," + "%d," * len(values) + "%d)", ino, *values, now.access_acl)


def _check_room(work: Work, old: Attr, new: Attr) -> None:
    """A quota of who gets the node stops everybody but uid 0."""
    quotas = work.rules.quotas
    if quotas is not None and work.who.uid != 0 and new.gid != old.gid:
        quotas.check_owner(NOBODY, new.gid, space_of(old.kind, old.length), 1)


def _moment(work: Work, time_ns: int) -> int:
    return work.now_ns if time_ns < 0 else time_ns


def _check_setattr(work: Work, attr: Attr, change: AttrChange) -> None:
    who = work.who
    times = change.atime_ns is not None or change.mtime_ns is not None
    owners = change.uid is not None or change.gid is not None
    if attr.flags & FIXED and (owners or change.mode is not None or times) and not _unfixes(change):
        raise NotPermitted("it is immutable or append-only")
    if change.flags is not None:
        if change.flags & ~ALL_FLAGS:
            raise Invalid(f"inode flags {change.flags}")
        if who.uid not in {0, attr.uid}:
            raise NotPermitted("only the owner changes inode flags")
    if change.mode is not None and who.uid not in {0, attr.uid}:
        raise NotPermitted("only the owner changes the mode")
    if owners:
        _check_chown(work, attr, change)
    if times and who.uid not in {0, attr.uid}:
        explicit = any(time is not None and time >= 0 for time in (change.atime_ns, change.mtime_ns))
        if explicit:
            raise NotPermitted("only the owner sets times")
        check_access(work.txn, attr, who, WRITE)


def _unfixes(change: AttrChange) -> bool:
    return change.flags is not None and not change.flags & FIXED


def _check_chown(work: Work, attr: Attr, change: AttrChange) -> None:
    who = work.who
    if who.uid == 0:
        return
    if change.uid is not None and change.uid != attr.uid:
        raise NotPermitted("only uid 0 changes the owner")
    if who.uid != attr.uid:
        raise NotPermitted("only the owner changes the group")
    if change.gid is not None and change.gid != attr.gid and not who.in_group(change.gid):
        raise NotPermitted("the owner is no member of that group")


def _owned(work: Work, attr: Attr, change: AttrChange) -> Attr:
    """Owner and group as asked; on what is no directory that clears setuid and setgid, as ext4 does."""
    if change.uid is None and change.gid is None:
        return attr
    uid = attr.uid if change.uid is None else change.uid
    gid = attr.gid if change.gid is None else change.gid
    mode = attr.mode
    if attr.kind != Kind.DIRECTORY:
        mode = stripped(mode) if work.who.uid == 0 else mode & ~SUID_SGID
    return replace(attr, uid=uid, gid=gid, mode=mode)


def stripped(mode: int) -> int:
    """A file's mode after somebody without privilege wrote to it: without setuid, and without setgid if its group may
    execute it.
    """
    return mode & ~(SUID_SGID if mode & GROUP_EXECUTE else SUID_SGID & ~SGID)


def touch_atime(work: Work, ino: int) -> None:
    """Move the access time to this moment, and nothing else: ctime stays (volume-format.md 2.13)."""
    attr = existing(work.txn, ino)
    if attr.atime_ns < work.now_ns:
        work.put_node(ino, replace(attr, atime_ns=work.now_ns))
        work.log("ACCESS(%d)", ino)


def atime_due(attr: Attr, now_ns: int, *, strict: bool) -> bool:
    """Whether an access that happens now is worth a write: relatime, or with `strict` after a second, too."""
    age_ns = now_ns - attr.atime_ns
    if attr.atime_ns < max(attr.mtime_ns, attr.ctime_ns) or age_ns > DAY_NS:
        return True
    return strict and age_ns > SECOND_NS


def parents_of(view: MetaView, ino: int, attr: Attr) -> dict[int, int]:
    """Directories that hold entries of a file, with the number of entries."""
    if attr.nlink == 0:
        return {}  # only a handle keeps it
    return {attr.parent: 1} if attr.parent > 0 else view.parents(ino)


def truncate(work: Work, ino: int, length: int, *, checked: bool = False) -> Attr:
    """Set a file's length; `checked` when an open handle has the permission already."""
    if length < 0:
        raise Invalid(f"a length of {length}")
    if length > MAX_LENGTH:
        raise TooLarge(f"{length} bytes")
    txn = work.txn
    txn.prefetch(want_file(ino))
    attr = existing(txn, ino)
    if attr.kind != Kind.FILE:
        raise IsADir(f"inode {ino}") if attr.kind == Kind.DIRECTORY else Invalid(f"inode {ino} is no file")
    check_movable(attr)
    if not checked:
        check_thawed(attr)
        check_access(txn, attr, work.who, WRITE)
    if length == attr.length:
        return attr
    space = align4k(length) - align4k(attr.length)
    parents = parents_of(txn, ino, attr)
    work.need(space, 0, attr, parents)
    zeros = list(_zeros(work, ino, attr.length, length))
    for index, record, if_exists in zeros:
        txn.append(ino, index, [record], if_exists=if_exists)
    changed = replace(attr, length=length, mtime_ns=work.now_ns, ctime_ns=work.now_ns)
    work.put_node(ino, changed)
    work.log("TRUNCATE(%d,%d,%d,0)", ino, attr.length, length)
    work.charge(space, 0, attr)
    work.stat_growth(parents, length - attr.length, space)
    return changed


def _zeros(work: Work, ino: int, old: int, new: int) -> Iterator[tuple[int, SliceRecord, bool]]:
    """(chunk index, record, only where there is a list) that keep what lies past the end reading as zeros."""
    low, high = min(old, new), max(old, new)
    first, pos = divmod(low, CHUNK)
    last, rest = divmod(high, CHUNK)
    yield first, hole(pos, CHUNK - pos if high > (first + 1) * CHUNK else high - low), False
    between: Iterator[int] | list[int] = iter(range(first + 1, last))
    if last - first > NEAR:
        between = work.txn.chunk_indexes(ino, first + 1, last)
    for index in between:
        yield index, hole(0, CHUNK), True
    if last > first and rest:
        yield last, hole(0, rest), False


def check_xattr_name(name: bytes) -> None:
    """Names of 1 to 255 bytes, and none that shows an ACL: those are no stored attributes."""
    if not name or b"\0" in name:
        raise Invalid("an empty attribute name, or one with a NUL")
    if len(name) > MAX_XATTR_NAME:
        raise TooLong(f"an attribute name of {len(name)} bytes, {MAX_XATTR_NAME} are allowed")
    if name in NAMES:
        raise Unsupported("an ACL is set by its own operation")


def setxattr(work: Work, ino: int, name: bytes, value: bytes, mode: XattrMode) -> None:
    """Create or replace one attribute; ctime stays (volume-format.md 2.16)."""
    check_xattr_name(name)
    if len(value) > MAX_XATTR_VALUE:
        raise TooLarge(f"an attribute value of {len(value)} bytes, {MAX_XATTR_VALUE} are allowed")
    if mode != "set":
        work.txn.prefetch(want_node(ino), want_xattr(ino, name))
    _check_xattr_change(work, ino, name)
    if mode != "set":
        known = work.txn.xattr(ino, name) is not None
        if mode == "create" and known:
            raise Exists(f"attribute {name!r}")
        if mode == "replace" and not known:
            raise NoAttribute(repr(name))
    work.txn.put_xattr(ino, name, value)
    work.log("SETXATTR(%d,%s,%s,%d)", ino, name, value, XATTR_MODES[mode])


def removexattr(work: Work, ino: int, name: bytes) -> None:
    """Remove one attribute."""
    check_xattr_name(name)
    work.txn.prefetch(want_node(ino), want_xattr(ino, name))
    _check_xattr_change(work, ino, name)
    if work.txn.xattr(ino, name) is None:
        raise NoAttribute(repr(name))
    work.txn.del_xattr(ino, name)
    work.log("REMOVEXATTR(%d,%s)", ino, name)


def _check_xattr_change(work: Work, ino: int, name: bytes) -> None:
    attr = existing(work.txn, ino)
    if ino != ROOT:
        check_thawed(attr)
    check_movable(attr)
    if work.who.uid in {0, attr.uid}:
        return
    if name.startswith((b"trusted.", b"security.")):
        raise NotPermitted("only uid 0 sets trusted and security attributes")
    check_access(work.txn, attr, work.who, WRITE)
