"""What every object store promises (objects/api.py), held by memory, file and S3 alike."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from fscore.domain.errors import Invalid, NotFound
from fscore.objects.api import ObjectStore, SupportsPutIfAbsent
from fscore.objects.wrap.prefixed import Prefixed

ODD_KEYS = ["a b/ü+%41~#?.bin", "k:=&,;@$!'()*", "日本/語", "x" * 200, "a.b-c_d/..e/.f", "trailing.", "%", "%2F/%zz"]


def keys(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [info.key for info in store.scan(prefix, start_after)]


@pytest.mark.parametrize("size", [0, 1, 4096, 4 << 20, 5_300_001])
def test_bytes_come_back(objects: ObjectStore, size: int) -> None:
    data = os.urandom(size)
    objects.put("some/key", data)
    assert objects.get("some/key") == data
    assert objects.head("some/key")[:2] == ("some/key", size)
    buffer = bytearray(size + 7)
    assert objects.get_into("some/key", memoryview(buffer)) == size
    assert buffer[:size] == data
    for room in (size, size + 7):
        into = bytearray(room)
        assert objects.fill("some/key", memoryview(into))[0] == size
        assert into[:size] == data
    if size:
        assert objects.fill("some/key", memoryview(bytearray(size - 1)))[0] == size


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_stored_and_not_kept(objects: ObjectStore, kind: type) -> None:
    source = bytearray(b"0123456789")
    data = bytes(source) if kind is bytes else source if kind is bytearray else memoryview(source)[2:7]
    expected = bytes(data)
    objects.put("k", data)
    source[:] = b"x" * 10
    assert objects.get("k") == expected


def test_ranges(objects: ObjectStore) -> None:
    data = os.urandom(1000)
    objects.put("k", data)
    for offset, length in [(0, 1), (0, 1000), (0, 5000), (10, 20), (999, 1), (990, 100), (1000, 1), (5000, 3), (7, 0)]:
        assert objects.get("k", offset, length) == data[offset : offset + length], (offset, length)
        buffer = bytearray(length)
        n = objects.get_into("k", memoryview(buffer), offset)
        assert bytes(buffer[:n]) == data[offset : offset + length], (offset, length)
    assert objects.get("k", 400) == data[400:]
    assert objects.get("k", 1000) == b""


def test_absent_is_not_found_and_delete_of_it_is_fine(objects: ObjectStore) -> None:
    objects.put("folder/there", b"x")
    for key in ("nothing", "folder/nothing", "folder", "folder/there/below"):
        for call in (objects.get, objects.head, lambda k: objects.get(k, 5, 10), lambda k: objects.get(k, 0, 0)):
            with pytest.raises(NotFound):
                call(key)
        with pytest.raises(NotFound):
            objects.get_into(key, memoryview(bytearray(4)))
        with pytest.raises(NotFound):
            objects.fill(key, memoryview(bytearray(4)))
    objects.delete("nothing")
    objects.delete("folder/nothing")
    objects.delete("folder/there")
    objects.delete("folder/there")
    with pytest.raises(NotFound):
        objects.head("folder/there")
    assert keys(objects) == []


def test_put_replaces_whole(objects: ObjectStore) -> None:
    objects.put("k", b"a much longer first value")
    objects.put("k", b"short")
    assert objects.get("k") == b"short"
    assert objects.head("k").size == 5


@pytest.mark.parametrize("key", ["", "/abs", "../out", "a/../b", "a//b", "a/", "./a", "a\0b"])
def test_a_key_that_climbs_out_is_refused(objects: ObjectStore, key: str) -> None:
    for call in (
        lambda: objects.put(key, b"x"),
        lambda: objects.get(key),
        lambda: objects.head(key),
        lambda: objects.delete(key),
    ):
        with pytest.raises(Invalid):
            call()
    assert keys(objects) == []


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys(objects: ObjectStore, key: str) -> None:
    objects.put(key, key.encode())
    assert objects.get(key) == key.encode()
    into = bytearray(300)
    assert into[: objects.fill(key, memoryview(into))[0]] == key.encode()
    assert objects.head(key).key == key
    assert keys(objects) == [key]
    objects.delete(key)
    assert keys(objects) == []


def test_scan_is_ascending_by_bytes(objects: ObjectStore) -> None:
    names = [
        "a-b",
        "a/b-c",
        "a/b/c",
        "a/b/d/e",
        "a/b.x",
        "a/c",
        "a0",
        "b",
        "ä/x",
        "z/1",
        "z/10",
        "z/2",
        "\U0001f600",
        "\uffee",
    ]
    for name in names:
        objects.put(name, name.encode())
    ordered = sorted(names, key=str.encode)
    assert keys(objects) == ordered
    assert all(info.size == len(info.key.encode()) for info in objects.scan())
    for prefix in ["a", "a/", "a/b", "a/b/", "a/b/d/", "z/1", "nothing", "nothing/", "ä"]:
        expected = [key for key in ordered if key.startswith(prefix)]
        assert keys(objects, prefix) == expected, prefix
        for after in ["", "a", "a-b", "a/b/d", "a/b/d/", "a/b", "a/b/", "a/b/c", "a/bx", "z/1", "zz", *ordered]:
            wanted = [key for key in expected if key.encode() > after.encode()]
            assert keys(objects, prefix, after) == wanted, (prefix, after)


def test_scan_pages(objects: ObjectStore) -> None:
    many = [f"chunks/0/0/{number:05d}_0_1" for number in range(1205)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: objects.put(key, b"x"), many))
    assert keys(objects, "chunks/") == many
    assert keys(objects, "", many[1100]) == many[1101:]


def test_exactly_one_of_many_wins(objects: ObjectStore) -> None:
    assert isinstance(objects, SupportsPutIfAbsent)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: objects.put_if_absent("lock", str(number).encode()), range(8)))
    assert sum(won) == 1
    assert objects.get("lock") == str(won.index(True)).encode()
    assert keys(objects) == ["lock"]


def test_many_threads(objects: ObjectStore) -> None:
    def work(number: int) -> None:
        data = os.urandom(10_000 + number)
        for turn in range(4):
            objects.put(f"t/{number}", data)
            assert objects.get(f"t/{number}") == data
            if turn % 2:
                objects.delete(f"t/{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert keys(objects) == []


def test_a_prefix_is_a_store(objects: ObjectStore) -> None:
    part, other = Prefixed(objects, "vol/"), Prefixed(objects, "vol2/")
    part.put("chunks/1", b"one")
    other.put("chunks/1", b"two")
    assert part.get("chunks/1") == b"one"
    assert objects.get("vol/chunks/1") == b"one"
    assert part.head("chunks/1").key == "chunks/1"
    assert keys(part) == ["chunks/1"]
    assert keys(part, "chunks/", "chunks/1") == []
    assert part.put_if_absent("chunks/1", b"x") is False
    assert part.put_if_absent("chunks/2", b"x") is True
    part.delete("chunks/1")
    assert keys(objects) == ["vol/chunks/2", "vol2/chunks/1"]
