"""Blocks against the plain thing, as ratios of one run: push against a hashed copy, warm pull against `cp`.

    python tests/bench/bench_blocks.py [--size MIB] [--rounds N] [--dir DIR]

Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fscore.blocks.cache.tiers import open_cache
from fscore.blocks.store import BlockStore
from fscore.domain.geometry import CHUNK
from fscore.objects.file import FileStore

PART = 4 << 20
BAR = 0.6
COPY, PUSH = "hashed copy, synced", "push, durable"
CP, PULL = "cp", "pull, warm disk cache, 2 threads"


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def hashed_copy(source: Path, target: Path) -> None:
    """md5 + sha256 + write in one loop, then the same durability as a put: file and directory synced."""
    md5, sha = hashlib.md5(), hashlib.sha256()
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while data := reader.read(PART):
            md5.update(data)
            sha.update(data)
            writer.write(data)
        os.fdatasync(writer.fileno())
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def push(store: BlockStore, source: Path, first: int) -> list[tuple[int, int]]:
    """The same bytes hashed the same way, into slices."""
    md5, sha = hashlib.md5(), hashlib.sha256()
    slices = []
    with source.open("rb", buffering=0) as reader:
        writer = store.new_writer(first)
        while data := reader.read(PART):
            if writer.size == CHUNK:
                slices.append(writer)
                writer = store.new_writer(first + len(slices))
            writer.write(data)
            md5.update(data)
            sha.update(data)
        slices.append(writer)
    return [(writer.slice_id, writer.finish()) for writer in slices]


def pull(store: BlockStore, slices: list[tuple[int, int]], target: Path, workers: int = 2) -> None:
    """Slices into a file, from whatever tier has them."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def copy(number: int) -> None:
        buffer = memoryview(bytearray(PART))
        slice_id, size = slices[number]
        for off in range(0, size, PART):
            part = buffer[: min(PART, size - off)]
            store.read_into(slice_id, size, off, part)
            os.pwrite(fd, part, number * CHUNK + off)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(copy, range(len(slices))))
    os.close(fd)


def run(work: Path, size: int, rounds: int) -> dict[str, float]:
    """Every measurement, interleaved; the medians in GB/s by name."""
    source = work / "source"
    with source.open("wb") as file:
        for _ in range(size // 4):
            file.write(os.urandom(PART))
    results: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], object]) -> None:
        results.setdefault(name, []).append(size / 1024 * 1.073741824 / timed(work))

    os.sync()
    for turn in range(rounds):
        note(COPY, lambda: hashed_copy(source, work / "copy"))
        (work / "copy").unlink()
        for name, durable in ((PUSH, True), ("push, not durable", False)):
            folder = f"{work}/objects-{turn}-{durable}/"
            store = BlockStore(FileStore(folder, durable=durable), block_size=PART)
            note(name, functools.partial(push, store, source, 1))
            store.close()
            shutil.rmtree(folder)
    cache, _ = open_cache(f"{work}/cache", "bench", memory_size=0)
    store = BlockStore(FileStore(f"{work}/objects/"), block_size=PART, cache=cache)
    slices = push(store, source, 1)
    store.warm([(number, size, 0, size) for number, size in slices])
    for _ in range(rounds):
        note(CP, lambda: subprocess.run(["cp", source, work / "copy"], check=True))
        (work / "copy").unlink()
        for name, workers in ((PULL, 2), ("pull, warm disk cache, 1 thread", 1)):
            note(name, functools.partial(pull, store, slices, work / "pulled", workers))
            (work / "pulled").unlink()
        note("read, warm disk cache, 1 thread", lambda: read(store, slices))
    store.close()
    for name, values in results.items():
        print(f"{name:32} {statistics.median(values):6.2f} GB/s   {' '.join(f'{v:.2f}' for v in values)}")
    return {name: statistics.median(values) for name, values in results.items()}


def read(store: BlockStore, slices: list[tuple[int, int]]) -> None:
    """Every block into one buffer."""
    buffer = memoryview(bytearray(PART))
    for slice_id, size in slices:
        for off in range(0, size, PART):
            store.read_into(slice_id, size, off, buffer[: min(PART, size - off)])


def puts(work: Path) -> None:
    """What durability costs one object of the file store, alone and with others waiting for the same directory."""
    for size, count in ((4096, 200), (PART, 32)):
        data = os.urandom(size)
        for durable in (True, False):
            for workers in (1, 8):
                folder = f"{work}/puts/"
                store = FileStore(folder, durable=durable)

                def put(number: int, store: FileStore = store, data: bytes = data) -> None:
                    store.put(f"chunks/0/0/{number}_0_{len(data)}", data)

                with ThreadPoolExecutor(workers) as pool:
                    seconds = timed(
                        functools.partial(lambda pool, put, n: list(pool.map(put, range(n))), pool, put, count)
                    )
                shutil.rmtree(folder)
                print(
                    f"put of {size} bytes, durable={durable}, {workers} at a time: {seconds / count * 1e3:.2f} ms each"
                )


def main() -> int:
    """Measure, print, and say whether the bars are met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-blocks-", dir=args.dir))
    try:
        puts(work)
        medians = run(work, args.size, args.rounds)
    finally:
        shutil.rmtree(work)
    ratios = {"push / hashed copy": medians[PUSH] / medians[COPY], "warm pull / cp": medians[PULL] / medians[CP]}
    for name, ratio in ratios.items():
        print(f"{name} = {ratio:.2f}, bar {BAR}{'' if ratio >= BAR else ': MISSED'}")
    return int(any(ratio < BAR for ratio in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
