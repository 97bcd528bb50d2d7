"""Reads and intents of one Redis transaction.

A read is remembered with the raw value it gave; a commit sends all of them to the script, which compares (`scripts`).
At the first try values may be guessed: what `Recall` knows, and that an entry nobody knows is absent when nothing else
has to be fetched. An error that a body raises over a guess is not believed: the engine runs it again on fresh reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from fscore.domain.attr import Attr, Entry
from fscore.domain.errors import CorruptError
from fscore.domain.quota import QuotaKind
from fscore.domain.slices import SliceRecord, pack, unpack
from fscore.meta.engines.redis.codec import (
    decode_attr,
    decode_entry,
    decode_parents,
    encode_attr,
    encode_entry,
    pack_pairs,
)
from fscore.meta.engines.redis.gather import gather
from fscore.meta.engines.redis.keys import Keys, delayed_field, delfile_member, ref_field
from fscore.meta.engines.redis.link import Answer, Command, Link
from fscore.meta.engines.redis.locks import LockReads, LockWrites
from fscore.meta.engines.redis.quotas import QuotaReads, QuotaWrites
from fscore.meta.engines.redis.recall import Read, Recall
from fscore.meta.engines.redis.scripts import MOST_ARGUMENTS
from fscore.meta.records import DirStat, Edge, Usage, Want

ASK_EACH: Final = 32_768
"""Up to so many chunk indexes are asked for one by one; more are found by a scan of the keys."""

Write = tuple[Any, ...]
"""A command with its key in second place."""


def command_of(read: Read) -> Command:
    """The command that answers a read."""
    if read.op == "S":
        return ("GET", read.key)
    if read.op == "H":
        return ("HGET", read.key, read.field)
    if read.op == "L":
        return ("LRANGE", read.key, 0, -1)
    return ("HGETALL" if read.op == "M" else "HLEN", read.key)


def raw_of(read: Read, answer: Answer) -> Any:  # noqa: ANN401 - bytes, None, int or a dict, by the kind of read
    """An answer as it is kept and compared."""
    if read.op == "L":
        return b"".join(answer)
    if read.op == "M":
        return dict(zip(answer[::2], answer[1::2], strict=True))
    return answer


class RedisView(LockReads, QuotaReads):
    """Reads of records; what was prefetched answers from memory."""

    def __init__(self, link: Link, keys: Keys, recall: Recall | None = None) -> None:
        self._link = link
        self._keys = keys
        self._recall = recall
        self._known: dict[Read, Any] = {}

    def prefetch(self, *wants: Want) -> None:
        """Fetch these in one round trip, with what the entries among them lead to."""
        self._gather(self._unknown(wants), _lineages(wants))

    def _unknown(self, wants: Sequence[Want]) -> dict[Read, str]:
        """Reads to fetch, and what `gather` is to do about each."""
        reads = {self._read_of(want): _FOLLOWED.get(want.kind, "") for want in wants if want.kind in _READS}
        return {read: follow for read, follow in reads.items() if read not in self._known}

    def node(self, ino: int) -> Attr | None:
        """Attributes of a node."""
        raw = self._take(Read("S", self._keys.node(ino)))
        return None if raw is None else decode_attr(raw)

    def edge(self, parent: int, name: bytes) -> Edge | None:
        """The entry `name` of a directory."""
        raw = self._take(Read("H", self._keys.dir(parent), name))
        return None if raw is None else decode_entry(raw)

    def has_entries(self, ino: int) -> bool:
        """Whether a directory has any entry."""
        return bool(self._take(Read("E", self._keys.dir(ino))))

    def entries(self, ino: int) -> list[Entry]:
        """Every entry of a directory, without attributes."""
        edges = ((name, decode_entry(raw)) for name, raw in self._take(Read("M", self._keys.dir(ino))).items())
        return [Entry(name, edge.ino, edge.kind) for name, edge in edges]

    def chunk(self, ino: int, index: int) -> tuple[SliceRecord, ...]:
        """Slice records of a chunk, oldest first."""
        return tuple(unpack(self._take(Read("L", self._keys.chunk(ino, index)))))

    def chunk_indexes(self, ino: int, first: int, stop: int) -> list[int]:
        """Indexes in [first, stop) of the chunks that have a list, ascending; never compared."""
        if stop - first <= ASK_EACH:
            if stop <= first:
                return []
            answers = self._link.batch([("EXISTS", self._keys.chunk(ino, index)) for index in range(first, stop)])
            return [index for index, there in enumerate(answers, first) if there]
        pattern = b"%bc%d_*" % (self._keys.prefix, ino)
        found = (self._keys.numbers_in(key, b"c") for key in scan_keys(self._link, pattern))
        return sorted({key[1] for key in found if key and len(key) == 2 and key[0] == ino and first <= key[1] < stop})

    def symlink(self, ino: int) -> bytes | None:
        """Target of a symbolic link."""
        target: bytes | None = self._take(Read("S", self._keys.symlink(ino)))
        return target

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Value of one extended attribute."""
        value: bytes | None = self._take(Read("H", self._keys.xattrs(ino), name))
        return value

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """All extended attributes of a node."""
        return dict(self._take(Read("M", self._keys.xattrs(ino))))

    def parents(self, ino: int) -> dict[int, int]:
        """Parent directory to number of links there."""
        return decode_parents(self._take(Read("M", self._keys.parents(ino))))

    def acl(self, rule_id: int) -> bytes | None:
        """A stored ACL rule in its binary form."""
        rule: bytes | None = self._take(Read("H", self._keys.acl, b"%d" % rule_id))
        return rule

    def usage(self) -> Usage:
        """Totals of the volume."""
        space, inodes = self._link.ask("MGET", self._keys.used_space, self._keys.total_inodes)
        return Usage(int(space or 0), int(inodes or 0))

    def _read_of(self, want: Want) -> Read:
        return _READS[want.kind](self._keys, *want.key)

    def _fetch(self, reads: Sequence[Read]) -> None:
        if reads:
            answers = self._link.batch([command_of(read) for read in reads])
            found = [(read, raw_of(read, answer)) for read, answer in zip(reads, answers, strict=True)]
            self._known.update(found)
            self._remember(found)

    def _remember(self, found: Sequence[tuple[Read, Any]]) -> None:
        """Let later transactions guess what was read here."""
        if self._recall is not None:
            self._recall.learn(pair for pair in found if pair[0].op in "SH")

    def _gather(self, reads: Mapping[Read, str], lineages: Sequence[int]) -> None:
        if not lineages and not any(reads.values()):
            self._fetch(list(reads))
            return
        for read, answer in gather(self._link, self._keys, reads, lineages):
            self._known.setdefault(read, raw_of(read, answer))

    def _take(self, read: Read) -> Any:  # noqa: ANN401 - see raw_of
        if read not in self._known:
            self._fetch((read,))
        return self._known[read]


