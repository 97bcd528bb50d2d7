"""Rename: plain, no-replace, exchange, and the restore out of the trash (volume-format.md 2.17).

Rule 1  both names of one inode: success, nothing changes.
Rule 2  a directory never moves below itself: all ancestors are walked, inside the transaction.
Rule 3  a replaced target goes the way of unlink or rmdir, into the trash when there is one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from fscore.domain.attr import Attr, Kind, space_of
from fscore.domain.errors import Exists, Invalid, IsADir, NotADir, NotEmpty, NotFound, NotPermitted, Unsupported
from fscore.domain.ids import ROOT, in_trash
from fscore.domain.quota import Load
from fscore.meta.ops.check import (
    EXECUTE,
    WRITE,
    check_access,
    check_growable,
    check_movable,
    check_shrinkable,
    check_sticky,
    check_trash_parent,
    directory,
)
from fscore.meta.ops.create import touch
from fscore.meta.ops.remove import Removal, Removed, drop_name, trash_for
from fscore.meta.ops.work import Work
from fscore.meta.records import Edge, want_edge, want_has_entries, want_lineage, want_node

NOTHING: Final = Load()


class WeightMissing(Exception):
    """A directory moves from one quota to another, and what lies below it must be counted first."""

    def __init__(self, ino: int) -> None:
        super().__init__(f"inode {ino}")
        self.ino = ino


class RenameFlag(enum.IntFlag):
    """Flags of renameat2(2), and the format's own for what comes out of the trash."""

    NONE = 0
    NO_REPLACE = 1
    EXCHANGE = 2
    WHITEOUT = 4
    RESTORE = 32


class Place(NamedTuple):
    """A name in a directory; `hint` is the inode it is believed to name (0: unknown or nothing)."""

    parent: int
    name: bytes
    hint: int = 0


class Renamed(NamedTuple):
    """The inode that moved, its attributes now, and what became of a replaced target."""

    ino: int
    attr: Attr
    replaced: Removed | None = None


class _Side(NamedTuple):
    """One end of a rename, read: the directory, and the entry with its node, if there is one."""

    place: Place
    above: Attr
    edge: Edge | None
    attr: Attr | None


def rename(
    work: Work,
    source: Place,
    target: Place,
    flags: RenameFlag,
    how: Removal,
    ancestors: tuple[int, ...] | None = (),
    weights: Mapping[int, Load] | None = None,
) -> Renamed:
    """Move an entry. `ancestors` are those that the target's directory is believed to have, a hint. None: who knows.

    `weights` says what lies below directories that move from one quota to another; WeightMissing asks for more.
    """
    _check_flags(flags)
    check_trash_parent(source.parent, work.who)
    if in_trash(target.parent):
        raise NotPermitted("nothing is moved into the trash by name")
    _prefetch(work, source, target, ancestors)
    here, there = _read(work, source), _read(work, target)
    if here.edge is None or here.attr is None:
        raise NotFound(path=source.name)
    if there.edge is not None and flags & RenameFlag.NO_REPLACE:
        raise Exists(path=target.name)
    if there.edge is not None and there.edge.ino == here.edge.ino:
        return Renamed(here.edge.ino, here.attr)
    _check_source(work, here, here.edge, here.attr, there)
    exchange = bool(flags & RenameFlag.EXCHANGE)
    loads = _check_quotas(work, here, there, weights or {}, exchange=exchange)
    if exchange:
        return _exchange(work, here, there, loads)
    trash = _check_target(work, here.edge, there, how)
    moved = _move(work, here, there, trash, how, loads[0])
    _log_move(work, here, there, flags, trash if there.edge is not None else max(how.trash, 0))
    return moved


def _check_flags(flags: RenameFlag) -> None:
    if flags & ~(RenameFlag.NO_REPLACE | RenameFlag.EXCHANGE | RenameFlag.RESTORE):
        raise Unsupported(f"rename flags {int(flags)}")
    if flags & RenameFlag.EXCHANGE and flags != RenameFlag.EXCHANGE:
        raise Invalid("exchange goes with no other rename flag")


