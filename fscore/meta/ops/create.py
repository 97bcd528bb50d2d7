"""New entries: files, directories, links of both kinds, special files (volume-format.md 2.16 mknod and link, 2.17)."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from fscore.domain.attr import DIRECTORY_LENGTH, Attr, Flag, Kind, space_of
from fscore.domain.caller import Caller
from fscore.domain.errors import Exists, Invalid, IsADir, NotFound, NotPermitted, TooLong
from fscore.domain.ids import MAX_SYMLINK
from fscore.meta.ops.acl import inherit
from fscore.meta.ops.check import (
    EXECUTE,
    WRITE,
    check_access,
    check_growable,
    check_movable,
    check_thawed,
    directory,
)
from fscore.meta.ops.work import Work
from fscore.meta.records import DirStat, Edge, want_edge, want_node

SETGID: Final = 0o2000
GROUP_EXECUTE: Final = 0o010
SYMLINK_MODE: Final = 0o777
EMPTY_STAT: Final = DirStat(0, 0, 0)


def check_target(target: bytes) -> None:
    """A symbolic link's target: 1 to 4096 bytes without NUL."""
    if not target:
        raise NotFound("an empty link target")
    if len(target) > MAX_SYMLINK:
        raise TooLong(f"a link target of {len(target)} bytes, {MAX_SYMLINK} are allowed")
    if b"\0" in target:
        raise Invalid("a link target holds a NUL")


def mknod(
    work: Work,
    parent: int,
    name: bytes,
    ino: int,
    kind: Kind,
    mode: int,
    *,
    rdev: int = 0,
    target: bytes = b"",
    exclusive: bool = True,
) -> tuple[int, Attr]:
    """Create node `ino` as `name` in `parent`; without `exclusive` a file that is there already is the answer."""
    txn = work.txn
    txn.prefetch(want_node(parent), want_edge(parent, name))
    above = directory(txn.node(parent), parent)
    check_access(txn, above, work.who, EXECUTE)
    edge = txn.edge(parent, name)
    if edge is not None:
        return _existing(work, name, edge, exclusive=exclusive)
    check_access(txn, above, work.who, WRITE | EXECUTE)
    check_growable(above)
    asked = SYMLINK_MODE if kind == Kind.SYMLINK else mode & 0o7777
    mode, access, default = inherit(work, above, kind, asked)
    attr = new_attr(above, parent, work.who, work.now_ns, kind, mode, rdev=rdev, target=target)
    if access or default:
        attr = replace(attr, access_acl=access, default_acl=default)
    work.need(4096, 1, attr, {parent: 1})
    work.put_node(ino, attr)
    work.put_edge(parent, name, Edge(kind, ino))
    touched = touch(work, parent, above, links=kind == Kind.DIRECTORY)
    if kind == Kind.DIRECTORY:
        if work.rules.dir_stats:
            txn.put_dir_stat(ino, EMPTY_STAT)
    elif kind == Kind.SYMLINK:
        txn.put_symlink(ino, target)
    work.charge(4096, 1, attr)
    work.stat_entry(parent, kind, 0, 1)
    _log_create(work, parent, name, ino, kind, asked, target, touched=touched)
    return ino, attr


def _log_create(
    work: Work, parent: int, name: bytes, ino: int, kind: Kind, mode: int, target: bytes = b"", *, touched: bool
) -> None:
    if work.rules.log is not None:
        who, umask = work.who, 0 if kind == Kind.SYMLINK else work.who.umask
        values = (parent, name, who.uid, who.gid, kind, mode & 0o7777, umask, target, touched, ino)
        work.log("CREATE(%d,%s,%d,%d,%d,%d,%d,%s,linux,%s):%d", *values)


