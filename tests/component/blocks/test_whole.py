"""Whole files: right bytes or none, whatever is tampered with, missing, full, killed or evicted."""

from __future__ import annotations

import errno
import logging
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fscore.blocks.cache.whole.cache import WholeCache
from fscore.blocks.cache.whole.layout import Layout, Part
from fscore.blocks.cache.whole.record import CELL
from fscore.domain.errors import CorruptError, NotFound, UnavailableError
from fscore.runtime.clock import FakeClock
from fscore.runtime.metrics import Metrics
from tests.kit.wholes import LAYOUT, SLICE, assembled, content, load, opened, whole_cache

pytestmark = pytest.mark.usefixtures("no_thread_left")

Make = Callable[..., WholeCache]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[WholeCache] = []

    def new(*, home: Path = tmp_path, **options: Any) -> WholeCache:
        made.append(whole_cache(home, **options))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


def folder(tmp_path: Path) -> Path:
    return tmp_path / "whole" / str(len(SLICE))


def file_of(tmp_path: Path, suffix: str = ".bytes") -> Path:
    return folder(tmp_path) / (LAYOUT.key + suffix)


def test_a_file_is_filled_named_and_read(make: Make, tmp_path: Path) -> None:
    cache = make()
    assert cache.open(LAYOUT) is None
    assert not cache.might_hold(len(SLICE))
    file = assembled(cache)
    assert content(file) == SLICE
    assert file.read(CELL - 7, 20) == SLICE[CELL - 7 : CELL + 13]
    buffer = bytearray(999)
    file.read_into(len(SLICE) - 999, memoryview(buffer))
    assert buffer == SLICE[-999:]
    assert file.peek(5, 10) == SLICE[5:15]
    assert file_of(tmp_path).read_bytes() == SLICE
    assert sorted(path.name for path in folder(tmp_path).iterdir()) == [f"{LAYOUT.key}.bytes", f"{LAYOUT.key}.sums"]
    assert cache._shelf.used == len(SLICE)
    assert cache.assemble(LAYOUT, load) is None, "it lies there already"