class RedisTxn(RedisView, LockWrites, QuotaWrites):
    """A view that remembers what it read, and takes intents.

    `known` holds values that Redis gave at one moment: after a lost race, those that the script sent back.
    """

    def __init__(self, link: Link, keys: Keys, recall: Recall | None, known: dict[Read, Any]) -> None:
        super().__init__(link, keys, recall)
        self._known = known
        self._nodes: dict[int, bytes | None] = {}
        self._others: dict[Read, bytes | None] = {}
        self.reads: dict[Read, Any] = {}
        self.changed: dict[Read, bytes | None] = {}
        self.writes: list[Write] = []
        self.guessed = False

    def prefetch(self, *wants: Want) -> None:
        """Take what is known, fetch the rest; when only entries are unknown, guess that they are absent."""
        reads = self._unknown(wants)
        if self._recall is not None:
            reads = {read: follow for read, follow in reads.items() if not self._recollect(read)}
            if all(read.op == "H" for read in reads):
                self._known.update((read, None) for read in reads)
                self.guessed = self.guessed or bool(reads)
                return
        self._gather(reads, _lineages(wants))

    def _recollect(self, read: Read) -> bool:
        if self._recall is None or read.op not in "SH":
            return False
        known, value = self._recall.get(read)
        if known:
            self._known[read] = value
            self.guessed = True
        return known

    def _take(self, read: Read) -> Any:  # noqa: ANN401 - see raw_of
        if read not in self._known and not self._recollect(read):
            self._fetch((read,))
        value = self.reads[read] = self._known[read]
        return value

    def put_node(self, ino: int, attr: Attr) -> None:
        """Write the whole record, its tail included; unread, it must not be there yet."""
        self._nodes[ino] = encode_attr(attr)

    def del_node(self, ino: int) -> None:
        """Remove the attributes."""
        self._nodes[ino] = None

    def put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        """Create or replace an entry."""
        self._others[Read("H", self._keys.dir(parent), name)] = encode_entry(edge)

    def del_edge(self, parent: int, name: bytes) -> None:
        """Remove an entry."""
        self._others[Read("H", self._keys.dir(parent), name)] = None

    def append(self, ino: int, index: int, records: Sequence[SliceRecord], *, if_exists: bool = False) -> None:
        """Append to the list, one item a record."""
        self._spread("RPUSHX" if if_exists else "RPUSH", self._keys.chunk(ino, index), _items(records))

    def replace_prefix(self, ino: int, index: int, count: int, records: Sequence[SliceRecord]) -> None:
        """Cut the oldest off and push the others in front, the last one first."""
        key = self._keys.chunk(ino, index)
        self.writes.append(("LTRIM", key, count, -1))
        self._spread("LPUSH", key, _items(records)[::-1])

    def del_chunk(self, ino: int, index: int) -> None:
        """Remove the list."""
        self.writes.append(("DEL", self._keys.chunk(ino, index)))

    def new_slice(self, slice_id: int, size: int) -> None:
        """Nothing: no record means one reference."""

    def add_refs(self, slice_id: int, size: int, count: int) -> None:
        """Count references; below zero means that the last one is gone."""
        if count:
            self.writes.append(("HINCRBY", self._keys.slice_ref, ref_field(slice_id, size), count))

    def put_symlink(self, ino: int, target: bytes) -> None:
        """Store a target."""
        self._others[Read("S", self._keys.symlink(ino))] = target

    def del_symlink(self, ino: int) -> None:
        """Remove a target."""
        self._others[Read("S", self._keys.symlink(ino))] = None

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Create or replace one extended attribute."""
        self._others[Read("H", self._keys.xattrs(ino), name)] = value

    def del_xattr(self, ino: int, name: bytes) -> None:
        """Remove one extended attribute."""
        self._others[Read("H", self._keys.xattrs(ino), name)] = None

    def del_xattrs(self, ino: int) -> None:
        """Remove all extended attributes."""
        self.writes.append(("DEL", self._keys.xattrs(ino)))

    def add_parent(self, ino: int, parent: int, count: int) -> None:
        """Count links in a parent."""
        self.writes.append(("HINCRBY", self._keys.parents(ino), parent, count))

    def del_parents(self, ino: int) -> None:
        """Forget the parents."""
        self.writes.append(("DEL", self._keys.parents(ino)))

    def add_usage(self, space: int, inodes: int) -> None:
        """Charge the totals."""
        if space:
            self.writes.append(("INCRBY", self._keys.used_space, space))
        if inodes:
            self.writes.append(("INCRBY", self._keys.total_inodes, inodes))

    def put_delfile(self, ino: int, length: int, at_s: int) -> None:
        """Queue a file for the deletion of its data."""
        self.writes.append(("ZADD", self._keys.delfiles, at_s, delfile_member(ino, length)))

    def sustain(self, sid: int, ino: int) -> None:
        """Record that a session holds a deleted inode open."""
        self.writes.append(("SADD", self._keys.held(sid), ino))

    def unsustain(self, sid: int, ino: int) -> None:
        """Forget that record."""
        self.writes.append(("SREM", self._keys.held(sid), ino))

    def put_dir_stat(self, ino: int, stat: DirStat) -> None:
        """Set a directory's statistics."""
        self.writes += (("HSET", key, ino, number) for key, number in zip(self._keys.dir_stats, stat, strict=True))

    def del_dir_records(self, ino: int) -> None:
        """Remove the statistics and the quota of a directory."""
        self.writes += (("HDEL", key, ino) for key in (*self._keys.dir_stats, *self._keys.quota(QuotaKind.DIRECTORY)))

    def put_delayed(self, new_id: int, at_s: int, slices: Sequence[tuple[int, int]]) -> None:
        """Park replaced slices."""
        self.writes.append(("HSET", self._keys.delayed, delayed_field(new_id, at_s), pack_pairs(slices)))

    def detach(self, ino: int, at_s: int) -> None:
        """Record the root of a tree that is not linked yet."""
        self.writes.append(("ZADD", self._keys.detached, at_s, ino))

    def attach(self, ino: int) -> None:
        """Forget that record."""
        self.writes.append(("ZREM", self._keys.detached, ino))

    def seal(self) -> None:
        """Turn nodes, entries, targets and attributes into writes, leaving out those that change nothing."""
        changed: dict[Read, bytes | None] = {}
        for ino, raw in self._nodes.items():
            read = Read("S", self._keys.node(ino))
            if raw is not None and read not in self.reads:
                if self._known.get(read) is not None:
                    raise CorruptError(f"inode {ino} exists already; were the volume's counters set back?")
                self.reads[read] = None
            changed[read] = raw
        for read, raw in (changed | self._others).items():
            if read not in self.reads or self.reads[read] != raw:
                self.changed[read] = raw
                self.writes.append(_write_of(read, raw))

    def _spread(self, command: str, key: bytes, items: Sequence[bytes]) -> None:
        for start in range(0, len(items), MOST_ARGUMENTS):
            self.writes.append((command, key, *items[start : start + MOST_ARGUMENTS]))


