"""What the memory engine keeps, and its transaction: reads of the tables, intents staged until commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fscore.domain.attr import Attr, Entry
from fscore.domain.locks import LockKind, Ranges
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.records import DirStat, Edge, LockOwner, Session, Usage, Want

SliceKey = tuple[int, int]
"""(slice id, size)."""


class Tables:
    """One volume's records. References are kept as SQL keeps them: an entry for every slice, dead at 0 or below."""

    def __init__(self) -> None:
        self.setting: bytes | None = None
        self.nodes: dict[int, Attr] = {}
        self.edges: dict[int, dict[bytes, Edge]] = {}
        self.chunks: dict[int, dict[int, tuple[SliceRecord, ...]]] = {}
        self.refs: dict[SliceKey, int] = {}
        self.dead: dict[SliceKey, None] = {}
        self.symlinks: dict[int, bytes] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.parents: dict[int, dict[int, int]] = {}
        self.acls: dict[int, bytes] = {}
        self.space = 0
        self.inodes = 0
        self.delfiles: dict[tuple[int, int], int] = {}
        self.sustained: dict[int, set[int]] = {}
        self.dir_stats: dict[int, DirStat] = {}
        self.delayed: dict[tuple[int, int], tuple[SliceKey, ...]] = {}
        self.detached: dict[int, int] = {}
        self.sessions: dict[int, Session] = {}
        self.flocks: dict[int, dict[LockOwner, LockKind]] = {}
        self.plocks: dict[int, dict[LockOwner, Ranges]] = {}
        self.quotas: dict[QuotaKey, Quota] = {}
        self.change_log: list[bytes] = []
        self.logged = 0
        self.counters: dict[str, int] = {}

    def change_refs(self, key: SliceKey, count: int) -> None:
        """Add to a slice's references; nothing when it has no record (volume-format.md 3.3)."""
        refs = self.refs.get(key)
        if refs is None:
            return
        self.refs[key] = refs + count
        if refs + count <= 0:
            self.dead[key] = None
        else:
            self.dead.pop(key, None)

    def clear_quotas(self) -> None:
        """Remove the quota records of users and groups."""
        self.quotas = {key: quota for key, quota in self.quotas.items() if key.kind == QuotaKind.DIRECTORY}

    def append_log(self, line: bytes) -> None:
        """Append a line to the change log."""
        self.change_log.append(line)
        self.logged += 1

    def drop_locks(self, sid: int) -> None:
        """Remove every lock that a session holds."""
        for table in (self.flocks, self.plocks):
            held = [(ino, owner) for ino, owners in table.items() for owner in owners if owner.sid == sid]
            for ino, owner in held:
                _remove(table, ino, owner)


