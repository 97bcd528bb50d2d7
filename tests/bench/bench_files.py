"""What the files floor costs above meta and blocks: creates, sequential write, reads from the cache."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fscore.admin.format import format_volume
from fscore.files.compose import Range
from fscore.volume import Volume, open_volume

MIB = 1 << 20
BARS = {"create": 3000.0, "write ratio": 0.8, "read ratio": 0.7}


def main() -> int:
    """Print the figures; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", default=None, help="where to put volumes")
    parser.add_argument("--mib", type=int, default=256, help="2 at least")
    parser.add_argument("--creates", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--redis", default="", help="META-URL of an empty Redis database")
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=args.dir))
    try:
        return _run(place, args)
    finally:
        shutil.rmtree(place)


def _run(place: Path, args: argparse.Namespace) -> int:
    missed = []
    urls = {"memory": "memory://bench", "sqlite": f"sqlite3://{place / 'meta.db'}"}
    if args.redis:
        urls["redis"] = args.redis
    for engine, url in urls.items():
        format_volume(url, f"bench-{engine}", bucket=str(place / engine), trash_days=0)
        with open_volume(url) as volume:
            for name, rate in creates(volume, args.creates).items():
                missed += _say(f"{engine}: {name}", rate, "files/s", BARS["create"] if "create" in name else 0)
    with open_volume(urls["sqlite"], memory_cache=2 * args.mib * MIB) as volume:
        write = _median(args.rounds, lambda number: write_ratio(volume, args.mib, number))
        missed += _say("sequential write, durable, against the block layer", write, "", BARS["write ratio"])
        read = _median(args.rounds, lambda _: read_ratio(volume, args.mib))
        missed += _say("sequential read from memory, against the block layer", read, "", BARS["read ratio"])
        for name, rate in reads(volume, args.mib).items():
            _say(name, rate, "MB/s", 0)
        _say("compose of shared ranges", composes(volume, args.mib), "files/s", 0)
    return 1 if missed else 0


def creates(volume: Volume, count: int) -> dict[str, float]:
    """Files made in one directory, one thread, each way of making them."""
    fs = volume.files
    rates = {}
    for top in ("/c", "/o"):
        fs.mkdir(top)
    ways: dict[str, Callable[[int], object]] = {
        "create(path)": lambda number: fs.create(f"/c/{number}"),
        'open(path, "xb").close(), a create too': lambda number: fs.open(f"/o/{number}", "xb").close(),
        "stat": lambda number: fs.stat(f"/o/{number}"),
        "rename": lambda number: fs.rename(f"/o/{number}", f"/o/r{number}"),
        "unlink": lambda number: fs.unlink(f"/o/r{number}"),
    }
    for name, act in ways.items():
        start = time.perf_counter()
        for number in range(count):
            act(number)
        rates[name] = count / (time.perf_counter() - start)
    return rates


def write_ratio(volume: Volume, mib: int, number: int) -> float:
    """Time of the block layer over time through an open file, 1 MiB a write, durable at the end."""
    piece = bytes(range(256)) * 4096

    def by_blocks() -> None:
        for start in range(0, mib, 64):
            writer = volume.blocks.new_writer(volume.meta.new_slice_id())
            for _ in range(min(64, mib - start)):
                writer.write(piece)
            writer.finish()

    def by_file() -> None:
        with volume.files.open(f"/w{number}", "wb") as file:
            for _ in range(mib):
                file.write(piece)

    return _timed(by_blocks) / _timed(by_file)


def read_ratio(volume: Volume, mib: int) -> float:
    """Time of the block layer over time through an open file, 1 MiB a read into one buffer, all in memory."""
    buffer = memoryview(bytearray(MIB))
    with volume.files.open("/w0") as file:
        ino = volume.files.stat("/w0").ino
        view = [(index, volume.meta.read(ino, index)[0]) for index in range(-(-mib // 64))]

        def by_blocks() -> None:
            for _, piece in view:
                for off in range(0, piece.length, MIB):
                    volume.blocks.read_into(piece.id, piece.size, off, buffer)

        def by_file() -> None:
            for at in range(mib):
                file.pread_into(at * MIB, buffer)

        by_blocks()
        return _timed(by_blocks) / _timed(by_file)


def reads(volume: Volume, mib: int) -> dict[str, float]:
    """Throughput by size of request, from memory."""
    rates = {}
    with volume.files.open("/w0") as file:
        for size in (4096, 128 << 10, MIB):
            buffer = memoryview(bytearray(size))
            total = min(mib * MIB, size * 4000)
            spent = _timed(lambda: [file.pread_into(at, buffer) for at in range(0, total, size)])  # noqa: B023
            rates[f"reads of {size >> 10} KiB from memory"] = total / spent / 1e6
    return rates


def composes(volume: Volume, mib: int) -> float:
    """Files of ten ranges of another file, per second."""
    count = 300
    pieces = [Range("/w0", at * 2 * MIB % ((mib - 1) * MIB), MIB) for at in range(10)]
    volume.files.mkdir("/composed")
    return count / _timed(lambda: [volume.files.compose(f"/composed/{number}", pieces) for number in range(count)])


def _median(rounds: int, measure: Callable[[int], float]) -> float:
    return statistics.median(measure(number) for number in range(rounds))


def _timed(body: Callable[[], object]) -> float:
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def _say(name: str, value: float, unit: str, bar: float) -> list[str]:
    fails = value < bar
    sys.stdout.write(
        f"{name:58s} {value:10,.2f} {unit:8s}{f'  bar {bar:,.1f}' if bar else ''}{'  MISSED' if fails else ''}\n"
    )
    return [name] if fails else []


if __name__ == "__main__":
    sys.exit(main())
