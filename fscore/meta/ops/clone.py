"""Clones: new nodes that share the slices of others (volume-format.md 2.12).

Rule 1  every record copied takes a reference, in the transaction that copies it.
Rule 2  a tree grows detached and is linked last; what a crash leaves is on the list of detached nodes.
Rule 3  statistics and link counts of a cloned directory are those of what was cloned, not of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from fscore.domain.attr import DIRECTORY_LENGTH, Attr, Kind, space_of
from fscore.domain.errors import Exists, Invalid
from fscore.domain.geometry import chunk_count
from fscore.domain.quota import Load
from fscore.domain.slices import SliceRecord
from fscore.meta.ops import acl
from fscore.meta.ops.change import NEAR, existing
from fscore.meta.ops.check import EXECUTE, FIXED, READ, WRITE, check_access, check_growable, directory
from fscore.meta.ops.create import EMPTY_STAT, touch
from fscore.meta.ops.remove import destroy
from fscore.meta.ops.work import Work
from fscore.meta.records import Edge, Want, want_chunk, want_edge, want_node, want_symlink, want_xattrs

PRESERVE: Final = 2
"""How the change log says that owner, mode and times are kept."""


class Twin(NamedTuple):
    """One node to clone: its number, the new number, the name, and the length it is believed to have (a hint)."""

    source: int
    ino: int
    name: bytes
    kind: Kind
    length: int = 0


class _Original(NamedTuple):
    """All that a clone takes from its source."""

    twin: Twin
    attr: Attr
    xattrs: dict[bytes, bytes]
    chunks: dict[int, tuple[SliceRecord, ...]]
    target: bytes | None


def clone_file(work: Work, twin: Twin, parent: int, *, preserve: bool) -> Attr:
    """Clone what is no directory, as an entry of `parent`."""
    txn = work.txn
    txn.prefetch(want_node(parent), want_edge(parent, twin.name), *_wants(twin))
    above = _open_place(work, parent, twin.name)
    original = _read(work, twin, preserve=preserve)
    attr = _twin_attr(work, original, parent, preserve=preserve)
    work.need(space_of(attr.kind, attr.length), 1, attr, {parent: 1})
    _write(work, original, attr)
    work.put_edge(parent, twin.name, Edge(attr.kind, twin.ino))
    touch(work, parent, above)
    work.stat_entry(parent, attr.kind, attr.length, 1)
    _log_clone(work, twin, parent, preserve=preserve, top=True)
    return attr


def clone_root(work: Work, twin: Twin, parent: int, *, preserve: bool) -> Attr:
    """Clone a directory without its entries and without linking it: the root of a detached tree."""
    txn = work.txn
    txn.prefetch(want_node(parent), want_edge(parent, twin.name), *_wants(twin))
    _open_place(work, parent, twin.name)
    original = _read(work, twin, preserve=preserve)
    attr = _twin_attr(work, original, parent, preserve=preserve)
    work.need(4096, 1, attr)
    _write(work, original, attr)
    txn.detach(twin.ino, work.now_s)
    _log_clone(work, twin, parent, preserve=preserve, top=True)
    return attr


def clone_children(work: Work, parent: int, twins: Sequence[Twin], *, preserve: bool) -> Load:
    """Clone a batch of entries into a directory of a detached tree; what has vanished meanwhile is left out.

    Returns what they are charged.
    """
    txn = work.txn
    txn.prefetch(want_node(parent), *(want for twin in twins for want in _wants(twin)))
    above = directory(txn.node(parent), parent)
    originals = [_read(work, twin, preserve=preserve) for twin in twins if txn.node(twin.source) is not None]
    pairs = [(original, _twin_attr(work, original, parent, preserve=preserve)) for original in originals]
    load = Load(sum(space_of(attr.kind, attr.length) for _, attr in pairs), len(pairs))
    for owner in {(attr.uid, attr.gid): attr for _, attr in pairs}.values():
        own = [attr for _, attr in pairs if (attr.uid, attr.gid) == (owner.uid, owner.gid)]
        work.need(sum(space_of(attr.kind, attr.length) for attr in own), len(own), owner)
    links = sum(attr.kind == Kind.DIRECTORY for _, attr in pairs)
    for original, attr in pairs:
        _write(work, original, attr)
        work.put_edge(parent, original.twin.name, Edge(attr.kind, original.twin.ino))
        work.stat_entry(parent, attr.kind, attr.length, 1)
        _log_clone(work, original.twin, parent, preserve=preserve, top=False)
    if links:
        work.put_node(parent, replace(above, nlink=above.nlink + links))
    return load


def attach(work: Work, root: int, parent: int, name: bytes, below: Load) -> Attr:
    """Link the root of a detached tree, which holds `below`."""
    txn = work.txn
    txn.prefetch(want_node(parent), want_edge(parent, name), want_node(root))
    above = _open_place(work, parent, name)
    attr = existing(txn, root)
    work.put_edge(parent, name, Edge(Kind.DIRECTORY, root))
    touch(work, parent, above, links=1)
    txn.attach(root)
    work.stat_entry(parent, Kind.DIRECTORY, 0, 1)
    work.load(parent, below.space, below.inodes)
    work.log("ATTACH(%d,%d,%s)", root, parent, name)
    return attr


def discard(work: Work, root: int) -> None:
    """Remove the root of a detached tree that will not be linked; its entries are gone already."""
    txn = work.txn
    attr = txn.node(root)
    if attr is None or txn.has_entries(root):
        return
    txn.attach(root)
    txn.del_dir_records(root)
    txn.del_xattrs(root)
    destroy(work, root, attr)
    work.log("CLEANUP(%d)", root)


def _log_clone(work: Work, twin: Twin, parent: int, *, preserve: bool, top: bool) -> None:
    mode = PRESERVE if preserve else 0
    values = (twin.source, parent, twin.name, twin.ino, mode, work.who.umask, top, twin.ino)
    work.log("CLONE(%d,%d,%s,%d,%d,%d,%s):%d", *values)


def _open_place(work: Work, parent: int, name: bytes) -> Attr:
    above = directory(work.txn.node(parent), parent)
    check_access(work.txn, above, work.who, WRITE | EXECUTE)
    check_growable(above)
    if work.txn.edge(parent, name) is not None:
        raise Exists(path=name)
    return above


def _wants(twin: Twin) -> list[Want]:
    wants = [want_node(twin.source), want_xattrs(twin.source)]
    if twin.kind == Kind.SYMLINK:
        wants.append(want_symlink(twin.source))
    chunks = chunk_count(twin.length) if twin.kind == Kind.FILE else 0
    if chunks <= NEAR:
        wants += [want_chunk(twin.source, index) for index in range(chunks)]
    return wants


def _read(work: Work, twin: Twin, *, preserve: bool) -> _Original:
    txn = work.txn
    attr = existing(txn, twin.source)
    if attr.kind != twin.kind:
        raise Invalid(f"inode {twin.source} changed its type")
    check_access(txn, attr, work.who, READ | EXECUTE if attr.kind == Kind.DIRECTORY else READ)
    if not preserve and attr.access_acl and work.rules.acls is not None:
        attr = acl.chmod(work, attr, attr.mode & ~work.who.umask)  # else its rule would grant what the mode does not
    chunks: dict[int, tuple[SliceRecord, ...]] = {}
    if attr.kind == Kind.FILE:
        count = chunk_count(attr.length)
        indexes = range(count) if count <= NEAR else txn.chunk_indexes(twin.source, 0, count)
        for index in indexes:
            records = txn.chunk(twin.source, index)
            if records:
                chunks[index] = records
    target = txn.symlink(twin.source) if attr.kind == Kind.SYMLINK else None
    return _Original(twin, attr, txn.xattrs(twin.source), chunks, target)


def _twin_attr(work: Work, original: _Original, parent: int, *, preserve: bool) -> Attr:
    attr = original.attr
    is_dir = attr.kind == Kind.DIRECTORY
    attr = replace(attr, parent=parent, nlink=2 if is_dir else 1)
    if is_dir:
        attr = replace(attr, length=DIRECTORY_LENGTH)
    if not preserve:
        now, who = work.now_ns, work.who
        attr = replace(
            attr,
            uid=who.uid,
            gid=who.gid,
            mode=attr.mode & ~who.umask,
            flags=attr.flags & ~FIXED,
            atime_ns=now,
            mtime_ns=now,
            ctime_ns=now,
        )
    return attr


def _write(work: Work, original: _Original, attr: Attr) -> None:
    txn, ino = work.txn, original.twin.ino
    is_dir = attr.kind == Kind.DIRECTORY
    work.put_node(ino, attr)
    for name, value in original.xattrs.items():
        txn.put_xattr(ino, name, value)
    if original.target is not None:
        txn.put_symlink(ino, original.target)
    if is_dir and work.rules.dir_stats:
        txn.put_dir_stat(ino, EMPTY_STAT)
    counts: dict[tuple[int, int], int] = {}
    for index, records in original.chunks.items():
        txn.append(ino, index, records)
        for record in records:
            if record.id:
                counts[record.id, record.size] = counts.get((record.id, record.size), 0) + 1
    for (slice_id, size), count in counts.items():
        txn.add_refs(slice_id, size, count)
    work.charge(space_of(attr.kind, attr.length), 1, attr)
