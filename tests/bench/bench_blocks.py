"""Blocks against the plain thing, as ratios of one run: push against a hashed copy, warm pull against `cp`.

    python tests/bench/bench_blocks.py [--size MIB] [--rounds N] [--dir DIR]
"""

from __future__ import annotations

import argparse
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


def timed(work: Callable[[], object]) -> float:
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-blocks-", dir=args.dir))
    try:
        run(work, args.size, args.rounds)
    finally:
        shutil.rmtree(work)


def run(work: Path, size: int, rounds: int) -> None:
    source = work / "source"
    with source.open("wb") as file:
        for _ in range(size // 4):
            file.write(os.urandom(PART))
    results: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        results.setdefault(name, []).append(size / 1024 * 1.073741824 / seconds)

    os.sync()
    for turn in range(rounds):
        note("hashed copy, synced", timed(lambda: hashed_copy(source, work / "copy")))
        (work / "copy").unlink()
        for durable in (True, False):
            objects = FileStore(f"{work}/objects-{turn}-{durable}/", durable=durable)
            store = BlockStore(objects, block_size=PART)
            note(f"push, durable={durable}", timed(lambda s=store: push(s, source, 1)))
            store.close()
            shutil.rmtree(f"{work}/objects-{turn}-{durable}")
    objects = FileStore(f"{work}/objects/")
    store = BlockStore(objects, block_size=PART, cache=open_cache(f"{work}/cache", "bench", memory_size=0))
    slices = push(store, source, 1)
    store.warm(slices)
    for _ in range(rounds):
        note("cp", timed(lambda: subprocess.run(["cp", source, work / "copy"], check=True)))
        (work / "copy").unlink()
        for workers in (1, 2):
            note(f"pull, warm disk cache, {workers} threads", timed(lambda n=workers: pull(store, slices, work / "pulled", n)))
            (work / "pulled").unlink()
        note("read, warm disk cache, 1 thread", timed(lambda: read(store, slices)))
    store.close()
    for name, values in results.items():
        print(f"{name:36} {statistics.median(values):6.2f} GB/s   {' '.join(f'{v:.2f}' for v in values)}")
    ratio = {name: statistics.median(values) for name, values in results.items()}
    print(f"push / hashed copy = {ratio['push, durable=True'] / ratio['hashed copy, synced']:.2f}   (bar 0.6)")
    print(f"pull / cp          = {ratio['pull, warm disk cache, 2 threads'] / ratio['cp']:.2f}   (bar 0.6)")


def read(store: BlockStore, slices: list[tuple[int, int]]) -> None:
    buffer = memoryview(bytearray(PART))
    for slice_id, size in slices:
        for off in range(0, size, PART):
            store.read_into(slice_id, size, off, buffer[: min(PART, size - off)])


if __name__ == "__main__":
    sys.exit(main())