def _no_field(op: str, make: Callable[[Keys, int], bytes]) -> Callable[..., Read]:
    return lambda keys, ino: Read(op, make(keys, ino))


_READS: Final[Mapping[str, Callable[..., Read]]] = {
    "node": _no_field("S", Keys.node),
    "file": _no_field("S", Keys.node),
    "edge": lambda keys, parent, name: Read("H", keys.dir(parent), name),
    "chunk": lambda keys, ino, index: Read("L", keys.chunk(ino, index)),
    "symlink": _no_field("S", Keys.symlink),
    "xattr": lambda keys, ino, name: Read("H", keys.xattrs(ino), name),
    "xattrs": _no_field("M", Keys.xattrs),
    "parents": _no_field("M", Keys.parents),
    "has_entries": _no_field("E", Keys.dir),
    "flocks": _no_field("M", Keys.flock),
    "plocks": _no_field("M", Keys.plock),
}
"""The read that each kind of `Want` announces; a lineage is many."""

_FOLLOWED: Final = {"edge": "F", "file": "N"}
"""Kinds of `Want` whose reads lead to others."""


def _lineages(wants: Sequence[Want]) -> list[int]:
    return [int(want.key[0]) for want in wants if want.kind == "lineage"]


def scan_keys(link: Link, pattern: bytes, count: int = 1000) -> Iterator[bytes]:
    """Keys that match, each at least once: a table that grows meanwhile may show one twice."""
    cursor: bytes | int = 0
    while True:
        cursor, found = link.ask("SCAN", cursor, "MATCH", pattern, "COUNT", count)
        yield from found
        if int(cursor) == 0:
            return


def _write_of(read: Read, raw: bytes | None) -> Write:
    if read.op == "S":
        return ("DEL", read.key) if raw is None else ("SET", read.key, raw)
    return ("HDEL", read.key, read.field) if raw is None else ("HSET", read.key, read.field, raw)


def _items(records: Sequence[SliceRecord]) -> list[bytes]:
    return [pack((record,)) for record in records]
