"""Every record of the golden volumes, decoded and encoded again, is the same bytes; sums agree with references."""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from typing import Any, Final

import pytest

from fscore.domain import locks
from fscore.domain.slices import pack, unpack
from fscore.meta.engines.redis import codec, keys
from fscore.meta.engines.sql import rows
from tests.kit.golden import HOME, ON_REDIS, ON_SQLITE, redis_records

QUOTA: Final = struct.Struct(">qq")


def of_kind(records: list[dict[str, Any]], letter: bytes, kind: str) -> list[dict[str, Any]]:
    """Records whose key is the letter and digits."""
    return [
        record
        for record in records
        if record["type"] == kind and record["key"].startswith(letter) and record["key"][len(letter) :][:1].isdigit()
    ]


@pytest.mark.parametrize("name", ON_REDIS)
def test_attributes_in_redis(name: str) -> None:
    found = of_kind(redis_records(name), b"i", "string")
    assert len(found) > 40
    for record in found:
        assert codec.encode_attr(codec.decode_attr(record["value"])) == record["value"], record["key"]


@pytest.mark.parametrize("name", ON_REDIS)
def test_entries_in_redis(name: str) -> None:
    found = of_kind(redis_records(name), b"d", "hash")
    assert found
    for record in found:
        for field, value in record["fields"]:
            assert codec.encode_entry(codec.decode_entry(value)) == value, (record["key"], field)


@pytest.mark.parametrize("name", ON_REDIS)
def test_slice_lists_in_redis(name: str) -> None:
    found = of_kind(redis_records(name), b"c", "list")
    assert found
    for record in found:
        for item in record["items"]:
            assert pack(unpack(item)) == item, record["key"]


@pytest.mark.parametrize("name", ON_REDIS)
def test_names_of_keys_and_fields(name: str) -> None:
    made = keys.Keys()
    simple = {b"i": made.node, b"d": made.dir, b"s": made.symlink, b"x": made.xattrs, b"p": made.parents}
    for record in redis_records(name):
        key = record["key"]
        for letter, name_of in simple.items():
            numbers = made.numbers_in(key, letter) if key.startswith(letter) else None
            if numbers and len(numbers) == 1:
                assert name_of(numbers[0]) == key
        if key.startswith(b"c"):
            ino, index = made.numbers_in(key, b"c") or (0, 0)
            assert made.chunk(ino, index) == key


@pytest.mark.parametrize("name", ON_REDIS)
def test_references_are_records_and_parked_slices(name: str) -> None:
    """Stored n means n + 1 references, absent means one (volume-format.md 2.9)."""
    records = redis_records(name)
    held: Counter[tuple[int, int]] = Counter()
    for record in of_kind(records, b"c", "list"):
        held.update((piece.id, piece.size) for item in record["items"] for piece in unpack(item) if piece.id)
    by_key = {record["key"]: record for record in records}
    for field, value in by_key.get(b"delSlices", {"fields": []})["fields"]:
        assert keys.delayed_field(*keys.parse_delayed(field)) == field
        assert codec.pack_pairs(codec.unpack_pairs(value)) == value
        held.update(codec.unpack_pairs(value))
    stored = {}
    for field, value in by_key.get(b"sliceRef", {"fields": []})["fields"]:
        pair = keys.parse_ref(field)
        assert pair is not None
        assert keys.ref_field(*pair) == field
        stored[pair] = int(value) + 1
    assert held == {**dict.fromkeys(held, 1), **stored}


def test_locks_of_a_live_session() -> None:
    by_key = {record["key"]: record for record in redis_records("redis-features")}
    (flock,) = [record for key, record in by_key.items() if key.startswith(b"lockf")]
    ((field, value),) = flock["fields"]
    assert value in {b"R", b"W"}
    assert keys.lock_field(*keys.parse_lock_field(field)) == field
    (plock,) = [record for key, record in by_key.items() if key.startswith(b"lockp")]
    ((field, value),) = plock["fields"]
    ranges = locks.parse(value)
    assert len(ranges) == 2
    assert locks.render(ranges) == value
    sid, _ = keys.parse_lock_field(field)
    assert set(by_key[keys.Keys().locked(sid)]["members"]) == {flock["key"], plock["key"]}


@pytest.mark.parametrize("name", ON_SQLITE)
def test_rows_in_sqlite(name: str) -> None:
    connection = sqlite3.connect(f"file:{HOME / name / 'meta.sqlite3'}?mode=ro&immutable=1", uri=True)
    connection.text_factory = bytes
    try:
        found = connection.execute(f"SELECT {', '.join(rows.NODE_COLUMNS)} FROM jfs_node").fetchall()
        assert len(found) > 40
        for row in found:
            assert rows.row_of(row[0], rows.attr_of(row[1:])) == row
        blobs = connection.execute("SELECT CAST(slices AS BLOB) FROM jfs_chunk").fetchall()
        assert blobs
        for (blob,) in blobs:
            assert pack(rows.records_of(blob)) == blob
        for (blob,) in connection.execute("SELECT slices FROM jfs_delslices"):
            assert rows.pack_pairs(rows.unpack_pairs(blob)) == blob
    finally:
        connection.close()


def test_an_acl_row_is_the_rule_that_redis_stores() -> None:
    """The same history made both volumes, so that their rules are equal (volume-format.md 4.6)."""
    stored = next(record for record in redis_records("redis-features") if record["key"] == b"acl")
    in_redis = {int(number): rule for number, rule in stored["fields"]}
    connection = sqlite3.connect(f"file:{HOME / 'sqlite-features' / 'meta.sqlite3'}?mode=ro&immutable=1", uri=True)
    query = "SELECT id, owner, `group`, mask, other, named_users, named_groups FROM jfs_acl"
    in_sqlite = {row[0]: rows.acl_rule(row[1:]) for row in connection.execute(query)}
    connection.close()
    assert in_sqlite == in_redis