def _prefetch(work: Work, source: Place, target: Place, ancestors: tuple[int, ...] | None) -> None:
    wants = [
        want_node(source.parent),
        want_edge(source.parent, source.name),
        want_node(target.parent),
        want_edge(target.parent, target.name),
    ]
    if source.hint:
        wants.append(want_node(source.hint))
    if target.hint:
        wants += [want_node(target.hint), want_has_entries(target.hint)]
    if ancestors is None and source.parent != target.parent:
        wants += [want_lineage(target.parent), want_lineage(source.parent)]
    else:
        wants += [want_node(ino) for ino in ancestors or ()]
    work.txn.prefetch(*wants)


def _read(work: Work, place: Place) -> _Side:
    txn = work.txn
    above = directory(txn.node(place.parent), place.parent)
    check_access(txn, above, work.who, EXECUTE)
    edge = txn.edge(place.parent, place.name)
    return _Side(place, above, edge, txn.node(edge.ino) if edge else None)


def _check_source(work: Work, here: _Side, edge: Edge, attr: Attr, there: _Side) -> None:
    check_access(work.txn, here.above, work.who, WRITE | EXECUTE)
    check_access(work.txn, there.above, work.who, WRITE | EXECUTE)
    check_shrinkable(here.above)
    check_growable(there.above)
    check_sticky(here.above, attr, work.who)
    check_movable(attr)
    if edge.kind == Kind.DIRECTORY and here.place.parent != there.place.parent:
        check_access(work.txn, attr, work.who, WRITE)
        _check_loop(work, edge.ino, there)


def _check_loop(work: Work, ino: int, below: _Side) -> None:
    """Invalid when `ino` is the directory of `below` or one of its ancestors."""
    seen = set()
    at, attr = below.place.parent, below.above
    while True:
        if at == ino:
            raise Invalid("a directory cannot move below itself")
        if at == ROOT or in_trash(at) or at in seen:
            return
        seen.add(at)
        at = attr.parent
        above = work.txn.node(at)
        if above is None:
            return
        attr = above


def _check_target(work: Work, edge: Edge, there: _Side, how: Removal) -> int:
    """Whether the target may be replaced, and the hour directory that takes it (0: none, or no target)."""
    if there.edge is None:
        return 0
    if edge.kind == Kind.DIRECTORY and there.edge.kind != Kind.DIRECTORY:
        raise NotADir(path=there.place.name)
    if edge.kind != Kind.DIRECTORY and there.edge.kind == Kind.DIRECTORY:
        raise IsADir(path=there.place.name)
    if there.edge.kind == Kind.DIRECTORY and work.txn.has_entries(there.edge.ino):
        raise NotEmpty(path=there.place.name)
    check_shrinkable(there.above)
    if there.attr is None:
        return 0
    check_sticky(there.above, there.attr, work.who)
    check_movable(there.attr)
    place = there.place
    return trash_for(work, how.trash, place.parent, place.name, there.edge.ino, there.attr)


def _check_quotas(
    work: Work, here: _Side, there: _Side, weights: Mapping[int, Load], *, exchange: bool
) -> tuple[Load, Load]:
    """Room in the quotas that are new to what moves. Returns what lies below it, and below what comes back for it."""
    quotas, source, target = work.rules.quotas, here.place.parent, there.place.parent
    if quotas is None or not quotas.crosses(source, target):
        return NOTHING, NOTHING
    assert here.edge is not None
    below = _below(here.edge, weights)
    back = _below(there.edge, weights) if exchange and there.edge is not None else NOTHING
    gain = _weight(here, below)
    loss = _weight(there, back)
    quotas.check_directory(target, gain.space - loss.space, gain.inodes - loss.inodes, source)
    if exchange:
        quotas.check_directory(source, loss.space - gain.space, loss.inodes - gain.inodes, target)
    return below, back


def _below(edge: Edge, weights: Mapping[int, Load]) -> Load:
    if edge.kind != Kind.DIRECTORY:
        return NOTHING
    if edge.ino not in weights:
        raise WeightMissing(edge.ino)
    return weights[edge.ino]


def _weight(side: _Side, below: Load) -> Load:
    if side.edge is None:
        return NOTHING
    return below.plus(space_of(side.edge.kind, side.attr.length if side.attr is not None else 0), 1)


