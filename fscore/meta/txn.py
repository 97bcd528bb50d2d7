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

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.slices import SliceRecord

T = TypeVar("T")


class Edge(NamedTuple):
    """What a directory entry says: the node's type and number."""

    kind: Kind
    ino: int


class Counter(enum.Enum):
    """Counters that hand out numbers. Values are the names that both engines store."""

    INODE = "nextInode"
    SLICE = "nextChunk"
    SESSION = "nextSession"
    TRASH = "nextTrash"


class DirStat(NamedTuple):
    """Usage of a directory's direct children (volume-format.md 2.10)."""

    length: int
    space: int
    inodes: int


class Usage(NamedTuple):
    """Totals of a volume: charged bytes and inodes."""

    space: int
    inodes: int


class Session(NamedTuple):
    """One connected client: number, expiry in unix seconds, and the JSON that describes it."""

    sid: int
    expires: int
    info: bytes


class Want(NamedTuple):
    """A read to come. `kind` is the name of the reading method, `key` its arguments."""

    kind: str
    key: tuple[int | bytes, ...]


def want_node(ino: int) -> Want:
    """`node(ino)` will be read."""
    return Want("node", (ino,))


def want_edge(parent: int, name: bytes) -> Want:
    """`edge(parent, name)` will be read."""
    return Want("edge", (parent, name))


def want_chunk(ino: int, index: int) -> Want:
    """`chunk(ino, index)` will be read."""
    return Want("chunk", (ino, index))


def want_xattrs(ino: int) -> Want:
    """`xattrs(ino)` will be read."""
    return Want("xattrs", (ino,))


def want_parents(ino: int) -> Want:
    """`parents(ino)` will be read."""
    return Want("parents", (ino,))


def want_symlink(ino: int) -> Want:
    """`symlink(ino)` will be read."""
    return Want("symlink", (ino,))


def want_has_entries(ino: int) -> Want:
    """`has_entries(ino)` will be read."""
    return Want("has_entries", (ino,))


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


