"""Reads and intents of one SQL transaction; intents run at once, under the lock that the transaction holds.

A node that was read is updated in the columns that changed, `nlink` relatively (volume-format.md 3.3), so that a client
that wrote other columns of it meanwhile is not undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fscore.domain.attr import Attr, Entry
from fscore.domain.errors import ConflictError
from fscore.domain.locks import LockKind, Ranges, render
from fscore.domain.quota import Quota, QuotaKey
from fscore.domain.slices import RECORD, SliceRecord, pack
from fscore.meta.engines.sql.connections import Link
from fscore.meta.engines.sql.locks import TYPES, key_of, kind_of, owner_of, ranges_of
from fscore.meta.engines.sql.rows import KINDS, acl_rule, attr_of, changes, edge_of, pack_pairs, records_of, row_of
from fscore.meta.engines.sql.statements import Statements
from fscore.meta.records import DirStat, Edge, LockOwner, Usage, Want

SPACE = "usedSpace"
INODES = "totalInodes"


class SqlView:
    """Reads of records over one link."""

    def __init__(self, link: Link, statements: Statements) -> None:
        self._link = link
        self._sql = statements

    def prefetch(self, *wants: Want) -> None:
        """Nothing: a read costs no round trip."""

    def node(self, ino: int) -> Attr | None:
        """Attributes of a node."""
        row = self._link.one(self._sql.get_node, (ino,))
        return None if row is None else attr_of(row)

    def edge(self, parent: int, name: bytes) -> Edge | None:
        """The entry `name` of a directory."""
        row = self._link.one(self._sql.get_edge, (parent, name))
        return None if row is None else edge_of(*row)

    def has_entries(self, ino: int) -> bool:
        """Whether a directory has any entry."""
        return self._link.one(self._sql.any_edge, (ino,)) is not None

    def entries(self, ino: int) -> list[Entry]:
        """Every entry of a directory, without attributes."""
        return [Entry(name, child, KINDS[kind]) for name, child, kind in self._link.all(self._sql.all_edges, (ino,))]

    def chunk(self, ino: int, index: int) -> tuple[SliceRecord, ...]:
        """Slice records of a chunk, oldest first."""
        row = self._link.one(self._sql.get_chunk, (ino, index))
        return () if row is None else records_of(row[0])

    def chunk_indexes(self, ino: int, first: int, stop: int) -> list[int]:
        """Indexes in [first, stop) of the chunks that have a list, ascending."""
        return [index for (index,) in self._link.all(self._sql.chunk_indexes, (ino, first, stop))]

    def symlink(self, ino: int) -> bytes | None:
        """Target of a symbolic link."""
        row = self._link.one(self._sql.get_symlink, (ino,))
        return None if row is None else row[0]

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Value of one extended attribute."""
        row = self._link.one(self._sql.get_xattr, (ino, name))
        return None if row is None else row[0]

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """All extended attributes of a node."""
        return {row[0]: row[1] for row in self._link.all(self._sql.get_xattrs, (ino,))}

    def parents(self, ino: int) -> dict[int, int]:
        """Parent directory to number of links there: the entries that name this node."""
        return {row[0]: row[1] for row in self._link.all(self._sql.get_parents, (ino,))}

    def acl(self, rule_id: int) -> bytes | None:
        """A stored ACL rule in its binary form."""
        row = self._link.one(self._sql.get_acl, (rule_id,))
        return None if row is None else acl_rule(row)

    def flocks(self, ino: int) -> Mapping[LockOwner, LockKind]:
        """Who has locked a file as a whole."""
        rows = self._link.all(self._sql.locks.get_flocks, (ino,))
        return {owner_of(sid, owner): kind_of(ltype) for sid, owner, ltype in rows}

    def plocks(self, ino: int) -> Mapping[LockOwner, Ranges]:
        """Who has locked ranges of a file."""
        rows = self._link.all(self._sql.locks.get_plocks, (ino,))
        return {owner_of(sid, owner): ranges_of(blob) for sid, owner, blob in rows}

    def quotas(self, keys: Sequence[QuotaKey]) -> dict[QuotaKey, Quota]:
        """The quota records of these that have one."""
        found: dict[QuotaKey, Quota] = {}
        places = [self._sql.quotas.of(key) for key in keys]
        self._link.fetch([(table.get, where) for table, where in places])
        for key, (table, where) in zip(keys, places, strict=True):
            row = self._link.one(table.get, where)
            if row is not None:
                found[key] = Quota(*row)
        return found

    def usage(self) -> Usage:
        """Totals of the volume."""
        counts: dict[bytes, int] = {row[0]: row[1] for row in self._link.all(self._sql.all_counters)}
        return Usage(counts.get(SPACE.encode(), 0), counts.get(INODES.encode(), 0))


