"""Walks over a volume's keys, in batches. A key or field that the server shows twice is given once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from fscore.domain.attr import Attr, Entry
from fscore.domain.slices import SliceRecord, unpack
from fscore.meta.engines.redis.codec import decode_attr, decode_entry, decode_parents
from fscore.meta.engines.redis.keys import Keys, parse_delayed, parse_delfile, parse_ref
from fscore.meta.engines.redis.link import Answer, Link
from fscore.meta.engines.redis.recall import Read, Recall
from fscore.meta.engines.redis.scripts import LIST, WALK
from fscore.meta.engines.redis.txn import RedisView, scan_keys
from fscore.meta.records import DirStat, Edge

T = TypeVar("T")

BATCH: Final = 512
SMALL: Final = 512
"""Entries of a directory that is listed in one trip."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size`."""
    left = iter(items)
    while part := list(itertools.islice(left, size)):
        yield part


def hash_fields(link: Link, key: bytes, count: int = 10_000) -> Iterator[tuple[bytes, bytes]]:
    """Fields of a hash. One answer is enough for a small one; only then are the names not remembered."""
    cursor, flat = link.ask("HSCAN", key, 0, "COUNT", count)
    if int(cursor) == 0:
        yield from zip(flat[::2], flat[1::2], strict=True)
        return
    seen: set[bytes] = set()
    while True:
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            if field not in seen:
                seen.add(field)
                yield field, value
        if int(cursor) == 0:
            return
        cursor, flat = link.ask("HSCAN", key, cursor, "COUNT", count)


def scored(link: Link, key: bytes) -> Iterator[tuple[bytes, int]]:
    """Members of a sorted set with their scores."""
    flat = link.ask("ZRANGE", key, 0, -1, "WITHSCORES")
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        yield member, int(float(score))


def numbered(link: Link, keys: Keys, letter: bytes, count: int) -> Iterator[list[tuple[bytes, tuple[int, ...]]]]:
    """Batches of keys `<letter><n>[_<m>]` with their `count` numbers."""
    seen: set[tuple[int, ...]] = set()

    def fresh() -> Iterator[tuple[bytes, tuple[int, ...]]]:
        for key in scan_keys(link, keys.prefix + letter + b"[0-9]*"):
            numbers = keys.numbers_in(key, letter)
            if numbers is not None and len(numbers) == count and numbers not in seen:
                seen.add(numbers)
                yield key, numbers

    return batched(fresh(), BATCH)


def _each(link: Link, keys: Keys, letter: bytes, count: int, *command: str) -> Iterator[tuple[tuple[int, ...], Answer]]:
    """Keys' numbers with the answer to a command on the key; what went away meanwhile answers with nothing."""
    for part in numbered(link, keys, letter, count):
        answers = link.batch([(command[0], key, *command[1:]) for key, _ in part])
        yield from ((numbers, answer) for (_, numbers), answer in zip(part, answers, strict=True) if answer)


def nodes(link: Link, keys: Keys) -> Iterator[tuple[int, Attr]]:
    """Every node."""
    return ((numbers[0], decode_attr(raw)) for numbers, raw in _each(link, keys, b"i", 1, "GET"))


def edges(link: Link, keys: Keys) -> Iterator[tuple[int, bytes, Edge]]:
    """Every entry, directory by directory."""
    for part in numbered(link, keys, b"d", 1):
        for key, (parent,) in part:
            yield from ((parent, name, decode_entry(raw)) for name, raw in hash_fields(link, key))


def chunks(link: Link, keys: Keys) -> Iterator[tuple[int, int, tuple[SliceRecord, ...]]]:
    """Every chunk list."""
    for (ino, index), items in _each(link, keys, b"c", 2, "LRANGE", "0", "-1"):
        yield ino, index, tuple(unpack(b"".join(items)))


def refs(link: Link, keys: Keys) -> Iterator[tuple[int, int, int]]:
    """Every field of `sliceRef`: a stored n means n + 1 references."""
    for field, value in hash_fields(link, keys.slice_ref):
        pair = parse_ref(field)
        if pair is not None:
            yield (*pair, int(value) + 1)


def parents(link: Link, keys: Keys) -> Iterator[tuple[int, dict[int, int]]]:
    """Parents of nodes with several names."""
    for (ino,), flat in _each(link, keys, b"p", 1, "HGETALL"):
        yield ino, decode_parents(dict(zip(flat[::2], flat[1::2], strict=True)))


