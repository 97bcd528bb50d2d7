"""The memory engine: one lock, one set of tables, every scan. The reference that the other engines are held to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Final, TypeVar

from fscore.domain.attr import Attr, Entry
from fscore.domain.errors import SettingError
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.memory.records import MemoryTxn, MemoryView, Tables
from fscore.meta.records import Counter, DirStat, Edge, Session
from fscore.meta.txn import MetaTxn, MetaView
from fscore.runtime.clock import Clock, SystemClock

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_SEEDS: Final = {Counter.INODE.value: 2, Counter.SLICE.value: 1, Counter.SESSION.value: 0}
_NEXT_FREE: Final = frozenset({Counter.INODE, Counter.SLICE})
"""Counters whose stored value is the next number to hand out, as on SQL; the others store the last one."""


class MemoryEngine(MetaEngine):
    """Keeps one volume in this process for as long as somebody refers to it. `name` tells volumes apart."""

    def __init__(self, name: str = "", clock: Clock | None = None) -> None:
        self._volume = name
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._tables = Tables()
        self._view = MemoryView(self._tables)

    @property
    def name(self) -> str:
        """See `MetaEngine`."""
        return "memory"

    @property
    def location(self) -> str:
        """See `MetaEngine`."""
        return f"memory://{self._volume}"

    def transact(self, body: Callable[[MetaTxn], T]) -> T:
        """See `MetaEngine`. One at a time, so that no conflict can arise."""
        with self._lock:
            txn = MemoryTxn(self._tables)
            result = body(txn)
            txn.apply()
            return result

    def view(self) -> AbstractContextManager[MetaView]:
        """See `MetaEngine`."""
        return nullcontext(self._view)

    def scan_dir(self, ino: int, *, attrs: bool, batch: int = 4096) -> Iterator[list[Entry]]:
        """See `MetaEngine`. Entries made or removed meanwhile may or may not show."""
        with self._lock:
            edges = iter(list(self._tables.edges.get(ino, {}).items()))
        nodes = self._tables.nodes
        while part := list(islice(edges, batch)):
            yield [Entry(name, edge.ino, edge.kind, nodes.get(edge.ino) if attrs else None) for name, edge in part]

    def reserve(self, counter: Counter, count: int) -> range:
        """See `MetaEngine`."""
        with self._lock:
            counters = self._tables.counters
            start = counters.get(counter.value, _SEEDS.get(counter.value, 0))
            counters[counter.value] = start + count
        first = start if counter in _NEXT_FREE else start + 1
        return range(first, first + count)

    def load_setting(self) -> bytes | None:
        """See `MetaEngine`."""
        return self._tables.setting

    def init_volume(self, setting: bytes, nodes: Mapping[int, Attr]) -> None:
        """See `MetaEngine`."""
        with self._lock:
            if self._tables.setting is not None:
                raise SettingError(f"{self.location} holds a volume already")
            self._tables.setting = setting
            self._tables.nodes |= nodes
            self._tables.counters |= _SEEDS

    def store_setting(self, setting: bytes) -> None:
        """See `MetaEngine`."""
        self._tables.setting = setting

    def counters(self) -> dict[str, int]:
        """See `MetaEngine`."""
        with self._lock:
            totals = {"usedSpace": self._tables.space, "totalInodes": self._tables.inodes}
            return self._tables.counters | totals

    def server_time(self) -> float:
        """See `MetaEngine`: the server is this process."""
        return self._clock.now_ns() / 1e9

    def put_session(self, session: Session) -> bool:
        """See `MetaEngine`."""
        with self._lock:
            known = self._tables.sessions.get(session.sid)
            info = session.info if known is None else known.info
            self._tables.sessions[session.sid] = Session(session.sid, session.expires, info)
            return known is not None

    def sessions(self) -> list[Session]:
        """See `MetaEngine`."""
        with self._lock:
            return sorted(self._tables.sessions.values())

    def legacy_sessions(self) -> list[Session]:
        """See `MetaEngine`: no such client was ever here."""
        return []

    def sustained(self, sid: int) -> list[int]:
        """See `MetaEngine`."""
        with self._lock:
            return sorted(self._tables.sustained.get(sid, ()))

    def drop_session(self, sid: int) -> None:
        """See `MetaEngine`."""
        with self._lock:
            self._tables.drop_locks(sid)
            self._tables.sessions.pop(sid, None)

    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int]:
        """See `MetaEngine`."""
        missing = []
        with self._lock:
            for ino, delta in deltas.items():
                stat = self._tables.dir_stats.get(ino)
                if stat is None:
                    missing.append(ino)
                    continue
                total = DirStat(*(have + more for have, more in zip(stat, delta, strict=True)))
                if min(total) < 0:
                    missing.append(ino)
                self._tables.dir_stats[ino] = total
        return missing

    def dir_stat(self, ino: int) -> DirStat | None:
        """See `MetaEngine`."""
        return self._tables.dir_stats.get(ino)

    def set_dir_stat(self, ino: int, stat: DirStat) -> None:
        """See `MetaEngine`."""
        with self._lock:
            self._tables.dir_stats[ino] = stat

    def load_quotas(self, *kinds: QuotaKind) -> dict[QuotaKey, Quota]:
        """See `MetaEngine`."""
        with self._lock:
            return {key: quota for key, quota in self._tables.quotas.items() if key.kind in kinds}

    def scan_log(self) -> Iterator[tuple[int, bytes]]:
        """See `MetaEngine`."""
        with self._lock:
            lines, last = list(self._tables.change_log), self._tables.logged
        yield from enumerate(lines, last - len(lines) + 1)

    def count_log(self) -> int:
        """See `MetaEngine`."""
        return len(self._tables.change_log)

    def trim_log(self, version: int) -> None:
        """See `MetaEngine`."""
        with self._lock:
            lines = self._tables.change_log
            first = self._tables.logged - len(lines) + 1
            del lines[: max(version - first + 1, 0)]

    def take_dead(self, limit: int = 1000) -> list[tuple[int, int]]:
        """See `MetaEngine`."""
        with self._lock:
            return list(islice(self._tables.dead, limit))

    def forget_dead(self, slices: Iterable[tuple[int, int]]) -> None:
        """See `MetaEngine`. A slice that is referred to again stays."""
        with self._lock:
            for key in slices:
                if key in self._tables.dead:
                    del self._tables.dead[key]
                    del self._tables.refs[key]

    def delfiles(self, before_s: int, limit: int = 1000) -> list[tuple[int, int]]:
        """See `MetaEngine`."""
        with self._lock:
            due = (key for key, at_s in self._tables.delfiles.items() if at_s <= before_s)
            return list(islice(due, limit))

    def forget_delfile(self, ino: int, length: int) -> None:
        """See `MetaEngine`."""
        with self._lock:
            self._tables.delfiles.pop((ino, length), None)

    def delayed(self, before_s: int, limit: int = 1000) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """See `MetaEngine`."""
        with self._lock:
            due = ((*key, list(slices)) for key, slices in self._tables.delayed.items() if key[1] < before_s)
            return list(islice(due, limit))

    def forget_delayed(self, new_id: int, at_s: int) -> None:
        """See `MetaEngine`."""
        with self._lock:
            for key in self._tables.delayed.pop((new_id, at_s), ()):
                self._tables.change_refs(key, -1)

    def claim_job(self, gate: str, now_s: int, window_s: int) -> bool:
        """See `MetaEngine`."""
        with self._lock:
            if self._tables.counters.get(gate, 0) > now_s - window_s:
                return False
            self._tables.counters[gate] = now_s
            return True

    def acls(self, after: int = 0) -> dict[int, bytes]:
        """See `MetaEngine`."""
        return {number: rule for number, rule in self._snapshot(self._tables.acls).items() if number > after}

    def add_acl(self, rule: bytes) -> int:
        """See `MetaEngine`."""
        with self._lock:
            number = max(self._tables.acls, default=0) + 1
            self._tables.acls[number] = rule
            self._tables.counters["aclMaxId"] = number
            return number

    def used_features(self) -> frozenset[str]:
        """See `MetaEngine`."""
        tables = self._tables
        kept = {
            "acl": tables.acls,
            "dir_quota": any(key.kind == QuotaKind.DIRECTORY for key in tables.quotas),
            "user_quota": any(key.kind != QuotaKind.DIRECTORY for key in tables.quotas),
            "locks": tables.flocks or tables.plocks,
            "change_log": tables.change_log,
        }
        return frozenset(name for name, records in kept.items() if records)

    def scan_nodes(self) -> Iterator[tuple[int, Attr]]:
        """See `MetaEngine`."""
        yield from self._snapshot(self._tables.nodes).items()

    def scan_edges(self) -> Iterator[tuple[int, bytes, Edge]]:
        """See `MetaEngine`."""
        with self._lock:
            found = [(ino, name, edge) for ino, edges in self._tables.edges.items() for name, edge in edges.items()]
        yield from found

    def scan_chunks(self) -> Iterator[tuple[int, int, tuple[SliceRecord, ...]]]:
        """See `MetaEngine`."""
        with self._lock:
            found = [
                (ino, index, list_) for ino, lists in self._tables.chunks.items() for index, list_ in lists.items()
            ]
        yield from found

    def scan_refs(self) -> Iterator[tuple[int, int, int]]:
        """See `MetaEngine`. Every slice has a record here."""
        yield from ((slice_id, size, refs) for (slice_id, size), refs in self._snapshot(self._tables.refs).items())

    def scan_parents(self) -> Iterator[tuple[int, dict[int, int]]]:
        """See `MetaEngine`."""
        for ino in self._snapshot(self._tables.parents):
            yield ino, self._view.parents(ino)

    def scan_dir_stats(self) -> Iterator[tuple[int, DirStat]]:
        """See `MetaEngine`."""
        yield from self._snapshot(self._tables.dir_stats).items()

    def scan_delfiles(self) -> Iterator[tuple[int, int]]:
        """See `MetaEngine`."""
        yield from self._snapshot(self._tables.delfiles)

    def scan_delayed(self) -> Iterator[tuple[int, int]]:
        """See `MetaEngine`."""
        for slices in self._snapshot(self._tables.delayed).values():
            yield from slices

    def scan_detached(self) -> Iterator[tuple[int, int]]:
        """See `MetaEngine`."""
        yield from self._snapshot(self._tables.detached).items()

    def scan_sustained(self) -> Iterator[tuple[int, int]]:
        """See `MetaEngine`."""
        for sid, inodes in self._snapshot(self._tables.sustained).items():
            yield from ((sid, ino) for ino in sorted(inodes))

    def flush(self) -> None:
        """See `MetaEngine`: nothing is held back."""

    def close(self) -> None:
        """See `MetaEngine`: the volume stays for whoever opens the same name."""

    def _snapshot(self, table: dict[K, V]) -> dict[K, V]:
        with self._lock:
            return dict(table)
