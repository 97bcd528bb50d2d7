"""The record transaction: all that the semantics in `meta.ops` may ask of an engine.

An engine stores records and knows no POSIX. Its duties:

* `transact(body)` runs `body` serialisably and may run it several times: every record that `body` read must be
  unchanged when its writes are applied, all of them at once; else the engine runs `body` again on fresh reads.
  An error raised by `body` ends it with nothing written.
* Reads come before writes: a body reads nothing after its first intent (the memory engine enforces it). What it read
  is compared at commit; an engine may compare what was only prefetched, too. What it writes is an intent.
* Intents are relative where the engines differ: usage + n, references + n, per-parent links + n. `put_node` of a node
  that this transaction has read writes what differs from what was read (on SQL: those columns only, nlink
  relatively), so that a concurrent chmod and write do not undo each other.
* The tail of a node that the caller did not touch (ACL ids, tier) survives, as do counters and keys we do not know.

Formats and units: volume-format.md 2.2 (Redis) and 3.2 (SQL). Sizes are bytes, times nanoseconds, unless a name says
otherwise; names, targets and xattr values are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fscore.domain.attr import Attr, Entry
from fscore.domain.locks import LockKind, Ranges
from fscore.domain.quota import Quota, QuotaKey
from fscore.domain.slices import SliceRecord
from fscore.meta.records import DirStat, Edge, LockOwner, Usage, Want


class MetaView(Protocol):
    """Reads of records. In a transaction each one is compared again at commit; in a view none is."""

    def prefetch(self, *wants: Want) -> None:
        """Fetch these in one round trip, so that the readers below answer from memory. Only a hint."""

    def node(self, ino: int) -> Attr | None:
        """Attributes of a node."""

    def edge(self, parent: int, name: bytes) -> Edge | None:
        """The entry `name` of a directory."""

    def has_entries(self, ino: int) -> bool:
        """Whether a directory has any entry."""

    def entries(self, ino: int) -> list[Entry]:
        """Every entry of a directory, without attributes; for trees that must not change meanwhile."""

    def chunk(self, ino: int, index: int) -> tuple[SliceRecord, ...]:
        """Slice records of a chunk, oldest first; empty when there are none."""

    def chunk_indexes(self, ino: int, first: int, stop: int) -> list[int]:
        """Indexes in [first, stop) of the chunks that have a list, ascending.

        Never compared at commit: a body that depends on it reads the node, which every write of the file changes.
        Redis has no index of them: it asks for each when the range is small and scans the keys when it is not.
        """

    def symlink(self, ino: int) -> bytes | None:
        """Target of a symbolic link."""

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Value of one extended attribute."""

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """All extended attributes of a node."""

    def parents(self, ino: int) -> dict[int, int]:
        """Parent directory to number of links there, for a node whose `Attr.parent` is 0."""

    def acl(self, rule_id: int) -> bytes | None:
        """A stored ACL rule, in the 16 + 6n bytes of volume-format.md 4.6."""

    def flocks(self, ino: int) -> Mapping[LockOwner, LockKind]:
        """Who has locked a file as a whole. In a transaction no lock of it is taken meanwhile, even the first."""

    def plocks(self, ino: int) -> Mapping[LockOwner, Ranges]:
        """Who has locked ranges of a file; as `flocks`."""

    def quotas(self, keys: Sequence[QuotaKey]) -> dict[QuotaKey, Quota]:
        """The quota records of these that have one, in one round trip."""

    def usage(self) -> Usage:
        """Totals of the volume. Never compared at commit."""


class MetaTxn(MetaView, Protocol):
    """Reads, then intents. See the module for what an engine promises."""

    def put_node(self, ino: int, attr: Attr) -> None:
        """Create the node, or store what differs from what this transaction read of it."""

    def del_node(self, ino: int) -> None:
        """Remove the node's attributes."""

    def put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        """Create or replace an entry."""

    def del_edge(self, parent: int, name: bytes) -> None:
        """Remove an entry."""

    def append(self, ino: int, index: int, records: Sequence[SliceRecord], *, if_exists: bool = False) -> None:
        """Append records to a chunk's list; with `if_exists` only when the chunk has a list already."""

    def replace_prefix(self, ino: int, index: int, count: int, records: Sequence[SliceRecord]) -> None:
        """Replace the oldest `count` records, which this transaction has read, by `records`."""

    def del_chunk(self, ino: int, index: int) -> None:
        """Remove a chunk's list; the references of its records are the caller's to drop."""

    def new_slice(self, slice_id: int, size: int) -> None:
        """Declare a slice that gets its first reference here (SQL stores a row; Redis nothing)."""

    def add_refs(self, slice_id: int, size: int, count: int) -> None:
        """Add `count` references, negative to drop. What nobody refers to any more shows in `take_dead`."""

    def put_symlink(self, ino: int, target: bytes) -> None:
        """Store the target of a new symbolic link."""

    def del_symlink(self, ino: int) -> None:
        """Remove a target."""

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Create or replace one extended attribute."""

    def del_xattr(self, ino: int, name: bytes) -> None:
        """Remove one extended attribute."""

    def del_xattrs(self, ino: int) -> None:
        """Remove all extended attributes of a node."""

    def add_parent(self, ino: int, parent: int, count: int) -> None:
        """Change the number of links that `parent` holds to a node whose `Attr.parent` is 0."""

    def del_parents(self, ino: int) -> None:
        """Forget the parents of a node that goes away."""

    def add_usage(self, space: int, inodes: int) -> None:
        """Charge (or with negative numbers release) the volume's totals."""

    def put_delfile(self, ino: int, length: int, at_s: int) -> None:
        """Queue a file whose last link is gone, for the deletion of its data; `at_s` is unix seconds."""

    def sustain(self, sid: int, ino: int) -> None:
        """Record that session `sid` holds a deleted inode open."""

    def unsustain(self, sid: int, ino: int) -> None:
        """Forget that record."""

    def put_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Set a directory's statistics (a new directory's zeros, or a clone's copy)."""

    def del_dir_records(self, ino: int) -> None:
        """Remove the statistics and the quota of a directory that goes away."""

    def put_delayed(self, new_id: int, at_s: int, slices: Sequence[tuple[int, int]]) -> None:
        """Park replaced (slice id, size) pairs until the trash expires (compaction with trash on)."""

    def detach(self, ino: int, at_s: int) -> None:
        """Record the root of a tree that is not linked yet."""

    def attach(self, ino: int) -> None:
        """Forget that record."""

    def put_flock(self, ino: int, owner: LockOwner, kind: LockKind) -> None:
        """Set or (UNLOCK) remove an owner's lock of a file whose `flocks` this transaction has read."""

    def put_plock(self, ino: int, owner: LockOwner, ranges: Ranges) -> None:
        """Set or (with none) remove an owner's ranges in a file whose `plocks` this transaction has read."""

    def put_quota(self, key: QuotaKey, quota: Quota) -> None:
        """Set limits and usage of a directory, user or group."""

    def add_quota(self, key: QuotaKey, space: int, inodes: int) -> None:
        """Add to the usage in a quota record that this transaction has read."""

    def del_quota(self, key: QuotaKey) -> None:
        """Remove a quota record."""

    def clear_quotas(self) -> None:
        """Remove the quota records of all users and groups."""

    def clear_dir_stats(self) -> None:
        """Remove the statistics of all directories (the lengths stay on Redis, as the format has it)."""

    def put_log(self, line: bytes) -> None:
        """Append a line to the change log."""
