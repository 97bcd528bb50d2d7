"""The cache on disk: checked reads, eviction, restarts, several processes on one directory, troubles of the disk."""

from __future__ import annotations

import errno
import logging
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crc32c import crc32c

from fscore.blocks.cache.disk import DiskCache
from fscore.blocks.store import BlockStore
from fscore.domain.errors import SettingError
from fscore.domain.keys import block_key
from fscore.objects.memory import MemoryStore
from fscore.runtime.clock import FakeClock
from fscore.runtime.metrics import Metrics

pytestmark = pytest.mark.usefixtures("no_thread_left")

UUID = "6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13"
SIZE = 100_000
Make = Callable[..., DiskCache]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[DiskCache] = []

    def new(**options: Any) -> DiskCache:
        options = {"limit": 1 << 30, "free_ratio": 0.0, **options}
        made.append(DiskCache(f"{tmp_path}/cache", UUID, **options))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


def key(number: int, size: int = SIZE) -> str:
    return block_key(number, 0, size)


def path_of(tmp_path: Path, number: int, size: int = SIZE) -> Path:
    return tmp_path / "cache" / UUID / "raw" / key(number, size)


@pytest.mark.parametrize("size", [1, 4, 32767, 32768, 32769, 65536, SIZE, (4 << 20)])
def test_blocks_come_back_by_any_range(make: Make, size: int) -> None:
    cache = make()
    data = os.urandom(size)
    cache.put(key(1, size), bytearray(data))
    rng = random.Random(size)
    ranges = [(0, size), (0, 1), (size - 1, 1), (0, min(size, 32768)), (size // 2, size - size // 2)]
    ranges += [(off := rng.randrange(size), rng.randrange(1, size - off + 1)) for _ in range(60)]
    for off, length in ranges:
        assert cache.get(key(1, size), off, length) == data[off : off + length], (off, length)
        buffer = bytearray(length)
        assert cache.get_into(key(1, size), off, memoryview(buffer)), (off, length)
        assert buffer == data[off : off + length], (off, length)
    assert cache.get(key(1, size), 0, size + 1) is None
    assert not cache.get_into(key(1, size), size, memoryview(bytearray(1)))
    assert cache.get(key(2, size), 0, 1) is None


def test_the_file_is_as_the_format_says(make: Make, tmp_path: Path) -> None:
    cache = make()
    data = os.urandom(40_000)
    cache.put(key(123456789, 40_000), data)
    stored = (tmp_path / f"cache/{UUID}/raw/chunks/123/123456/123456789_0_40000").read_bytes()
    sums = b"".join(crc32c(part).to_bytes(4, "big") for part in (data[:32768], data[32768:]))
    assert stored == data + sums


@pytest.mark.parametrize("at", [0, 50_000, SIZE - 1, SIZE, SIZE + 15])
def test_a_damaged_entry_is_dropped_and_counted(
    make: Make, tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    cache = make(metrics=metrics)
    cache.put(key(1), os.urandom(SIZE))
    path = path_of(tmp_path, 1)
    stored = bytearray(path.read_bytes())
    stored[at] ^= 1
    path.write_bytes(stored)
    with caplog.at_level(logging.ERROR):
        assert cache.get(key(1), 0, SIZE) is None
    assert metrics.get("cache.disk.corrupt") == 1
    assert not path.exists()
    assert not cache.contains(key(1))
    assert cache.used == 0


def test_damage_elsewhere_does_not_hurt_a_range(make: Make, tmp_path: Path) -> None:
    cache = make()
    data = os.urandom(SIZE)
    cache.put(key(1), data)
    path = path_of(tmp_path, 1)
    stored = bytearray(path.read_bytes())
    stored[0] ^= 1
    path.write_bytes(stored)
    assert cache.get(key(1), 40_000, 100) == data[40_000:40_100]
    assert cache.get(key(1), 100, 100) is None


@pytest.mark.parametrize("size", [0, 10, SIZE, SIZE + 15, SIZE + 17])
def test_a_file_of_a_wrong_length_is_dropped(make: Make, tmp_path: Path, size: int) -> None:
    cache = make()
    cache.put(key(1), os.urandom(SIZE))
    path = path_of(tmp_path, 1)
    path.write_bytes(bytes(size))
    assert not cache.get_into(key(1), 5, memoryview(bytearray(10)))
    assert not path.exists()


def test_the_store_fetches_a_damaged_block_again(make: Make, tmp_path: Path) -> None:
    cache = make()
    store = BlockStore(MemoryStore(), block_size=SIZE, cache=cache)
    data = os.urandom(2 * SIZE)
    writer = store.new_writer(1)
    writer.write(data)
    writer.finish()
    assert store.warm([(1, 2 * SIZE, 0, 2 * SIZE)]).fetched == 2 * SIZE
    path = path_of(tmp_path, 1)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert store.read(1, 2 * SIZE, 0, 2 * SIZE) == data
    assert store.cached_bytes([(1, 2 * SIZE, 0, 2 * SIZE)]) == 2 * SIZE
    assert path.read_bytes()[:SIZE] == data[:SIZE]
    store.close()


def test_least_recently_used_goes_first(make: Make) -> None:
    metrics = Metrics()
    each = SIZE + 16
    cache = make(limit=4 * each, metrics=metrics)
    for number in range(4):
        cache.put(key(number), bytes(SIZE))
    cache.get(key(0), 0, 10)
    cache.put(key(4), bytes(SIZE))
    cache.put(key(5), bytes(SIZE))
    assert [number for number in range(6) if cache.contains(key(number))] == [0, 3, 4, 5]
    assert cache.used == 4 * each
    assert metrics.get("cache.disk.evicted") == 2
    cache.put(key(6, 5 * SIZE), bytes(5 * SIZE))  # larger than the cache: not kept, and nothing is lost for it
    assert cache.used == 4 * each


def test_a_restart_finds_the_files_oldest_first(make: Make, tmp_path: Path) -> None:
    first = make()
    for number in range(5):
        first.put(key(number), bytes([number]) * SIZE)
        when = 1_700_000_000 + [3, 1, 4, 0, 2][number]
        os.utime(path_of(tmp_path, number), (when, when))
    first.close()
    again = make(limit=4 * (SIZE + 16))
    assert again.contains(key(2))
    assert again.used == 4 * (SIZE + 16)  # looked, and evicted the oldest
    assert [number for number in range(5) if again.contains(key(number))] == [0, 1, 2, 4]
    again.put(key(7), bytes(SIZE))
    assert [number for number in range(8) if again.contains(key(number))] == [0, 2, 4, 7]
    assert again.get(key(2), 0, 5) == b"\2" * 5


def test_stale_temporary_files_go_at_a_restart(make: Make, tmp_path: Path) -> None:
    make().put(key(1), bytes(SIZE))
    folder = path_of(tmp_path, 1).parent
    old, new = folder / "1_0_5.77-1.tmp", folder / "2_0_5.77-2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    assert make().used == SIZE + 16
    assert not old.exists()
    assert new.exists()


def test_what_another_process_writes_is_found_and_what_it_removes_is_missed(make: Make) -> None:
    ours, theirs = make(), make()
    theirs.put(key(1), b"x" * SIZE)
    assert ours.contains(key(1))
    assert ours.get(key(1), 5, 3) == b"xxx"
    theirs.drop(key(1))
    assert ours.get(key(1), 5, 3) is None
    assert not ours.contains(key(1))
    assert ours.used == 0


def test_several_processes_share_a_directory(make: Make, tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import random, sys
        from fscore.blocks.cache.disk import DiskCache
        from fscore.domain.keys import block_key
        seed = int(sys.argv[1])
        rng = random.Random(seed)
        cache = DiskCache({str(tmp_path / "cache")!r}, {UUID!r}, limit=12 * 50_000, free_ratio=0.0)
        hits = 0
        for _ in range(400):
            number = rng.randrange(30)
            key = block_key(number, 0, 40_000 + number)
            want = bytes([number]) * (40_000 + number)
            got = cache.get(key, 0, len(want))
            if got is None:
                cache.put(key, want)
            else:
                assert got == want, key
                hits += 1
            if rng.random() < 0.02:
                cache.drop(key)
        cache.close()
        print(hits)
    """)
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for seed in range(3)
    ]
    hits = []
    for process in running:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        assert b"damaged" not in err, err.decode()
        hits.append(int(out))
    assert min(hits) > 0
    left = [path for path in (tmp_path / "cache").rglob("*_0_*") if path.is_file()]
    assert left
    assert not [path for path in left if path.name.endswith(".tmp")]
    cache = make()
    for path in left:
        number = int(path.name.split("_")[0])
        assert cache.get(block_key(number, 0, 40_000 + number), 0, 1) == bytes([number])


def test_a_disk_low_on_space_is_left_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    cache = make(free_ratio=0.2, clock=clock)
    free = {"now": 500}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_frsize=4096, f_bavail=free["now"], f_blocks=1000))
    for number in range(20):
        cache.put(key(number), bytes(SIZE))
    full = cache.used
    free["now"] = 100
    clock.advance(2)
    cache.put(key(50), bytes(SIZE))  # not kept, and a tenth of ours goes
    assert not cache.contains(key(50))
    assert full * 0.8 <= cache.used <= full * 0.9
    free["now"] = 500
    clock.advance(2)
    cache.put(key(51), bytes(SIZE))
    assert cache.contains(key(51))


def test_a_full_disk_is_no_error_of_the_reader(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metrics = Metrics()
    cache = make(metrics=metrics)
    cache.put(key(1), bytes(SIZE))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        cache.put(key(2), bytes(SIZE))
    assert metrics.get("cache.disk.errors") == 1
    assert not cache.contains(key(2))
    assert [path.name for path in path_of(tmp_path, 1).parent.iterdir()] == [key(1).rsplit("/", 1)[1]]


def test_short_writes_and_reads_are_continued(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    data = os.urandom(SIZE)
    writev, preadv, write = os.writev, os.preadv, os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda fd, parts: writev(fd, [parts[0][:1000]]))
        patch.setattr(os, "write", lambda fd, part: write(fd, part[:30_000]))
        patch.setattr(os, "preadv", lambda fd, parts, off: preadv(fd, [parts[0][:7777]], off))
        cache.put(key(1), data)
        buffer = bytearray(SIZE - 10)
        assert cache.get_into(key(1), 5, memoryview(buffer))
    assert buffer == data[5:-5]


def test_a_directory_of_juicefs_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / UUID
    folder.mkdir(parents=True)
    (folder / ".lock").write_text(UUID)
    with pytest.raises(SettingError, match="belongs to a JuiceFS client"):
        DiskCache(f"{tmp_path}/cache", UUID, limit=1)
    with pytest.raises(SettingError, match="cannot be used"):
        DiskCache(f"{tmp_path}/cache/{UUID}/.lock", UUID, limit=1)


def test_a_block_whose_length_is_not_its_keys_is_not_kept(make: Make) -> None:
    cache = make()
    cache.put(key(1), bytes(SIZE - 1))
    cache.put("juicefs_uuid", b"x")
    assert not cache.contains(key(1))
    assert cache.used == 0


def test_a_peek_answers_from_open_files_only_and_checks_them(make: Make, tmp_path: Path) -> None:
    cache = make()
    data = os.urandom(SIZE)
    cache.put(key(1), data)
    assert cache.peek(key(1), 5, 100) is None, "nobody has opened it yet"
    assert cache.get(key(1), 0, 10) == data[:10]
    assert cache.peek(key(1), 33_000, 300) == data[33_000:33_300]
    assert cache.peek(key(1), SIZE - 5, 6) is None
    with path_of(tmp_path, 1).open("r+b") as file:
        file.seek(40_000)
        file.write(b"\0" if data[40_000] else b"\1")
    assert cache.peek(key(1), 39_000, 2000) is None
    assert cache.peek(key(1), 0, 100) == data[:100]
    assert cache.get(key(1), 39_000, 2000) is None
    assert not path_of(tmp_path, 1).exists()


def test_open_files_of_dropped_blocks_are_let_go(make: Make) -> None:
    ours, theirs = make(), make()
    ours.put(key(1), b"x" * SIZE)
    assert ours.get(key(1), 0, 1) == b"x"
    theirs.drop(key(1))
    assert ours.peek(key(1), 0, 1) is None
    for number in range(2, 40):
        ours.put(key(number), b"y" * SIZE)
        assert ours.get(key(number), 0, 1) == b"y"
    before = len(list(Path("/proc/self/fd").iterdir()))
    ours.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 38
