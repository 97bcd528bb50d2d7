"""Entries that go: unlink, rmdir, into the trash or for good, and what then happens to the node
(volume-format.md 2.8, 2.9, 2.16, 2.17).

Rule 1  into the trash a node keeps its links and its charge; its parent becomes the hour directory.
Rule 2  the last link of a file that this client has open makes it sustained: no entry, no links, still there.
Rule 3  else the last link destroys the node; a file's data are queued, and dropped in the background.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec.structs import replace

from fscore.domain.attr import Attr, Flag, Kind, align4k, space_of
from fscore.domain.errors import NotADir, NotEmpty, NotFound, NotPermitted
from fscore.domain.ids import MAX_NAME, in_trash
from fscore.meta.ops.check import (
    EXECUTE,
    WRITE,
    check_access,
    check_movable,
    check_shrinkable,
    check_sticky,
    check_trash_parent,
    directory,
)
from fscore.meta.ops.create import touch
from fscore.meta.ops.work import Work
from fscore.meta.records import Edge, want_edge, want_has_entries, want_node

UNMADE: Final = -1
"""In place of an hour directory: there is a trash, but its directory of this hour is not known yet."""


class HourMissing(Exception):
    """Something goes into the trash, and the hour directory is `UNMADE`."""


class Removal(NamedTuple):
    """How entries go: `trash` is the hour directory, 0 or `UNMADE`, `hint` the inode that the entry is believed to name
    (0: unknown), which saves a round trip; `is_open` says whether this client, with its session, has an inode open.
    """

    trash: int
    hint: int
    is_open: Callable[[int], bool]


class Removed(NamedTuple):
    """What became of the entry: the inode it named, and whether the node lives on without a name, held open here."""

    ino: int
    sustained: bool = False


def trash_name(parent: int, ino: int, name: bytes) -> bytes:
    """Name of an entry in an hour directory."""
    return (b"%d-%d-%s" % (parent, ino, name))[:MAX_NAME]


def unlink(work: Work, parent: int, name: bytes, how: Removal) -> Removed:
    """Remove an entry that is no directory."""
    txn = work.txn
    above, edge, attr = _victim(work, parent, name, how.hint)
    if edge.kind == Kind.DIRECTORY:
        raise NotPermitted("a directory goes by rmdir", name)
    check_access(txn, above, work.who, WRITE | EXECUTE)
    check_shrinkable(above)
    if attr is None:
        work.del_edge(parent, name)
        work.log("UNLINK(%d,%s,0,false,false):%d", parent, name, edge.ino)
        return Removed(edge.ino)
    check_sticky(above, attr, work.who)
    check_movable(attr)
    trash = trash_for(work, how.trash, parent, name, edge.ino, attr)
    work.del_edge(parent, name)
    touched = not in_trash(parent) and touch(work, parent, above)
    sustained = drop_name(work, parent, name, edge, attr, trash, opened=how.is_open(edge.ino))
    work.log("UNLINK(%d,%s,%d,%s,%s):%d", parent, name, trash, sustained, touched, edge.ino)
    return Removed(edge.ino, sustained)


def rmdir(work: Work, parent: int, name: bytes, how: Removal) -> Removed:
    """Remove an empty directory."""
    txn = work.txn
    above, edge, attr = _victim(work, parent, name, how.hint, empty=True)
    if edge.kind != Kind.DIRECTORY:
        raise NotADir(path=name)
    check_access(txn, above, work.who, WRITE | EXECUTE)
    check_shrinkable(above)
    if attr is not None:
        check_sticky(above, attr, work.who)
        check_movable(attr)
    if txn.has_entries(edge.ino):
        raise NotEmpty(path=name)
    trash = 0 if attr is None else trash_for(work, how.trash, parent, name, edge.ino, attr)
    work.del_edge(parent, name)
    if not in_trash(parent):
        touch(work, parent, above, links=-1)
    if attr is not None:
        drop_name(work, parent, name, edge, attr, trash)
    work.log("RMDIR(%d,%s,%d):%d", parent, name, trash, edge.ino)
    return Removed(edge.ino)


def purge(work: Work, parent: int, name: bytes, *, is_dir: bool) -> None:
    """Remove an entry of the trash for good, whatever its flags; nobody is asked. A directory must be empty."""
    txn = work.txn
    txn.prefetch(want_node(parent), want_edge(parent, name))
    above, edge = txn.node(parent), txn.edge(parent, name)
    if edge is None or (edge.kind == Kind.DIRECTORY) != is_dir:
        raise NotFound(path=name)
    attr = txn.node(edge.ino)
    if is_dir and txn.has_entries(edge.ino):
        raise NotEmpty(path=name)
    work.del_edge(parent, name)
    touched = above is not None and not in_trash(parent) and touch(work, parent, above, links=-is_dir)
    if attr is not None:
        drop_name(work, parent, name, edge, attr, 0)
    if is_dir:
        work.log("RMDIR(%d,%s,0):%d", parent, name, edge.ino)
    else:
        work.log("UNLINK(%d,%s,0,false,%s):%d", parent, name, touched, edge.ino)


def _victim(work: Work, parent: int, name: bytes, hint: int, *, empty: bool = False) -> tuple[Attr, Edge, Attr | None]:
    """The directory, the entry and its node, read in one round trip when the hint is right."""
    txn = work.txn
    check_trash_parent(parent, work.who)
    wants = [want_node(parent), want_edge(parent, name)]
    if hint:
        wants.append(want_node(hint))
        if empty:
            wants.append(want_has_entries(hint))
    txn.prefetch(*wants)
    above = directory(txn.node(parent), parent)
    check_access(txn, above, work.who, EXECUTE)
    edge = txn.edge(parent, name)
    if edge is None:
        raise NotFound(path=name)
    if edge.ino != hint and empty:
        txn.prefetch(want_node(edge.ino), want_has_entries(edge.ino))
    return above, edge, txn.node(edge.ino)


def trash_for(work: Work, trash: int, parent: int, name: bytes, ino: int, attr: Attr) -> int:
    """The hour directory that takes this entry, or 0 when it goes for good. Reads; call before the first intent."""
    if not trash or in_trash(parent) or attr.flags & Flag.SKIP_TRASH:
        return 0
    if trash == UNMADE:
        raise HourMissing
    if attr.kind != Kind.DIRECTORY and attr.nlink > 1:
        kept = trash_name(parent, ino, name)
        work.txn.prefetch(want_edge(trash, kept))
        return 0 if work.txn.edge(trash, kept) else trash
    return trash


def drop_name(
    work: Work, parent: int, name: bytes, edge: Edge, attr: Attr, trash: int, *, opened: bool = False
) -> bool:
    """What happens to the node that `name` in `parent` named; its entry is the caller's to remove or replace.

    Returns whether the node is sustained now.
    """
    work.stat_entry(parent, edge.kind, attr.length, -1)
    if edge.kind == Kind.DIRECTORY:
        work.txn.del_dir_records(edge.ino)
    if trash:
        _to_trash(work, parent, name, edge, attr, trash)
        return False
    if edge.kind != Kind.DIRECTORY and attr.nlink > 1:
        work.put_node(edge.ino, replace(attr, nlink=attr.nlink - 1, ctime_ns=work.now_ns))
        if attr.parent == 0:
            work.txn.add_parent(edge.ino, parent, -1)
        return False
    sustained = opened and edge.kind == Kind.FILE and work.rules.sid is not None
    if sustained:
        assert work.rules.sid is not None
        work.put_node(edge.ino, replace(attr, nlink=0, ctime_ns=work.now_ns))
        work.txn.sustain(work.rules.sid, edge.ino)
    else:
        destroy(work, edge.ino, attr)
    work.txn.del_xattrs(edge.ino)
    if attr.parent == 0:
        work.txn.del_parents(edge.ino)
    return sustained


def destroy(work: Work, ino: int, attr: Attr) -> None:
    """Remove a node for good and release its charge; a file's data are queued for deletion."""
    if attr.kind == Kind.FILE:
        work.txn.put_delfile(ino, attr.length, work.now_s)
        work.queued.append((ino, attr.length))
    elif attr.kind == Kind.SYMLINK:
        work.txn.del_symlink(ino)
    work.del_node(ino)
    work.charge(-space_of(attr.kind, attr.length), -1, attr)


