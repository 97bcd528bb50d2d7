"""What our client leaves behind, record by record, is what volume-format.md says (2.16, 3): every key, every row.

The expected records are spelled here from the document and share no code with the engines.
"""

from __future__ import annotations

import copy
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import AttrChange, MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.redis_server import RedisServer

ROOT_USER: Final = Caller.root()
TRASH: Final = 9223372032828243968
HOUR: Final = TRASH + 1
BASE: Final = 1_700_000_000
FILE, DIR, LINK, FIFO = 1, 2, 3, 4


class Node(NamedTuple):
    """A node as the document lists its fields; times are seconds after the base."""

    kind: int
    mode: int
    atime: int
    mtime: int
    ctime: int
    nlink: int
    length: int
    parent: int
    flags: int = 0


class Records(NamedTuple):
    """Every record of a volume."""

    nodes: dict[int, Node]
    entries: dict[int, dict[bytes, tuple[int, int]]]
    chunks: dict[tuple[int, int], list[tuple[int, int, int, int, int]]]
    slices: dict[tuple[int, int], int]
    links: dict[int, bytes]
    xattrs: dict[int, dict[bytes, bytes]]
    parents: dict[int, dict[int, int]]
    stats: dict[int, tuple[int, int, int]]
    delfiles: dict[int, tuple[int, int]]
    sustained: dict[int, set[int]]
    counters: dict[str, int]


def history(service: MetaService, clock: FakeClock) -> Iterator[Records]:
    """Do things a second apart; after each part of it, what must be stored then."""
    m, who = service, ROOT_USER

    def tick() -> int:
        clock.advance(1)
        return clock.now_ns()

    tick()
    assert m.mkdir(who, 1, b"d", 0o755)[0] == 2
    tick()
    assert m.create(who, 2, b"f\xff", 0o644)[0] == 3
    tick()
    assert m.symlink(who, 2, b"l", b"to/\xfe")[0] == 4
    assert m.new_slice_id() == 1
    m.write(3, 0, [SliceRecord(0, 1, 5000, 0, 5000)], tick(), new_length=5000)
    tick()
    m.truncate(who, 3, 100)
    tick()
    m.setxattr(who, 3, b"user.a", b"\x00v")
    m.flush()
    state = first()
    yield state

    tick()
    m.link(who, 3, 1, b"hard")
    tick()
    m.rename(who, 2, b"f\xff", 1, b"moved")
    tick()
    assert m.mknod(who, 2, b"p", Kind.FIFO, 0o600)[0] == 5
    tick()
    m.unlink(who, 2, b"p")
    tick()
    m.setattr(who, 3, AttrChange(mode=0o640))
    assert m.new_slice_id() == 2
    m.write(3, 1, [SliceRecord(7, 2, 9, 0, 9)], tick(), new_length=(64 << 20) + 16)
    tick()
    m.copy_file_range(who, 3, 64 << 20, 3, 128 << 20, 16)
    m.flush()
    state = second(state)
    yield state

    tick()
    m.unlink(who, 1, b"hard", skip_trash=True)
    tick()
    m.unlink(who, 1, b"moved", skip_trash=True)
    tick()
    m.unlink(who, 2, b"l", skip_trash=True)
    tick()
    m.rmdir(who, 1, b"d", skip_trash=True)
    m.flush()
    yield third(state)


def first() -> Records:
    """After mkdir, create, symlink, write, truncate (shrink) and setxattr."""
    return Records(
        nodes={
            1: Node(DIR, 0o777, 0, 1, 1, 3, 4096, 1),
            TRASH: Node(DIR, 0o555, 0, 0, 0, 2, 4096, 1),
            2: Node(DIR, 0o755, 1, 3, 3, 2, 4096, 1),
            3: Node(FILE, 0o644, 2, 5, 5, 1, 100, 2),
            4: Node(LINK, 0o777, 3, 3, 3, 1, 4, 2),
        },
        entries={1: {b"d": (DIR, 2)}, 2: {b"f\xff": (FILE, 3), b"l": (LINK, 4)}},
        chunks={(3, 0): [(0, 1, 5000, 0, 5000), (100, 0, 0, 0, 4900)]},
        slices={(1, 5000): 1},
        links={4: b"to/\xfe"},
        xattrs={3: {b"user.a": b"\x00v"}},
        parents={},
        stats={1: (0, 4096, 1), 2: (100, 8192, 2)},
        delfiles={},
        sustained={},
        counters={"usedSpace": 3 * 4096, "totalInodes": 3, "nextInode": 1025, "nextChunk": 4097, "nextSession": 0},
    )