def _move(work: Work, here: _Side, there: _Side, trash: int, how: Removal, below: Load) -> Renamed:
    edge, attr = here.edge, here.attr
    assert edge is not None
    assert attr is not None
    source, target = here.place, there.place
    work.del_edge(source.parent, source.name)
    replaced = None
    if there.edge is not None:
        sustained = False
        if there.attr is not None:
            sustained = drop_name(
                work, target.parent, target.name, there.edge, there.attr, trash, opened=how.is_open(there.edge.ino)
            )
        replaced = Removed(there.edge.ino, sustained)
    moved = _reparent(work, edge.ino, attr, source.parent, target.parent)
    work.put_edge(target.parent, target.name, edge)
    is_dir = edge.kind == Kind.DIRECTORY
    lost = there.edge is not None and there.edge.kind == Kind.DIRECTORY
    if source.parent == target.parent:
        touch(work, source.parent, here.above, links=-lost)
    else:
        if not in_trash(source.parent):
            touch(work, source.parent, here.above, links=-is_dir)
        touch(work, target.parent, there.above, links=is_dir - lost)
    work.stat_entry(source.parent, edge.kind, attr.length, -1)
    work.stat_entry(target.parent, edge.kind, attr.length, 1)
    _transfer(work, below, source.parent, target.parent)
    return Renamed(edge.ino, moved, replaced)


def _log_move(work: Work, here: _Side, there: _Side, flags: RenameFlag, trash: int = 0) -> None:
    assert here.edge is not None
    replaced = there.edge.ino if there.edge is not None else 0
    values = (*here.place[:2], *there.place[:2], flags, replaced, trash, here.edge.ino)
    work.log("MOVE(%d,%s,%d,%s,%d,%d,%d):%d", *values)


def _transfer(work: Work, below: Load, source: int, target: int) -> None:
    """What lies below a directory goes with it from quotas to quotas."""
    if below.inodes:
        work.load(source, -below.space, -below.inodes)
        work.load(target, below.space, below.inodes)


def _exchange(work: Work, here: _Side, there: _Side, loads: tuple[Load, Load]) -> Renamed:
    if there.edge is None or there.attr is None:
        raise NotFound(path=there.place.name)
    assert here.edge is not None
    assert here.attr is not None
    source, target = here.place, there.place
    check_growable(here.above)
    check_shrinkable(there.above)
    check_sticky(there.above, there.attr, work.who)
    check_movable(there.attr)
    if in_trash(source.parent):
        raise NotPermitted("nothing is exchanged with the trash")
    if there.edge.kind == Kind.DIRECTORY and source.parent != target.parent:
        _check_loop(work, there.edge.ino, here)
    moved = _reparent(work, here.edge.ino, here.attr, source.parent, target.parent)
    _reparent(work, there.edge.ino, there.attr, target.parent, source.parent)
    work.put_edge(source.parent, source.name, there.edge)
    work.put_edge(target.parent, target.name, here.edge)
    if source.parent == target.parent:
        touch(work, source.parent, here.above)
        _log_move(work, here, there, RenameFlag.EXCHANGE)
        return Renamed(here.edge.ino, moved)
    gained = (there.edge.kind == Kind.DIRECTORY) - (here.edge.kind == Kind.DIRECTORY)
    touch(work, source.parent, here.above, links=gained)
    touch(work, target.parent, there.above, links=-gained)
    for parent, sign in ((source.parent, 1), (target.parent, -1)):
        work.stat_entry(parent, here.edge.kind, here.attr.length, -sign)
        work.stat_entry(parent, there.edge.kind, there.attr.length, sign)
    _transfer(work, loads[0], source.parent, target.parent)
    _transfer(work, loads[1], target.parent, source.parent)
    _log_move(work, here, there, RenameFlag.EXCHANGE)
    return Renamed(here.edge.ino, moved)


def _reparent(work: Work, ino: int, attr: Attr, old: int, new: int) -> Attr:
    moved = replace(attr, ctime_ns=work.now_ns, parent=new if attr.parent > 0 else 0)
    work.put_node(ino, moved)
    if attr.parent == 0 and old != new:
        work.txn.add_parent(ino, new, 1)
        work.txn.add_parent(ino, old, -1)
    return moved