class MemoryView:
    """Reads of the tables, as they are at the moment of each read."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def prefetch(self, *wants: Want) -> None:
        """Nothing to fetch: it is all here."""

    def node(self, ino: int) -> Attr | None:
        """See `MetaView`."""
        return self._tables.nodes.get(ino)

    def edge(self, parent: int, name: bytes) -> Edge | None:
        """See `MetaView`."""
        entries = self._tables.edges.get(parent)
        return None if entries is None else entries.get(name)

    def has_entries(self, ino: int) -> bool:
        """See `MetaView`."""
        return bool(self._tables.edges.get(ino))

    def entries(self, ino: int) -> list[Entry]:
        """See `MetaView`."""
        return [Entry(name, edge.ino, edge.kind) for name, edge in list(self._tables.edges.get(ino, {}).items())]

    def chunk(self, ino: int, index: int) -> tuple[SliceRecord, ...]:
        """See `MetaView`."""
        chunks = self._tables.chunks.get(ino)
        return () if chunks is None else chunks.get(index, ())

    def chunk_indexes(self, ino: int, first: int, stop: int) -> list[int]:
        """See `MetaView`."""
        return sorted(index for index in list(self._tables.chunks.get(ino, ())) if first <= index < stop)

    def symlink(self, ino: int) -> bytes | None:
        """See `MetaView`."""
        return self._tables.symlinks.get(ino)

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """See `MetaView`."""
        return self._tables.xattrs.get(ino, {}).get(name)

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """See `MetaView`."""
        return dict(self._tables.xattrs.get(ino, {}))

    def parents(self, ino: int) -> dict[int, int]:
        """See `MetaView`."""
        return {parent: count for parent, count in self._tables.parents.get(ino, {}).items() if count > 0}

    def acl(self, rule_id: int) -> bytes | None:
        """See `MetaView`."""
        return self._tables.acls.get(rule_id)

    def flocks(self, ino: int) -> Mapping[LockOwner, LockKind]:
        """See `MetaView`."""
        return dict(self._tables.flocks.get(ino, {}))

    def plocks(self, ino: int) -> Mapping[LockOwner, Ranges]:
        """See `MetaView`."""
        return dict(self._tables.plocks.get(ino, {}))

    def quotas(self, keys: Sequence[QuotaKey]) -> dict[QuotaKey, Quota]:
        """See `MetaView`."""
        return {key: self._tables.quotas[key] for key in keys if key in self._tables.quotas}

    def usage(self) -> Usage:
        """See `MetaView`."""
        return Usage(self._tables.space, self._tables.inodes)


class _Closed:
    """What a transaction reads from once it has begun to write."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it never returns
        raise RuntimeError(f"a transaction reads before it writes, but {name} was read after the first intent")


_CLOSED: Any = _Closed()


