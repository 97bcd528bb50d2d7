"""The place that keeps the records of one volume: what each engine implements.

`transact` and `view` hand out the transaction of `meta.txn`, where an engine's duties stand; the rest are jobs that
need no semantics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, runtime_checkable

from fscore.domain.attr import Attr, Entry
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.records import Counter, DirStat, Edge, Session
from fscore.meta.txn import MetaTxn, MetaView

T = TypeVar("T")


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
        """Reads without locks or comparison. Open it briefly, and nothing inside of it: connections may be few."""

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
    def put_session(self, session: Session) -> bool:
        """Register or refresh a session (its info is written only when missing). Whether its record was there."""

    @abstractmethod
    def sessions(self) -> list[Session]:
        """Every registered session, expired ones too."""

    @abstractmethod
    def legacy_sessions(self) -> list[Session]:
        """Sessions of clients before 1.0, which record their last heartbeat; they expire `LEGACY_LIFE_S` after it."""

    @abstractmethod
    def sustained(self, sid: int) -> list[int]:
        """Inodes that a session keeps alive."""

    @abstractmethod
    def drop_session(self, sid: int) -> None:
        """Remove a session's record and locks; its sustained inodes are the caller's to destroy first."""

    @abstractmethod
    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int] | None:
        """Add to directories' statistics, never twice; return those without a record, or with one that became negative.

        None when nobody can tell whether it happened. After UnavailableError it has not.
        """

    @abstractmethod
    def dir_stat(self, ino: int) -> DirStat | None:
        """Statistics of one directory as stored."""

    @abstractmethod
    def set_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Store recomputed statistics."""

    @abstractmethod
    def load_quotas(self, *kinds: QuotaKind) -> dict[QuotaKey, Quota]:
        """Every quota record of these kinds."""

    @abstractmethod
    def scan_log(self) -> Iterator[tuple[int, bytes]]:
        """Lines of the change log with their versions, oldest first."""

    @abstractmethod
    def count_log(self) -> int:
        """Lines that the change log has."""

    @abstractmethod
    def trim_log(self, version: int) -> None:
        """Drop the lines up to this version, that one included."""

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
    def acls(self, after: int = 0) -> dict[int, bytes]:
        """Stored ACL rules with a number above `after` (0: every one), in the 16 + 6n bytes of volume-format.md 4.6."""

    @abstractmethod
    def add_acl(self, rule: bytes) -> int:
        """Store an ACL rule under a fresh number, from 1. What runs twice leaves a second rule, which harms nobody."""

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
class SupportsNodes(Protocol):
    """Capability: the attributes of many nodes in one round trip. Found by `isinstance`."""

    def nodes(self, inos: Sequence[int]) -> list[Attr | None]:
        """The attributes of each node as they are now, None for one that is missing."""


@runtime_checkable
class SupportsResolve(Protocol):
    """Capability: dependent reads in one round trip. Found by `isinstance`; without it the service walks a view."""

    def walk(self, parent: int, names: Sequence[bytes]) -> list[tuple[int, Attr]]:
        """The node of each name in turn, beginning below `parent`, as far as that goes.

        Stops before a name that has no entry, before a node that is missing, and after a node that is no directory:
        a shorter answer than `names` says where. Checks no permission and follows no link.
        """