class MetaEngine(ABC):
    """A place that keeps the records of one volume. Thread-safe. Engines list themselves in `engines.registry`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """URL scheme: `memory`, `redis`, `sqlite3` ..."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The URL without secrets, for messages."""

    @abstractmethod
    def transact(self, body: Callable[[MetaTxn], T]) -> T:
        """Run `body`, again if a record it read changed meanwhile, and return its value.

        Raises UnavailableError when the tries are used up, and what `body` raises.
        """

    @abstractmethod
    def view(self) -> AbstractContextManager[MetaView]:
        """Reads without locks or comparison."""

    @abstractmethod
    def scan_dir(self, ino: int, *, attrs: bool, batch: int = 4096) -> Iterator[list[Entry]]:
        """Entries of a directory in batches, in memory bounded by `batch`, each name once."""

    @abstractmethod
    def reserve(self, counter: Counter, count: int) -> range:
        """Take up to `count` (at least one) fresh numbers, ascending; never 0, and for inodes never 1.

        A fresh Redis volume hands out 2 to 1024 for its first batch of 1024 inodes (volume-format.md 2.3).
        """

    @abstractmethod
    def load_setting(self) -> bytes | None:
        """The stored JSON of the setting; None when there is no volume here."""

    @abstractmethod
    def init_volume(self, setting: bytes, nodes: Mapping[int, Attr]) -> None:
        """Write a new volume: setting, given nodes (root, trash root), counters where the format seeds them.

        SQL also creates the tables. Raises SettingError when a volume is there already.
        """

    @abstractmethod
    def store_setting(self, setting: bytes) -> None:
        """Replace the setting of an existing volume (an explicit administrator's action only)."""

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Every counter as stored, by its SQL name; next ids in the SQL convention (next to hand out)."""

    @abstractmethod
    def server_time(self) -> float:
        """Unix seconds as the server sees them."""

    @abstractmethod
    def put_session(self, session: Session) -> None:
        """Register or refresh a session (its info is written only when missing)."""

    @abstractmethod
    def sessions(self) -> list[Session]:
        """Every registered session, expired ones too."""

    @abstractmethod
    def sustained(self, sid: int) -> list[int]:
        """Inodes that a session keeps alive."""

    @abstractmethod
    def drop_session(self, sid: int) -> None:
        """Remove a session's record and locks; its sustained inodes are the caller's to destroy first."""

    @abstractmethod
    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int]:
        """Add to directories' statistics; return those without a record, or with one that became negative."""

    @abstractmethod
    def dir_stat(self, ino: int) -> DirStat | None:
        """Statistics of one directory as stored."""

    @abstractmethod
    def set_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Store recomputed statistics."""

    @abstractmethod
    def take_dead(self, limit: int = 1000) -> list[tuple[int, int]]:
        """Up to `limit` (slice id, size) whose last reference is gone; asked again they come again, until forgotten.

        What this engine's own transactions let go is there at once; what other clients did, at the latest after this
        one has won the gate `nextCleanupSlices`.
        """

    @abstractmethod
    def forget_dead(self, slices: Iterable[tuple[int, int]]) -> None:
        """Their objects are deleted: drop the records of these slices."""

    @abstractmethod
    def delfiles(self, before_s: int, limit: int = 1000) -> list[tuple[int, int]]:
        """Queued (inode, length) whose deletion happened at or before `before_s` (unix seconds)."""

    @abstractmethod
    def forget_delfile(self, ino: int, length: int) -> None:
        """The data of this file is gone."""

    @abstractmethod
    def delayed(self, before_s: int, limit: int = 1000) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Parked slices as (new id, unix seconds, [(slice id, size)]) older than `before_s`."""

    @abstractmethod
    def forget_delayed(self, new_id: int, at_s: int) -> None:
        """Remove one parked list and drop one reference of each of its slices, in one transaction."""

    @abstractmethod
    def claim_job(self, gate: str, now_s: int, window_s: int) -> bool:
        """Whether this client may run a volume-wide job now (volume-format.md 2.9 job gates)."""

    @abstractmethod
    def used_features(self) -> frozenset[str]:
        """Features with records in the volume that need more than plain files: `acl`, `dir_quota`, `user_quota`,
        `locks`, `change_log`, `legacy_sessions`."""

    @abstractmethod
    def scan_nodes(self) -> Iterator[tuple[int, Attr]]:
        """Every node of the volume (fsck, status); order does not matter."""

    @abstractmethod
    def scan_edges(self) -> Iterator[tuple[int, bytes, Edge]]:
        """Every entry of the volume as (parent, name, edge)."""

    @abstractmethod
    def scan_chunks(self) -> Iterator[tuple[int, int, tuple[SliceRecord, ...]]]:
        """Every chunk list as (inode, index, records)."""

    @abstractmethod
    def scan_refs(self) -> Iterator[tuple[int, int, int]]:
        """Every stored reference record as (slice id, size, references); Redis stores only exceptions to 1."""

    @abstractmethod
    def scan_parents(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Parents of nodes with several names, as `MetaView.parents` gives them."""

    @abstractmethod
    def scan_dir_stats(self) -> Iterator[tuple[int, DirStat]]:
        """Every stored directory statistic."""

    @abstractmethod
    def scan_delfiles(self) -> Iterator[tuple[int, int]]:
        """Every queued deletion, whatever its age."""

    @abstractmethod
    def scan_delayed(self) -> Iterator[tuple[int, int]]:
        """Every parked (slice id, size)."""

    @abstractmethod
    def scan_detached(self) -> Iterator[tuple[int, int]]:
        """Every root of a tree that is not linked yet, as (inode, unix seconds)."""

    @abstractmethod
    def scan_sustained(self) -> Iterator[tuple[int, int]]:
        """Every (session, inode) that is deleted but still open."""

    @abstractmethod
    def flush(self) -> None:
        """Store what this engine holds back (SQL: usage deltas of the last second). `usage` counts it already."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections and files. Idempotent."""


@runtime_checkable
class SupportsResolve(Protocol):
    """Capability: dependent reads in one round trip. Found by `isinstance`; without it the service walks a view."""

    def walk(self, parent: int, names: Sequence[bytes]) -> list[tuple[int, Attr]]:
        """The node of each name in turn, beginning below `parent`, as far as that goes.

        Stops before a name that has no entry, before a node that is missing, and after a node that is no directory:
        a shorter answer than `names` says where. Checks no permission and follows no link.
        """