def test_holes_are_zeros_and_take_no_room(make: Make, tmp_path: Path) -> None:
    length = 5 * CELL
    layout = Layout(length, [Part(CELL // 2, 1, len(SLICE), 100, 1000), Part(4 * CELL + 9, 1, len(SLICE), 0, 500)])
    cache = make()
    assembly = cache.assemble(layout, load)
    assert assembly is not None
    assembly.fill_all()
    want = bytearray(length)
    want[CELL // 2 : CELL // 2 + 1000] = SLICE[100:1100]
    want[4 * CELL + 9 : 4 * CELL + 509] = SLICE[:500]
    assert assembly.read(0, length) == want
    cache.flush()
    file = cache.open(layout)
    assert file is not None
    assert file.read(0, length) == want
    assert os.fstat(file.fd).st_blocks * 512 <= 2 * CELL
    assert cache.verify(layout.key, length)


def test_it_survives_a_restart(make: Make) -> None:
    first = make()
    assembled(first)
    first.close()
    second = make()
    file = second.open(LAYOUT)
    assert file is not None
    assert content(file) == SLICE
    second.flush()
    assert second._shelf.used == len(SLICE)


def test_readers_get_right_bytes_while_it_fills(make: Make) -> None:
    calls: list[int] = []
    lock = threading.Lock()

    def slow(slice_id: int, size: int, off: int, buffer: memoryview) -> None:
        with lock:
            calls.append(off)
        time.sleep(0.02)
        load(slice_id, size, off, buffer)

    cache = make()
    assembly = cache.assemble(LAYOUT, slow)
    assert assembly is not None
    assert assembly.peek(0, 10) is None
    wrong: list[int] = []

    def reader(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            at = rng.randrange(len(SLICE))
            n = rng.randrange(1, min(CELL + 9000, len(SLICE) - at) + 1)
            if assembly.read(at, n) != SLICE[at : at + n]:
                wrong.append(at)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(calls) == [0, CELL, 2 * CELL], "each cell was loaded once"
    file = opened(cache)
    assert file is not None
    assert content(file) == SLICE
    assert content(assembly) == SLICE


@pytest.mark.parametrize("error", [CorruptError("wrong"), NotFound("gone")])
def test_a_block_that_is_wrong_or_gone_ends_the_assembly(
    make: Make, tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(slice_id: int, size: int, off: int, buffer: memoryview) -> None:
        if off == CELL:
            raise error
        load(slice_id, size, off, buffer)

    metrics, clock = Metrics(), FakeClock()
    cache = make(metrics=metrics, clock=clock)
    assembly = cache.assemble(LAYOUT, broken)
    assert assembly is not None
    assert assembly.read(0, 100) == SLICE[:100]
    with pytest.raises(type(error)), caplog.at_level(logging.ERROR):
        assembly.fill_all()
    cache.flush()
    assert cache.open(LAYOUT) is None
    assert list(folder(tmp_path).iterdir()) == []
    assert metrics.get("cache.whole.failed") == 1
    assert cache._shelf.used == 0
    assert cache.assemble(LAYOUT, load) is None, "left alone for a while"
    clock.advance(100)
    assert content(assembled(cache)) == SLICE


@pytest.mark.parametrize("at", [0, CELL + 77, len(SLICE) - 1])
@pytest.mark.parametrize("times", ["new", "kept"])
def test_tampered_bytes_are_found_before_anybody_gets_them(
    make: Make, tmp_path: Path, at: int, times: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    first = make(metrics=metrics)
    assembled(first)
    path = file_of(tmp_path)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([SLICE[at] ^ 1]))
    if times == "kept":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with caplog.at_level(logging.CRITICAL):
        assert first.open(LAYOUT) is None
        first.flush()
    assert not path.exists()
    assert metrics.get("cache.whole.corrupt") == 1
    assert first._shelf.used == 0
    assert content(assembled(first)) == SLICE


@pytest.mark.parametrize("size", [0, len(SLICE) - 1, len(SLICE) + 1])
def test_a_wrong_length_is_never_served(
    make: Make, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make()
    assembled(cache)
    os.truncate(file_of(tmp_path), size)
    with caplog.at_level(logging.CRITICAL):
        assert cache.open(LAYOUT) is None
    assert not file_of(tmp_path).exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_without_its_record_a_file_is_nothing(
    make: Make, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make()
    assembled(cache)
    proof = file_of(tmp_path, ".sums")
    data = bytearray(proof.read_bytes())
    if damage == "gone":
        proof.unlink()
    elif damage == "cut":
        proof.write_bytes(data[:-1])
    else:
        data[40] ^= 1
        proof.write_bytes(data)
    with caplog.at_level(logging.CRITICAL):
        assert cache.open(LAYOUT) is None
    assert content(assembled(cache)) == SLICE


def test_a_copied_cache_is_believed_after_it_was_read_again(make: Make, tmp_path: Path) -> None:
    first = make()
    assembled(first)
    first.close()
    path = file_of(tmp_path)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    second = make()
    assert second.open(LAYOUT) is None
    second.flush()
    file = second.open(LAYOUT)
    assert file is not None
    assert content(file) == SLICE


def test_scrub_finds_what_the_times_do_not_tell(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = make()
    assembled(cache)
    assert cache.scrub() == 0
    cache.scrub_next()
    cache.scrub_next()
    assert list(cache.files()) == [(LAYOUT.key, len(SLICE))]
    with file_of(tmp_path).open("r+b") as file:
        file.seek(CELL)
        file.write(b"not what it was")
    with caplog.at_level(logging.CRITICAL):
        assert cache.scrub() == 1
        assert list(cache.files()) == []
        assembled(cache)
        with file_of(tmp_path).open("r+b") as file:
            file.write(b"wrong again")
        for _ in range(3):
            cache.scrub_next()
    assert list(cache.files()) == []


def test_an_open_file_outlives_its_name(make: Make, tmp_path: Path) -> None:
    ours, theirs = make(), make()
    file = assembled(ours)
    ours._shelf.evict(0)
    assert file_of(tmp_path).exists(), "it is open here: nothing would be gained"
    theirs.flush()
    theirs._shelf.learn([(f"whole/{len(SLICE)}/{LAYOUT.key}", len(SLICE))], theirs._folder.remove)
    theirs._shelf.evict(0)
    assert not file_of(tmp_path).exists()
    assert content(file) == SLICE
    assert ours.open(LAYOUT) is None
    del file
    again = assembled(ours)
    name = f"whole/{len(SLICE)}/{LAYOUT.key}"
    assert name in ours._shelf
    del again
    ours._shelf.evict(0)
    assert not file_of(tmp_path).exists()
    assert ours._shelf.used == 0


def test_least_recently_used_goes_first_and_room_is_made(make: Make, tmp_path: Path) -> None:
    cache = make(limit=3 * len(SLICE) // 2)
    assembled(cache)
    other = Layout(len(SLICE), [Part(0, 1, len(SLICE), 0, len(SLICE) - 1)])
    assembly = cache.assemble(other, load)
    assert assembly is not None
    assert not file_of(tmp_path).exists(), "room was made before the first byte came"
    assembly.fill_all()
    cache.flush()
    assert cache.open(other) is not None
    assert make(limit=len(SLICE) - 1).assemble(LAYOUT, load) is None, "larger than the whole cache"


def test_a_disk_that_is_nearly_full_is_left_alone(make: Make) -> None:
    cache = make(free_ratio=1.0)
    assert cache.assemble(LAYOUT, load) is None
    assert cache._shelf.used == 0


def test_a_full_disk_costs_the_reader_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    cache = make(metrics=metrics)
    pwrite = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        if offset >= CELL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    assembly = cache.assemble(LAYOUT, load)
    assert assembly is not None
    with caplog.at_level(logging.ERROR):
        assert content(assembly) == SLICE
        cache.flush()
    assert cache.open(LAYOUT) is None
    assert list(folder(tmp_path).iterdir()) == []
    assert metrics.get("cache.whole.failed") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem")
def test_a_disk_that_fills_up_for_real(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2 * CELL}", "tmpfs", str(small)], check=True)
    try:
        cache = make(home=small)
        cache._shelf._short_of = lambda size: 0  # type: ignore[method-assign]  # it sees the disk's end too late
        assembly = cache.assemble(LAYOUT, load)
        assert assembly is not None
        with caplog.at_level(logging.ERROR):
            assert content(assembly) == SLICE
            cache.flush()
        assert cache.open(LAYOUT) is None
        left = list((small / "whole" / str(len(SLICE))).iterdir())
        del assembly
        cache.close()
        assert left == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_of_two_processes_one_fills_and_both_use_it(make: Make) -> None:
    ours, theirs = make(), make()
    assembly = ours.assemble(LAYOUT, load)
    assert assembly is not None
    assert ours.assemble(LAYOUT, load) is assembly
    assert theirs.assemble(LAYOUT, load) is None
    assert theirs.open(LAYOUT) is None
    assembly.fill_all()
    file = opened(theirs)
    assert file is not None
    assert content(file) == SLICE


def test_what_readers_leave_half_full_is_filled_and_the_rest_let_go(make: Make, tmp_path: Path) -> None:
    cache = make()
    assembly = cache.assemble(LAYOUT, load)
    assert assembly is not None
    assembly.read(0, 10)
    cache.leave(assembly, 10)
    cache.flush()
    assert list(folder(tmp_path).iterdir()) == []
    assert cache._shelf.used == 0
    assembly = cache.assemble(LAYOUT, load)
    assert assembly is not None
    assembly.read(0, CELL + 10)
    cache.leave(assembly, CELL + 10)
    assert opened(cache) is not None
    again = cache.assemble(LAYOUT, load)
    assert again is None


def test_what_ended_loads_no_cell_for_a_reader_any_more(make: Make) -> None:
    cache, loads = make(), []

    def counted(slice_id: int, size: int, off: int, buffer: memoryview) -> None:
        loads.append(off)
        load(slice_id, size, off, buffer)

    assembly = cache.assemble(LAYOUT, counted)
    assert assembly is not None
    assert assembly.read(0, 10) == SLICE[:10]
    assembly.flush()
    assembly.fail("the disk is full")
    assert assembly.read(5, 10) == SLICE[5:15], "what is there is given"
    for at in range(CELL, CELL + 1000, 100):
        with pytest.raises(UnavailableError):
            assembly.read(at, 100)
    assert loads == [0]
    assert cache.assemble(LAYOUT, load) is None


def test_of_two_users_the_last_who_leaves_lets_it_go(make: Make) -> None:
    cache = make()
    one, two = cache.assemble(LAYOUT, load), cache.assemble(LAYOUT, load)
    assert one is not None
    assert one is two
    cache.leave(one, 0)
    assert not one.failed
    assert content(one) == SLICE
    cache.leave(one, 0)
    assert opened(cache) is not None, "it was filled by more than half"
    third = Layout(CELL, [Part(0, 1, len(SLICE), 7, CELL)])
    other, again = cache.assemble(third, load), cache.assemble(third, load)
    assert other is not None
    assert other is again
    cache.leave(other, 0)
    assert not other.failed
    cache.leave(other, 0)
    assert other.failed