def second(before: Records) -> Records:
    """After link, rename, mknod, unlink into the trash, chmod, a sparse write and copy_file_range."""
    now = copy.deepcopy(before)
    grown = (64 << 20) + 16
    final = (128 << 20) + 16
    now.nodes[1] = Node(DIR, 0o777, 0, 8, 8, 3, 4096, 1)
    now.nodes[2] = Node(DIR, 0o755, 1, 10, 10, 2, 4096, 1)
    now.nodes[3] = Node(FILE, 0o640, 2, 13, 13, 2, final, 0)
    now.nodes[5] = Node(FIFO, 0o600, 9, 9, 10, 1, 0, HOUR)
    now.nodes[HOUR] = Node(DIR, 0o555, 10, 10, 10, 2, 4096, TRASH)
    now.entries[1].update({b"hard": (FILE, 3), b"moved": (FILE, 3)})
    del now.entries[2][b"f\xff"]
    now.entries[TRASH] = {b"2023-11-14-22": (DIR, HOUR)}
    now.entries[HOUR] = {b"2-5-p": (FIFO, 5)}
    now.parents[3] = {1: 2, 2: 0}
    now.chunks[3, 1] = [(7, 2, 9, 0, 9)]
    now.chunks[3, 2] = [(7, 2, 9, 0, 9)]  # no record for a hole past the end of the file: that reads as zeros already
    now.slices[2, 9] = 2
    charged = (final + 4095) // 4096 * 4096
    assert grown < final
    now.stats[1] = (2 * final, 4096 + 2 * charged, 3)
    now.stats[2] = (0, 4096, 1)
    now.stats[HOUR] = (0, 4096, 1)
    now.counters.update({"usedSpace": 4 * 4096 + charged, "totalInodes": 5, "nextTrash": 1})
    return now


def third(before: Records) -> Records:
    """After unlinking both names and the symlink, and rmdir, all past the trash. The data waits in delfiles."""
    now = copy.deepcopy(before)
    now.nodes[1] = Node(DIR, 0o777, 0, 17, 17, 2, 4096, 1)
    for ino in (2, 3, 4):
        del now.nodes[ino]
    del now.entries[1], now.entries[2], now.parents[3], now.links[4], now.xattrs[3], now.stats[2]
    now.stats[1] = (0, 0, 0)
    now.delfiles[3] = ((128 << 20) + 16, 15)
    now.counters.update({"usedSpace": 2 * 4096, "totalInodes": 2})
    return now


def attr_bytes(node: Node) -> bytes:
    """An Attr of 72 bytes."""
    head = struct.pack(">BHII", node.flags, node.kind << 12 | node.mode, 0, 0)
    times = b"".join(struct.pack(">qI", BASE + second, 0) for second in (node.atime, node.mtime, node.ctime))
    return head + times + struct.pack(">IQIQ", node.nlink, node.length, 0, node.parent) + b"\x00"


def as_redis(records: Records, setting: bytes) -> dict[bytes, Any]:
    """Every key that the database must hold."""
    made: dict[bytes, Any] = {b"setting": setting}
    made |= {b"i%d" % ino: attr_bytes(node) for ino, node in records.nodes.items()}
    for ino, names in records.entries.items():
        made[b"d%d" % ino] = {name: struct.pack(">BQ", *entry) for name, entry in names.items()}
    made |= {b"c%d_%d" % key: [struct.pack(">IQIII", *part) for part in parts] for key, parts in records.chunks.items()}
    made |= {b"s%d" % ino: target for ino, target in records.links.items()}
    made |= {b"x%d" % ino: xattrs for ino, xattrs in records.xattrs.items()}
    for ino, counts in records.parents.items():
        made[b"p%d" % ino] = {b"%d" % parent: b"%d" % count for parent, count in counts.items()}
    for place, key in enumerate((b"dirDataLength", b"dirUsedSpace", b"dirUsedInodes")):
        made[key] = {b"%d" % ino: b"%d" % stat[place] for ino, stat in records.stats.items()}
    refs = {b"k%d_%d" % key: b"%d" % (count - 1) for key, count in records.slices.items() if count != 1}
    if refs:
        made[b"sliceRef"] = refs
    if records.delfiles:
        members = ((b"%d:%d" % (ino, length), float(BASE + at)) for ino, (length, at) in records.delfiles.items())
        made[b"delfiles"] = dict(members)
    spelled = {"nextInode": b"nextinode", "nextChunk": b"nextchunk", "nextSession": b"nextsession"}
    for name, value in records.counters.items():
        last = value - 1 if name in {"nextInode", "nextChunk"} else value
        if last or name not in spelled:
            made[spelled.get(name, name.encode())] = b"%d" % last
    return made