def _to_trash(work: Work, parent: int, name: bytes, edge: Edge, attr: Attr, trash: int) -> None:
    moved = replace(attr, ctime_ns=work.now_ns, parent=trash if attr.parent > 0 else 0)
    work.put_node(edge.ino, moved)
    work.put_edge(trash, trash_name(parent, edge.ino, name), edge)
    if attr.parent == 0:
        work.txn.add_parent(edge.ino, trash, 1)
        work.txn.add_parent(edge.ino, parent, -1)
    work.stat_entry(trash, edge.kind, attr.length, 1)


def destroy_sustained(work: Work, sid: int, ino: int) -> None:
    """The last close of a file without a name, or the end of the session that held it."""
    attr = work.txn.node(ino)
    work.txn.unsustain(sid, ino)
    if attr is None or attr.nlink > 0:
        return
    work.txn.put_delfile(ino, attr.length, work.now_s)
    work.queued.append((ino, attr.length))
    work.del_node(ino)
    work.charge(-align4k(attr.length), -1, attr)
    work.log("DELSUSTAINED(%d,%d)", sid, ino)


def sustain_again(work: Work, sid: int, ino: int) -> bool:
    """Note once more that a session keeps a file without a name alive; False when the file is gone."""
    attr = work.txn.node(ino)
    if attr is None or attr.nlink > 0:
        return False
    work.txn.sustain(sid, ino)
    return True


def drop_orphan(work: Work, ino: int, before_ns: int) -> bool:
    """Remove a node that no directory names and that was not changed since; no directory's counts know it."""
    attr = work.txn.node(ino)
    if attr is None or attr.kind == Kind.DIRECTORY or attr.ctime_ns >= before_ns:
        return False
    work.log("CLEANUP(%d)", ino)
    destroy(work, ino, attr)
    work.txn.del_xattrs(ino)
    if attr.parent == 0:
        work.txn.del_parents(ino)
    return True


def drop_chunk(work: Work, ino: int, index: int) -> int:
    """Remove one chunk of a destroyed file and its references, one per record. Returns the records dropped."""
    txn = work.txn
    records = txn.chunk(ino, index)
    if not records:
        return 0
    txn.del_chunk(ino, index)
    for record in records:
        if record.id:
            txn.add_refs(record.id, record.size, -1)
    work.log("DELCHUNK(%d,%d)", ino, index)
    return len(records)
