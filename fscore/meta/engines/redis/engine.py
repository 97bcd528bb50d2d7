"""The engine over Redis: transactions, views, and the volume-wide records around the tree."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar

from fscore.domain.attr import Attr, Entry
from fscore.domain.errors import SettingError, UnavailableError
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.redis import chores, quotas, scans, scripts, server
from fscore.meta.engines.redis.address import Address, Form
from fscore.meta.engines.redis.codec import decode_attr, decode_entry, decode_named, encode_attr, unpack_pairs
from fscore.meta.engines.redis.commit import commit
from fscore.meta.engines.redis.dead import SWEEP_GATE, DeadSlices
from fscore.meta.engines.redis.keys import Keys, delayed_field, delfile_member, ref_field
from fscore.meta.engines.redis.link import ClusterNodeError, Command, Link, LostError
from fscore.meta.engines.redis.marks import Marks
from fscore.meta.engines.redis.masters import Clustered, Single
from fscore.meta.engines.redis.recall import Read, Recall
from fscore.meta.engines.redis.txn import RedisTxn, RedisView
from fscore.meta.records import LEGACY_LIFE_S, Counter, DirStat, Edge, Session
from fscore.meta.txn import MetaTxn, MetaView
from fscore.runtime.clock import Clock, SystemClock

T = TypeVar("T")

MOST_TRIES: Final = 300
QUICK_TRIES: Final = 3
LONGEST_WAIT_S: Final = 0.1
STRIPES: Final = 64
STRIPE_S: Final = 1.0


class RedisEngine(MetaEngine):
    """Records in a database of a Redis server. Thread-safe."""

    def __init__(self, link: Link, keys: Keys, *, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self._recall = Recall()
        self._marks = Marks(keys)
        self._reserved: dict[bytes, int] = {}
        link.greeting = self._greet
        self._dead = DeadSlices(link, keys)
        self._stripes = [threading.Lock() for _ in range(STRIPES)]

    @property
    def name(self) -> str:
        """URL scheme."""
        return self._link.address.scheme

    @property
    def location(self) -> str:
        """The URL without secrets."""
        return self._link.address.location

    @property
    def round_trips(self) -> int:
        """Round trips made so far, by all threads."""
        return self._link.trips

    def transact(self, body: Callable[[MetaTxn], T]) -> T:
        """Run `body` on guesses first; after a lost race on what Redis answered, one thread for a contended record."""
        recall: Recall | None = self._recall
        known: dict[Read, Any] = {}
        stripe: threading.Lock | None = None
        try:
            for tries in range(MOST_TRIES):
                txn = RedisTxn(self._link, self._keys, recall, known)
                try:
                    result = body(txn)
                    txn.seal()
                except UnavailableError:
                    raise
                except Exception:
                    if not txn.guessed:
                        raise
                    self._recall.forget(txn.reads)
                    recall, known = None, {}
                    continue
                now = self._commit(txn)
                if now is None:
                    self._learn(txn)
                    return result
                if stripe is None:
                    stripe = self._queue(txn, now)
                recall, known = None, now
                if tries >= QUICK_TRIES:
                    self._clock.sleep(self._rng.random() * min(tries * tries / 1000, LONGEST_WAIT_S))
        finally:
            if stripe is not None:
                stripe.release()
        raise UnavailableError(f"{self.location}: a transaction lost {MOST_TRIES} races in a row")

    def _commit(self, txn: RedisTxn) -> dict[Read, Any] | None:
        try:
            now = commit(self._link, txn, self._marks)
        except UnavailableError:
            self._dead.dropped(txn.writes)
            raise
        if now is None:
            self._dead.dropped(txn.writes)
        return now

    def _learn(self, txn: RedisTxn) -> None:
        self._recall.learn((read, raw) for read, raw in (txn.reads | txn.changed).items() if read.op in "SH")

    def _queue(self, txn: RedisTxn, now: Mapping[Read, object]) -> threading.Lock | None:
        """Wait for other threads here that want the record over which this one lost; not for ever, so no deadlock."""
        lost = next((read for read, value in txn.reads.items() if now.get(read) != value), None)
        stripe = self._stripes[hash(lost) % STRIPES]
        return stripe if stripe.acquire(timeout=STRIPE_S) else None

    def view(self) -> AbstractContextManager[MetaView]:
        """Reads of what Redis holds now."""
        return nullcontext(RedisView(self._link, self._keys, self._recall))

    def walk(self, parent: int, names: Iterable[bytes]) -> list[tuple[int, Attr]]:
        """The node of each name in turn, in one round trip where Lua can count that far."""
        return scans.walk(self._link, self._keys, self._recall, parent, list(names))

    def nodes(self, inos: Sequence[int]) -> list[Attr | None]:
        """The attributes of many nodes in one round trip."""
        raws = self._link.ask("MGET", *map(self._keys.node, inos)) if inos else []
        return [None if raw is None else decode_attr(raw) for raw in raws]

    def scan_dir(self, ino: int, *, attrs: bool, batch: int = 4096) -> Iterator[list[Entry]]:
        """Entries in the hash's order, in batches; names seen are remembered, as a growing hash may repeat some."""
        small = scans.small_dir(self._link, self._keys, self._recall, ino) if attrs else None
        if small is not None:
            yield from scans.batched(small, batch)
            return
        key = self._keys.dir(ino)
        for fields in scans.batched(scans.hash_fields(self._link, key, batch), batch):
            if not attrs:
                yield [decode_named(name, raw) for name, raw in fields]
                continue
            edges = [(name, decode_entry(raw)) for name, raw in fields]
            raws = self._link.ask("MGET", *(self._keys.node(edge.ino) for _, edge in edges))
            found = [None if raw is None else decode_attr(raw) for raw in raws]
            yield [Entry(name, edge.ino, edge.kind, attr) for (name, edge), attr in zip(edges, found, strict=True)]

    def reserve(self, counter: Counter, count: int) -> range:
        """Fresh numbers; the key holds the last one used. Ids 0 and 1 are no inodes (volume-format.md 2.3)."""
        least = 2 if counter is Counter.INODE else 1
        key = self._keys.counter(counter)
        while True:
            floor = self._reserved.get(key, 0)
            last = int(self._link.script(scripts.RESERVE, (key,), (count, floor), durable=True))
            self._reserved[key] = max(last, self._reserved.get(key, 0))
            numbers = range(max(last - count + 1, least), last + 1)
            if numbers:
                return numbers

    def _greet(self) -> list[Command]:
        """A new master may not know the numbers that the old one gave away last; nobody may get them again.

        Others take numbers meanwhile: a copy of a dict is made in one step, a list of its items is not.
        """
        return [("EVAL", scripts.RESERVE, 1, key, 0, last) for key, last in self._reserved.copy().items()]

    def load_setting(self) -> bytes | None:
        """The setting."""
        setting: bytes | None = self._link.ask("GET", self._keys.setting)
        return setting

    def init_volume(self, setting: bytes, nodes: Mapping[int, Attr]) -> None:
        """Write the setting and the given nodes; Redis makes its counters when they are first used."""
        records = {self._keys.node(ino): encode_attr(attr) for ino, attr in nodes.items()}
        if not chores.init_volume(self._link, self._keys, setting, records):
            raise SettingError(f"{self.location} holds a volume already")
        self._recall.clear()

    def store_setting(self, setting: bytes) -> None:
        """Replace the setting."""
        if self._link.ask("SET", self._keys.setting, setting, "XX") is None:
            raise SettingError(f"there is no volume at {self.location}")

    def counters(self) -> dict[str, int]:
        """Every counter that exists, next ids as SQL counts them."""
        return chores.counters(self._link, self._keys)

    def server_time(self) -> float:
        """Unix seconds as the server sees them."""
        seconds, micros = self._link.ask("TIME")
        return int(seconds) + int(micros) / 1e6

    def put_session(self, session: Session) -> bool:
        """Register a session, or put off its expiry."""
        return chores.put_session(self._link, self._keys, session)

    def sessions(self) -> list[Session]:
        """Every session."""
        return chores.sessions(self._link, self._keys)

    def legacy_sessions(self) -> list[Session]:
        """Members of the old set, whose scores are heartbeats."""
        found = scans.scored(self._link, self._keys.legacy_sessions)
        return sorted(Session(int(sid), beat_s + LEGACY_LIFE_S, b"") for sid, beat_s in found)

    def sustained(self, sid: int) -> list[int]:
        """Inodes that a session keeps alive."""
        return sorted(int(ino) for ino in self._link.ask("SMEMBERS", self._keys.held(sid)))

    def drop_session(self, sid: int) -> None:
        """Remove a session's locks, then its record."""
        chores.drop_session(self._link, self._keys, sid)

    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int] | None:
        """Add where there is a record. Nobody can tell when the connection was lost meanwhile."""
        if not deltas:
            return []
        args = [number for ino, stat in deltas.items() for number in (ino, *stat)]
        try:
            missing = self._link.script(scripts.ADD_STATS, self._keys.dir_stats, args, again=False)
        except LostError:
            return None
        return sorted(int(ino) for ino in missing)

    def dir_stat(self, ino: int) -> DirStat | None:
        """Statistics of one directory."""
        numbers = self._link.batch([("HGET", key, ino) for key in self._keys.dir_stats])
        return None if numbers[1] is None else DirStat(*(int(number or 0) for number in numbers))

    def set_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Store recomputed statistics."""
        keys = self._keys.dir_stats
        self._link.batch([("HSET", key, ino, number) for key, number in zip(keys, stat, strict=True)])

    def load_quotas(self, *kinds: QuotaKind) -> dict[QuotaKey, Quota]:
        """Every quota record of these kinds."""
        return quotas.load(self._link, self._keys, kinds)

    def scan_log(self) -> Iterator[tuple[int, bytes]]:
        """Lines of the change log, oldest first."""
        return quotas.log_lines(self._link, self._keys)

    def count_log(self) -> int:
        """Length of the list."""
        return int(self._link.ask("LLEN", self._keys.change_log))

    def trim_log(self, version: int) -> None:
        """Cut the oldest off."""
        self._link.script(scripts.TRIM_LOG, (self._keys.change_log, self._keys.last_log), (version,))

    def take_dead(self, limit: int = 1000) -> list[tuple[int, int]]:
        """Slices whose stored count is below zero: this client's; everybody's after it won the gate of that job."""
        return self._dead.take(limit)

    def forget_dead(self, slices: Iterable[tuple[int, int]]) -> None:
        """Remove the records of dead slices."""
        self._dead.forget(slices)

    def delfiles(self, before_s: int, limit: int = 1000) -> list[tuple[int, int]]:
        """Queued deletions up to a time."""
        return chores.delfiles(self._link, self._keys, before_s, limit)

    def forget_delfile(self, ino: int, length: int) -> None:
        """Remove a queued deletion."""
        self._link.ask("ZREM", self._keys.delfiles, delfile_member(ino, length))

    def delayed(self, before_s: int, limit: int = 1000) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Parked slices older than a time."""
        parked = scans.parked(self._link, self._keys)
        old = ((new_id, at_s, unpack_pairs(raw)) for new_id, at_s, raw in parked if at_s < before_s)
        return list(itertools.islice(old, limit))

    def forget_delayed(self, new_id: int, at_s: int) -> None:
        """Remove a parked list and drop its references, if it is still there."""
        field = delayed_field(new_id, at_s)
        raw = self._link.ask("HGET", self._keys.delayed, field)
        if raw is not None:
            keys = (self._keys.delayed, self._keys.slice_ref)
            slices = unpack_pairs(raw)
            self._link.script(scripts.FORGET_DELAYED, keys, (field, *(ref_field(*pair) for pair in slices)))
            self._dead.suspect(slices)

    def claim_job(self, gate: str, now_s: int, window_s: int) -> bool:
        """Take the turn when the last one is longer ago than the window."""
        won = bool(self._link.script(scripts.CLAIM, (self._keys.named(gate),), (now_s, window_s)))
        if won and gate == SWEEP_GATE:
            self._dead.sweep()
        return won

    def acls(self, after: int = 0) -> dict[int, bytes]:
        """ACL rules above a number."""
        if after:
            return chores.acls_after(self._link, self._keys, after)
        return {int(number): rule for number, rule in scans.hash_fields(self._link, self._keys.acl)}

    def add_acl(self, rule: bytes) -> int:
        """Store an ACL rule."""
        return chores.add_acl(self._link, self._keys, rule)

    def used_features(self) -> frozenset[str]:
        """Features whose keys exist."""
        return chores.used_features(self._link, self._keys)

    def scan_nodes(self) -> Iterator[tuple[int, Attr]]:
        """Every node."""
        return scans.nodes(self._link, self._keys)

    def scan_edges(self) -> Iterator[tuple[int, bytes, Edge]]:
        """Every entry."""
        return scans.edges(self._link, self._keys)

    def scan_chunks(self) -> Iterator[tuple[int, int, tuple[SliceRecord, ...]]]:
        """Every chunk list."""
        return scans.chunks(self._link, self._keys)

    def scan_refs(self) -> Iterator[tuple[int, int, int]]:
        """Reference counts that are not 1, and redundant ones."""
        return scans.refs(self._link, self._keys)

    def scan_parents(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Parents of nodes with several names."""
        return scans.parents(self._link, self._keys)

    def scan_dir_stats(self) -> Iterator[tuple[int, DirStat]]:
        """Every directory statistic."""
        return scans.dir_stats(self._link, self._keys)

    def scan_delfiles(self) -> Iterator[tuple[int, int]]:
        """Every queued deletion."""
        return scans.delfiles(self._link, self._keys)

    def scan_delayed(self) -> Iterator[tuple[int, int]]:
        """Every parked slice."""
        for _, _, raw in scans.parked(self._link, self._keys):
            yield from unpack_pairs(raw)

    def scan_detached(self) -> Iterator[tuple[int, int]]:
        """Every root of a tree that is not linked yet."""
        return ((int(ino), at_s) for ino, at_s in scans.scored(self._link, self._keys.detached))

    def scan_sustained(self) -> Iterator[tuple[int, int]]:
        """Every inode that is deleted but open."""
        return scans.sustained(self._link, self._keys)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the connections."""
        self._link.close()


def open_redis(url: str) -> RedisEngine:
    """The engine behind `redis://`, `rediss://` or `unix://`. Asks the server whether it is fit to keep a volume."""
    address = Address(url)
    link = Link(address)
    try:
        if address.form is Form.SINGLE and _is_clustered(link):
            link.close()
            link = Link(address, Clustered(address))
        if not isinstance(link.master, Single):
            server.check(link)
    except BaseException:
        link.close()
        raise
    return RedisEngine(link, Keys(link.master.prefix))


def _is_clustered(link: Link) -> bool:
    """Whether the only server that was named is a node of a cluster."""
    try:
        return server.check(link)
    except ClusterNodeError:
        return True