def redis_content(server: RedisServer, url: str) -> dict[bytes, Any]:
    """Every key that the database holds."""
    held: dict[bytes, Any] = {}
    with server.client_of(url) as client:
        for key in client.scan_iter():
            if key.startswith(b"F"):
                continue  # marks of our own (decision 003), which go away by themselves
            match client.type(key):
                case b"string":
                    held[key] = client.get(key)
                case b"hash":
                    held[key] = client.hgetall(key)
                case b"list":
                    held[key] = client.lrange(key, 0, -1)
                case b"zset":
                    held[key] = dict(client.zrange(key, 0, -1, withscores=True))
                case kind:
                    held[key] = kind
    return held


def as_sql(records: Records, setting: bytes) -> dict[str, set[tuple[Any, ...]]]:
    """Every row that the tables must hold, serial numbers left out."""
    micros = 1_000_000
    nodes = {
        (
            ino, node.kind, node.flags, node.mode, 0, 0,
            *((BASE + second) * micros for second in (node.atime, node.mtime, node.ctime)),
            0, 0, 0, node.nlink, node.length, 0, node.parent, 0, 0, 0,
        )
        for ino, node in records.nodes.items()
    }  # fmt: skip
    counters = records.counters | {"nextInode": 1026, "nextCleanupSlices": 0}
    return {
        "jfs_setting": {(b"format", setting)},
        "jfs_node": nodes,
        "jfs_edge": {
            (parent, name, ino, kind)
            for parent, names in records.entries.items()
            for name, (kind, ino) in names.items()
        },
        "jfs_chunk": {
            (*key, b"".join(struct.pack(">IQIII", *part) for part in parts)) for key, parts in records.chunks.items()
        },
        "jfs_chunk_ref": {(*key, count) for key, count in records.slices.items()},
        "jfs_symlink": set(records.links.items()),
        "jfs_xattr": {(ino, name, value) for ino, pairs in records.xattrs.items() for name, value in pairs.items()},
        "jfs_dir_stats": {(ino, *stat) for ino, stat in records.stats.items()},
        "jfs_delfile": {(ino, length, BASE + at) for ino, (length, at) in records.delfiles.items()},
        "jfs_counter": {(name.encode(), value) for name, value in counters.items()},
    }


def sql_content(path: Path) -> dict[str, set[tuple[Any, ...]]]:
    """Every row of every table that has any, serial numbers left out."""
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    held = {}
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'jfs%' AND type = 'table'"):
        columns = [row[1].decode() for row in connection.execute(f"PRAGMA table_info({name.decode()})")]
        wanted = ", ".join(f"`{column}`" for column in columns if column != "id")
        held[name.decode()] = set(connection.execute(f"SELECT {wanted} FROM {name.decode()}").fetchall())
    connection.close()
    return {name: rows for name, rows in held.items() if rows}


def open_new(url: str, clock: FakeClock) -> MetaService:
    """A client of a new volume, without a session of its own."""
    engine = open_engine(url)
    chosen = Setting(name="test-volume", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=1)
    MetaService.format(engine, chosen, clock)
    return MetaService.open(engine, clock, background=False, session=False, skip_dir_mtime_s=0.0)


@pytest.mark.redis
def test_in_redis(redis_server: RedisServer, redis_url: str) -> None:
    clock = FakeClock()
    service = open_new(redis_url, clock)
    setting = service.engine.load_setting() or b""
    for records in history(service, clock):
        assert redis_content(redis_server, redis_url) == as_redis(records, setting)
    service.close()


def test_in_sqlite(tmp_path: Path) -> None:
    clock = FakeClock()
    service = open_new(f"sqlite3://{tmp_path}/meta.db", clock)
    setting = service.engine.load_setting() or b""
    for records in history(service, clock):
        assert sql_content(tmp_path / "meta.db") == {
            name: rows for name, rows in as_sql(records, setting).items() if rows
        }
    service.close()


@pytest.mark.redis
def test_a_volume_without_trash_is_two_keys(redis_server: RedisServer, redis_url: str) -> None:
    """With TrashDays 0 the database holds exactly the setting and the root (volume-format.md 1.2)."""
    engine = open_engine(redis_url)
    MetaService.format(
        engine, Setting(name="two", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0), FakeClock()
    )
    engine.close()
    assert set(redis_content(redis_server, redis_url)) == {b"setting", b"i1"}