def dir_stats(link: Link, keys: Keys) -> Iterator[tuple[int, DirStat]]:
    """Every directory that has a record of its space."""
    for part in batched(hash_fields(link, keys.dir_space), BATCH):
        fields = [field for field, _ in part]
        lengths, inodes = link.batch((("HMGET", keys.dir_length, *fields), ("HMGET", keys.dir_inodes, *fields)))
        for (field, space), length, count in zip(part, lengths, inodes, strict=True):
            yield int(field), DirStat(int(length or 0), int(space), int(count or 0))


def delfiles(link: Link, keys: Keys) -> Iterator[tuple[int, int]]:
    """Every queued deletion."""
    return (pair for member, _ in scored(link, keys.delfiles) if (pair := parse_delfile(member)) is not None)


def parked(link: Link, keys: Keys) -> Iterator[tuple[int, int, bytes]]:
    """Every parked list as (new id, unix seconds, stored form)."""
    return ((*parse_delayed(field), raw) for field, raw in hash_fields(link, keys.delayed))


def sustained(link: Link, keys: Keys) -> Iterator[tuple[int, int]]:
    """Every (session, inode) that is deleted but open."""
    for (sid,), members in _each(link, keys, b"session", 1, "SMEMBERS"):
        yield from ((sid, int(ino)) for ino in members)


def small_dir(link: Link, keys: Keys, recall: Recall, ino: int) -> list[Entry] | None:
    """All entries of a small directory with their attributes, in one round trip; None when it is not small."""
    answer = link.script(LIST, (keys.dir(ino),), (keys.prefix, SMALL))
    if answer is None:
        return None
    flat, raws = answer
    found: list[Entry] = []
    seen: list[tuple[Read, bytes | None]] = []
    for name, raw, told in zip(flat[::2], flat[1::2], raws, strict=True):
        edge = decode_entry(raw)
        attr = link.ask("GET", keys.node(edge.ino)) if told == b"" else told
        found.append(Entry(name, edge.ino, edge.kind, None if attr is None else decode_attr(attr)))
        seen += ((Read("H", keys.dir(ino), name), raw), (Read("S", keys.node(edge.ino)), attr))
    recall.learn(seen)
    return found


def _as_before(link: Link, keys: Keys, recall: Recall, parent: int, name: bytes) -> tuple[int, Attr] | None:
    """The node of a name that was seen before, asked for by its number without a script, which costs the server twice
    as much; None when the name is new, or means another node by now, or none.
    """
    key = keys.dir(parent)
    _, entry = recall.get(Read("H", key, name))
    if entry is None:
        return None
    ino = decode_entry(entry).ino
    node = Read("S", keys.node(ino))
    now, raw = link.batch((("HGET", key, name), ("GET", node.key)))
    if now != entry or raw is None:
        return None
    if recall.get(node)[1] != raw:
        recall.learn(((node, raw),))
    return ino, decode_attr(raw)


def walk(link: Link, keys: Keys, recall: Recall, parent: int, names: Sequence[bytes]) -> list[tuple[int, Attr]]:
    """The node of each name in turn; numbers that Lua cannot count to are followed step by step."""
    again = _as_before(link, keys, recall, parent, names[0]) if len(names) == 1 else None
    if again is not None:
        return [again]
    found: list[tuple[int, Attr]] = []
    if names:
        answer = link.script(WALK, (keys.dir(parent),), (keys.prefix, *names))
        seen: list[tuple[Read, bytes | None]] = []
        above = parent
        for name, entry, raw in zip(names, answer[::2], answer[1::2], strict=False):
            ino = decode_entry(entry).ino
            found.append((ino, decode_attr(raw)))
            seen += ((Read("H", keys.dir(above), name), entry), (Read("S", keys.node(ino)), raw))
            above = ino
        recall.learn(seen)
        if len(answer) % 2 == 0:
            return found
    view = RedisView(link, keys)
    for name in names[len(found) :]:
        if found and not found[-1][1].is_dir:
            break
        edge = view.edge(found[-1][0] if found else parent, name)
        attr = None if edge is None else view.node(edge.ino)
        if edge is None or attr is None:
            break
        found.append((edge.ino, attr))
    return found