class MemoryTxn(MemoryView):
    """Reads, then stages intents; `apply` writes them all. The engine holds its lock from the first read to the end.

    A read after the first intent raises RuntimeError: the other engines could not honour it.
    """

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self._store = tables
        self._staged: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def apply(self) -> None:
        """Write what was staged, in order."""
        for write, arguments in self._staged:
            write(*arguments)

    def _stage(self, write: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401 - arguments of `write`
        self._tables = _CLOSED
        self._staged.append((write, arguments))

    def put_node(self, ino: int, attr: Attr) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.nodes.__setitem__, ino, attr)

    def del_node(self, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.nodes.pop, ino, None)

    def put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        """See `MetaTxn`."""
        self._stage(self._put_edge, parent, name, edge)

    def _put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        entries = self._store.edges.get(parent)
        if entries is None:
            self._store.edges[parent] = {name: edge}
        else:
            entries[name] = edge

    def del_edge(self, parent: int, name: bytes) -> None:
        """See `MetaTxn`."""
        self._stage(_remove, self._store.edges, parent, name)

    def append(self, ino: int, index: int, records: Sequence[SliceRecord], *, if_exists: bool = False) -> None:
        """See `MetaTxn`. Nothing to append makes no list."""
        if records:
            self._stage(self._append, ino, index, tuple(records), if_exists)

    def _append(self, ino: int, index: int, records: tuple[SliceRecord, ...], if_exists: bool) -> None:
        chunks = self._store.chunks.get(ino, {})
        if if_exists and index not in chunks:
            return
        chunks[index] = chunks.get(index, ()) + records
        self._store.chunks[ino] = chunks

    def replace_prefix(self, ino: int, index: int, count: int, records: Sequence[SliceRecord]) -> None:
        """See `MetaTxn`."""
        self._stage(self._replace_prefix, ino, index, count, tuple(records))

    def _replace_prefix(self, ino: int, index: int, count: int, records: tuple[SliceRecord, ...]) -> None:
        chunks = self._store.chunks[ino]
        chunks[index] = records + chunks[index][count:]

    def del_chunk(self, ino: int, index: int) -> None:
        """See `MetaTxn`."""
        self._stage(_remove, self._store.chunks, ino, index)

    def new_slice(self, slice_id: int, size: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.refs.__setitem__, (slice_id, size), 1)

    def add_refs(self, slice_id: int, size: int, count: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.change_refs, (slice_id, size), count)

    def put_symlink(self, ino: int, target: bytes) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.symlinks.__setitem__, ino, target)

    def del_symlink(self, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.symlinks.pop, ino, None)

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """See `MetaTxn`."""
        self._stage(self._put_xattr, ino, name, value)

    def _put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        self._store.xattrs.setdefault(ino, {})[name] = value

    def del_xattr(self, ino: int, name: bytes) -> None:
        """See `MetaTxn`."""
        self._stage(_remove, self._store.xattrs, ino, name)

    def del_xattrs(self, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.xattrs.pop, ino, None)

    def add_parent(self, ino: int, parent: int, count: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._add_parent, ino, parent, count)

    def _add_parent(self, ino: int, parent: int, count: int) -> None:
        parents = self._store.parents.setdefault(ino, {})
        parents[parent] = parents.get(parent, 0) + count
        if parents[parent] == 0:
            _remove(self._store.parents, ino, parent)

    def del_parents(self, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.parents.pop, ino, None)

    def add_usage(self, space: int, inodes: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._add_usage, space, inodes)

    def _add_usage(self, space: int, inodes: int) -> None:
        self._store.space += space
        self._store.inodes += inodes

    def put_delfile(self, ino: int, length: int, at_s: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.delfiles.__setitem__, (ino, length), at_s)

    def sustain(self, sid: int, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._sustain, sid, ino)

    def _sustain(self, sid: int, ino: int) -> None:
        self._store.sustained.setdefault(sid, set()).add(ino)

    def unsustain(self, sid: int, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._unsustain, sid, ino)

    def _unsustain(self, sid: int, ino: int) -> None:
        held = self._store.sustained.get(sid, set())
        held.discard(ino)
        if not held:
            self._store.sustained.pop(sid, None)

    def put_dir_stat(self, ino: int, stat: DirStat) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.dir_stats.__setitem__, ino, stat)

    def del_dir_records(self, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.dir_stats.pop, ino, None)
        self._stage(self._store.quotas.pop, QuotaKey(QuotaKind.DIRECTORY, ino), None)

    def put_delayed(self, new_id: int, at_s: int, slices: Sequence[tuple[int, int]]) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.delayed.__setitem__, (new_id, at_s), tuple(slices))

    def detach(self, ino: int, at_s: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.detached.__setitem__, ino, at_s)

    def attach(self, ino: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.detached.pop, ino, None)

    def put_flock(self, ino: int, owner: LockOwner, kind: LockKind) -> None:
        """See `MetaTxn`."""
        if kind == LockKind.UNLOCK:
            self._stage(_remove, self._store.flocks, ino, owner)
        else:
            self._stage(_insert, self._store.flocks, ino, owner, kind)

    def put_plock(self, ino: int, owner: LockOwner, ranges: Ranges) -> None:
        """See `MetaTxn`."""
        if ranges:
            self._stage(_insert, self._store.plocks, ino, owner, ranges)
        else:
            self._stage(_remove, self._store.plocks, ino, owner)

    def put_quota(self, key: QuotaKey, quota: Quota) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.quotas.__setitem__, key, quota)

    def add_quota(self, key: QuotaKey, space: int, inodes: int) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.quotas.__setitem__, key, self._store.quotas[key].grown(space, inodes))

    def del_quota(self, key: QuotaKey) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.quotas.pop, key, None)

    def clear_quotas(self) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.clear_quotas)

    def clear_dir_stats(self) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.dir_stats.clear)

    def put_log(self, line: bytes) -> None:
        """See `MetaTxn`."""
        self._stage(self._store.append_log, line)


def _insert(table: dict[int, dict[Any, Any]], outer: int, inner: Any, value: Any) -> None:  # noqa: ANN401 - as `_remove`
    """Set an inner record."""
    table.setdefault(outer, {})[inner] = value


def _remove(table: dict[int, dict[Any, Any]], outer: int, inner: Any) -> None:  # noqa: ANN401 - any key of any table
    """Remove an inner record, and its container with the last one."""
    records = table.get(outer)
    if records is None:
        return
    records.pop(inner, None)
    if not records:
        del table[outer]