def hour(work: Work, trash: int, name: bytes, ino: int, mode: int) -> Attr:
    """An hour directory of the trash, whose own node is neither checked nor touched (volume-format.md 2.8)."""
    txn = work.txn
    if txn.edge(trash, name) is not None:
        raise Exists(path=name)
    now = work.now_ns
    attr = Attr(
        kind=Kind.DIRECTORY,
        mode=mode,
        atime_ns=now,
        mtime_ns=now,
        ctime_ns=now,
        nlink=2,
        length=DIRECTORY_LENGTH,
        parent=trash,
    )
    work.put_node(ino, attr)
    work.put_edge(trash, name, Edge(Kind.DIRECTORY, ino))
    if work.rules.dir_stats:
        txn.put_dir_stat(ino, EMPTY_STAT)
    work.charge(4096, 1, attr)
    _log_create(work, trash, name, ino, Kind.DIRECTORY, mode, touched=False)
    return attr


def new_attr(
    above: Attr, parent: int, who: Caller, now_ns: int, kind: Kind, mode: int, *, rdev: int = 0, target: bytes = b""
) -> Attr:
    """Attributes of a new node: setgid directories, inherited tier and skip-trash flag."""
    gid = who.gid
    if above.mode & SETGID:
        gid = above.gid
        if kind == Kind.DIRECTORY:
            mode |= SETGID
        elif mode & SETGID and mode & GROUP_EXECUTE and who.uid != 0 and not who.in_group(gid):
            mode &= ~SETGID
    is_dir = kind == Kind.DIRECTORY
    return Attr(
        kind=kind,
        mode=mode,
        uid=who.uid,
        gid=gid,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        nlink=2 if is_dir else 1,
        length=DIRECTORY_LENGTH if is_dir else len(target),
        rdev=rdev,
        parent=parent,
        flags=above.flags & Flag.SKIP_TRASH,
        tier=above.tier,
    )


def touch(work: Work, ino: int, attr: Attr, links: int = 0) -> bool:
    """Write a directory whose entries changed: always with its link count, else when its mtime is old enough.

    Returns whether it was written.
    """
    due = bool(links) or work.now_ns - attr.mtime_ns >= work.rules.skip_dir_ns
    if due:
        work.put_node(ino, replace(attr, nlink=attr.nlink + links, mtime_ns=work.now_ns, ctime_ns=work.now_ns))
    return due


def link(work: Work, ino: int, parent: int, name: bytes) -> Attr:
    """Give a file another name. Its parents are kept apart from now on, for good (volume-format.md 2.17 Parents)."""
    txn = work.txn
    txn.prefetch(want_node(parent), want_node(ino), want_edge(parent, name))
    above = directory(txn.node(parent), parent)
    attr = txn.node(ino)
    if attr is None:
        raise NotFound(f"inode {ino}")
    if attr.kind == Kind.DIRECTORY:
        raise NotPermitted("a directory has one name")
    check_access(txn, above, work.who, EXECUTE)
    if txn.edge(parent, name) is not None:
        raise Exists(path=name)
    check_access(txn, above, work.who, WRITE | EXECUTE)
    check_growable(above)
    check_movable(attr)
    check_thawed(attr)
    if attr.nlink == 0:
        raise NotFound(f"inode {ino} has lost its last name")
    if work.rules.quotas is not None:
        work.rules.quotas.check_owner(attr.uid, attr.gid, 0, 1)
        work.rules.quotas.check_directory(parent, space_of(attr.kind, attr.length), 1)
    linked = replace(attr, nlink=attr.nlink + 1, ctime_ns=work.now_ns, parent=0)
    work.put_edge(parent, name, Edge(attr.kind, ino))
    touched = touch(work, parent, above)
    work.put_node(ino, linked)
    if attr.parent > 0:
        txn.add_parent(ino, attr.parent, 1)
    txn.add_parent(ino, parent, 1)
    work.stat_entry(parent, attr.kind, attr.length, 1)
    work.log("LINK(%d,%d,%s,%s):%d", ino, parent, name, touched, linked.nlink)
    return linked


def _existing(work: Work, name: bytes, edge: Edge, *, exclusive: bool) -> tuple[int, Attr]:
    if exclusive:
        raise Exists(path=name)
    if edge.kind == Kind.DIRECTORY:
        raise IsADir(path=name)
    attr = work.txn.node(edge.ino)
    if attr is None or edge.kind != Kind.FILE:
        raise Exists(path=name)
    work.nodes[edge.ino] = attr
    return edge.ino, attr