class SqlTxn(SqlView):
    """A view that also takes intents."""

    def __init__(self, link: Link, statements: Statements) -> None:
        super().__init__(link, statements)
        self._read: dict[int, Attr] = {}

    def node(self, ino: int) -> Attr | None:
        """Attributes of a node, remembered so that `put_node` knows what changes."""
        attr = super().node(ino)
        if attr is not None:
            self._read[ino] = attr
        return attr

    def flocks(self, ino: int) -> Mapping[LockOwner, LockKind]:
        """Who has locked a file as a whole; the file's row stays locked, so that nobody joins."""
        self._link.one(self._sql.locks.hold, (ino,))
        return super().flocks(ino)

    def plocks(self, ino: int) -> Mapping[LockOwner, Ranges]:
        """Who has locked ranges of a file; as `flocks`."""
        self._link.one(self._sql.locks.hold, (ino,))
        return super().plocks(ino)

    def put_node(self, ino: int, attr: Attr) -> None:
        """Insert the node, or update the columns that differ from what was read or put before."""
        old = self._read.get(ino)
        self._read[ino] = attr
        if old is None:
            self._link.run(self._sql.add_node, row_of(ino, attr))
            return
        changed = changes(old, attr)
        if changed and not self._link.run(self._sql.update_node(tuple(changed)), (*changed.values(), ino)):
            raise ConflictError(f"inode {ino} went away")

    def del_node(self, ino: int) -> None:
        """Remove the node's row."""
        self._read.pop(ino, None)
        self._link.run(self._sql.del_node, (ino,))

    def put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        """Insert an entry, or point the one there elsewhere."""
        self._link.run(self._sql.put_edge, (parent, name, edge.ino, edge.kind.value))

    def del_edge(self, parent: int, name: bytes) -> None:
        """Remove an entry."""
        self._link.run(self._sql.del_edge, (parent, name))

    def append(self, ino: int, index: int, records: Sequence[SliceRecord], *, if_exists: bool = False) -> None:
        """Append to the chunk's blob."""
        if not records:
            return
        if if_exists:
            self._link.run(self._sql.append_existing, (pack(records), ino, index))
        else:
            self._link.run(self._sql.append, (ino, index, pack(records)))

    def replace_prefix(self, ino: int, index: int, count: int, records: Sequence[SliceRecord]) -> None:
        """Put `records` in the place of the oldest `count`."""
        row = self._link.one(self._sql.get_chunk, (ino, index))
        if row is None or len(row[0]) < count * RECORD.size:
            raise ConflictError(f"chunk {index} of inode {ino} has fewer than {count} records")
        blob = pack(records) + row[0][count * RECORD.size :]
        if blob:
            self._link.run(self._sql.set_chunk, (blob, ino, index))
        else:
            self.del_chunk(ino, index)

    def del_chunk(self, ino: int, index: int) -> None:
        """Remove the chunk's row."""
        self._link.run(self._sql.del_chunk, (ino, index))

    def new_slice(self, slice_id: int, size: int) -> None:
        """Insert the slice's row with one reference; a number that was used before is refused by the database."""
        self._link.run(self._sql.new_slice, (slice_id, size))

    def add_refs(self, slice_id: int, size: int, count: int) -> None:
        """Add references; nothing happens when the row is missing."""
        self._link.run(self._sql.add_refs, (count, slice_id, size))

    def put_symlink(self, ino: int, target: bytes) -> None:
        """Store the target of a symbolic link."""
        self._link.run(self._sql.put_symlink, (ino, target))

    def del_symlink(self, ino: int) -> None:
        """Remove a target."""
        self._link.run(self._sql.del_symlink, (ino,))

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Create or replace one extended attribute."""
        self._link.run(self._sql.put_xattr, (ino, name, value))

    def del_xattr(self, ino: int, name: bytes) -> None:
        """Remove one extended attribute."""
        self._link.run(self._sql.del_xattr, (ino, name))

    def del_xattrs(self, ino: int) -> None:
        """Remove all extended attributes of a node."""
        self._link.run(self._sql.del_xattrs, (ino,))

    def add_parent(self, ino: int, parent: int, count: int) -> None:
        """Nothing: the entries say it."""

    def del_parents(self, ino: int) -> None:
        """Nothing: the entries say it."""

    def add_usage(self, space: int, inodes: int) -> None:
        """Charge the totals, in this very transaction: exact, and one indexed update each.

        In the official client's order, so that neither waits for the other's row with its own locked.
        """
        if inodes:
            self._link.run(self._sql.add_counter, (INODES, inodes))
        if space:
            self._link.run(self._sql.add_counter, (SPACE, space))

    def put_delfile(self, ino: int, length: int, at_s: int) -> None:
        """Queue a file for the deletion of its data."""
        self._link.run(self._sql.put_delfile, (ino, length, at_s))

    def sustain(self, sid: int, ino: int) -> None:
        """Record that a session holds a deleted inode open."""
        self._link.run(self._sql.sustain, (sid, ino))

    def unsustain(self, sid: int, ino: int) -> None:
        """Forget that record."""
        self._link.run(self._sql.unsustain, (sid, ino))

    def put_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Set a directory's statistics."""
        self._link.run(self._sql.put_dir_stat, (ino, *stat))

    def del_dir_records(self, ino: int) -> None:
        """Remove the statistics and the quota of a directory."""
        for sql in self._sql.del_dir_records:
            self._link.run(sql, (ino,))

    def put_delayed(self, new_id: int, at_s: int, slices: Sequence[tuple[int, int]]) -> None:
        """Park replaced slices."""
        self._link.run(self._sql.put_delayed, (new_id, at_s, pack_pairs(slices)))

    def detach(self, ino: int, at_s: int) -> None:
        """Record the root of a tree that is not linked yet."""
        self._link.run(self._sql.detach, (ino, at_s))

    def attach(self, ino: int) -> None:
        """Forget that record."""
        self._link.run(self._sql.attach, (ino,))

    def put_flock(self, ino: int, owner: LockOwner, kind: LockKind) -> None:
        """Insert, change or delete an owner's row."""
        key = key_of(ino, owner)
        if kind == LockKind.UNLOCK:
            self._link.run(self._sql.locks.del_flock, key)
        else:
            self._link.run(self._sql.locks.put_flock, (*key, TYPES[kind]))

    def put_plock(self, ino: int, owner: LockOwner, ranges: Ranges) -> None:
        """Insert, change or delete an owner's row."""
        key = key_of(ino, owner)
        if ranges:
            self._link.run(self._sql.locks.put_plock, (*key, render(ranges)))
        else:
            self._link.run(self._sql.locks.del_plock, key)

    def put_quota(self, key: QuotaKey, quota: Quota) -> None:
        """Insert a row, or set its numbers."""
        table, where = self._sql.quotas.of(key)
        self._link.run(table.put, (*where, *quota))

    def add_quota(self, key: QuotaKey, space: int, inodes: int) -> None:
        """Add to the usage in a row."""
        table, where = self._sql.quotas.of(key)
        self._link.run(table.add, (space, inodes, *where))

    def del_quota(self, key: QuotaKey) -> None:
        """Delete a row."""
        table, where = self._sql.quotas.of(key)
        self._link.run(table.delete, where)

    def clear_quotas(self) -> None:
        """Delete the rows of all users and groups."""
        self._link.run(self._sql.quotas.clear_owners)

    def clear_dir_stats(self) -> None:
        """Delete the statistics of all directories."""
        self._link.run(self._sql.quotas.clear_dir_stats)

    def put_log(self, line: bytes) -> None:
        """Append a row to the change log."""
        self._link.run(self._sql.quotas.put_log, (line.decode(),))
