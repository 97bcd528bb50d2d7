"""Crash sweeps over what files promise: acknowledged is durable, renames and compositions are all or nothing."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from fscore.files.compose import Piece, Range, Zeros, data
from fscore.objects.wrap.faulty import When
from fscore.volume import Volume
from tests.kit.crash import Ledger, Story, sweep

BLOCK = 64 << 10

WAYS = [
    pytest.param({"when": when, "persistent": persistent}, id=f"{when.value}-{'for-good' if persistent else 'once'}")
    for when in When
    for persistent in (False, True)
]


def blob(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def write_and_overwrite(volume: Volume, ledger: Ledger) -> None:
    fs = volume.files
    first, second = blob(3 * BLOCK + 7, 1), blob(BLOCK + 3, 2)
    with ledger.change({"/f": first}, {"/f": b""}):
        fs.write_bytes("/f", first)
    patched = first[:1000] + second + first[1000 + len(second) :]
    with ledger.change({"/f": patched}), fs.open("/f", "r+b") as file:
        file.pwrite(1000, second)
    with ledger.change({"/f": patched[:500]}):
        fs.truncate("/f", 500)
    grown = patched[:500] + bytes(1500) + b"end"
    with ledger.change({"/f": grown}), fs.open("/f", "r+b") as file:
        file.pwrite(2000, b"end")


def publish(volume: Volume, ledger: Ledger) -> None:
    fs = volume.files
    fs.mkdir("/staging/v1", parents=True)
    for number in range(2):
        content = blob(BLOCK + number, number)
        with ledger.change({f"/staging/v1/{number}": content}, {f"/staging/v1/{number}": b""}):
            fs.write_bytes(f"/staging/v1/{number}", content)
    fs.mkdir("/models")
    moved = {f"/models/v1/{number}": blob(BLOCK + number, number) for number in range(2)}
    with ledger.change(moved | {f"/staging/v1/{number}": None for number in range(2)}):
        fs.rename("/staging/v1", "/models/v1", replace=False)
    fs.set_immutable("/models/v1", on=True, recursive=True)
    with ledger.change({"/log-1": b"published"}):
        fs.write_atomic("/log-1", b"published", replace=False)
    with ledger.change({"/state": b"1"}):
        fs.write_atomic("/state", b"1", replace=True)
    with ledger.change({"/state": b"2"}):
        fs.write_atomic("/state", b"2", replace=True)


def share(volume: Volume, ledger: Ledger) -> None:
    fs = volume.files
    source = blob(2 * BLOCK, 5)
    with ledger.change({"/s": source}, {"/s": b""}):
        fs.write_bytes("/s", source)
    made = source[100:5000] + b"new bytes" * 10_000 + bytes(5000) + source[BLOCK:]
    pieces: list[Piece] = [Range("/s", 100, 4900), data(b"new bytes" * 10_000), Zeros(5000), Range("/s", BLOCK, BLOCK)]
    with ledger.change({"/c": made}):
        fs.compose("/c", pieces)
    with ledger.change({"/d": made}):
        fs.clone("/c", "/d")
    fs.mkdir("/t")
    with ledger.change({"/t/c": made, "/c": None}):
        fs.rename("/c", "/t/c")
    with ledger.change({"/u/c": made}):
        fs.clone("/t", "/u")
    with ledger.change({"/s": None}):
        fs.unlink("/s")
    with ledger.change({"/d": b"x", "/t/c": made}, {"/d": b""}):
        fs.write_bytes("/d", b"x")


def remove(volume: Volume, ledger: Ledger) -> None:
    fs = volume.files
    content = blob(2 * BLOCK, 9)
    for name in ("a", "b"):
        with ledger.change({f"/{name}": content}, {f"/{name}": b""}):
            fs.write_bytes(f"/{name}", content)
    with fs.open("/a", "rb") as file:
        with ledger.change({"/a": None}):
            fs.unlink("/a")
        assert file.pread(0, 10) == content[:10]
    volume.collect()
    with ledger.change({"/c": content}):
        fs.link("/b", "/c")
    with ledger.change({"/b": None}):
        fs.unlink("/b")
    with ledger.change({"/c": None}):
        fs.unlink("/c")
    volume.collect()


def compact_and_punch(volume: Volume, ledger: Ledger) -> None:
    fs, vfs = volume.files, volume.vfs
    want = b""
    for number in range(4):
        part = blob(BLOCK // 2, number)
        with ledger.change({"/f": want + part}, {"/f": want}), fs.open("/f", "ab") as file:
            file.write(part)
        want += part
    ino = fs.stat("/f").ino
    vfs.compact(ino, 0)
    volume.collect()
    fh = vfs.open(fs.who, ino, os.O_RDWR)
    try:
        punched = want[:1000] + bytes(70_000) + want[71_000:]
        with ledger.change({"/f": punched}):
            vfs.fallocate(fh, 3, 1000, 70_000)
        copied = punched + bytes(1000) + punched[500:5500]
        with ledger.change({"/f": copied}):
            vfs.copy_file_range(fh, 500, fh, len(punched) + 1000, 5000)
        with ledger.change({"/f": copied + bytes(10)}):
            vfs.fallocate(fh, 0, len(copied), 10)
    finally:
        vfs.release(fh)
    vfs.compact(ino, 0)
    volume.collect()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("story", [write_and_overwrite, publish, share, remove, compact_and_punch])
def test_no_step_loses_or_lies(story: Story, way: dict[str, Any]) -> None:
    assert sweep(story, **way) > 10
