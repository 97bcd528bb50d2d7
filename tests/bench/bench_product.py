"""The product against the plain thing, as ratios of one run: push and pull of a model, creates, start time.

    python tests/bench/bench_product.py [--mib 300] [--rounds 5] [--dir DIR]

Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fscore.admin.format import format_volume
from fscore.hub.pull import pull
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.volume import Volume, open_volume
from fscore_airflow.demo.checkpoints import write_checkpoint

PART = 4 << 20
CREATES = 5000
BARS = {"push / hashed copy": 0.6, "warm pull / cp": 0.6, "creates/s sqlite": 3000.0, "creates/s redis": 3000.0}
MOST_IMPORT_S = 0.3


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def hashed_copy(source: Path, target: Path) -> None:
    """What any tool must do: read, md5, sha256, write, and make it durable."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        md5, sha = hashlib.md5(), hashlib.sha256()
        with path.open("rb", buffering=0) as reader, (target / path.name).open("wb", buffering=0) as writer:
            while data := reader.read(PART):
                md5.update(data)
                sha.update(data)
                writer.write(data)
            os.fdatasync(writer.fileno())


def new_volume(work: Path, name: str, **options: Any) -> Volume:
    """A fresh volume on SQLite and the file store."""
    url = f"sqlite3://{work}/{name}.db"
    format_volume(url, name, bucket=str(work / "blocks"))
    return open_volume(url, **options)


def bench_model(work: Path, mib: int, rounds: int) -> Iterator[tuple[str, float]]:
    """Push of new bytes against a hashed copy; pull from a warm disk cache against `cp -r`."""
    model = write_checkpoint(work / "model", "llama", nbytes=mib << 20)
    os.sync()
    pushes: list[float] = []
    copies: list[float] = []
    pulls: list[float] = []
    plain: list[float] = []
    for turn in range(rounds):
        copies.append(timed(lambda: hashed_copy(model, work / "copy")))
        shutil.rmtree(work / "copy")
        with new_volume(work, f"bench-{turn}") as volume:
            pushes.append(timed(functools.partial(push, volume, model, "bench/model", user="bench")))
    with new_volume(work, "warm", cache_dir=str(work / "cache")) as volume:
        push(volume, model, "bench/model", user="bench")
        Registry(volume).publish("bench/model@1", "bench")
        for turn in range(rounds + 1):
            seconds = timed(functools.partial(pull, volume, "bench/model@1", work / "pulled", verify=False))
            if turn:  # the first one fills the cache
                pulls.append(seconds)
            shutil.rmtree(work / "pulled")
            plain.append(timed(lambda: subprocess.run(["cp", "-r", model, work / "copy"], check=True)))
            shutil.rmtree(work / "copy")
    for name, found in (("copy", copies), ("push", pushes), ("cp", plain), ("pull", pulls)):
        print(f"{name:24} {min(found):10.3f} s  of {' '.join(f'{one:.3f}' for one in found)}")
    yield "push / hashed copy", min(copies) / min(pushes)
    yield "warm pull / cp", min(plain) / min(pulls)


def bench_creates(url: str, work: Path) -> float:
    """Creates a second in one directory, through the Python API, one thread."""
    format_volume(url, "creates", bucket=str(work / "creates"))
    with open_volume(url) as volume:
        volume.files.mkdir("/d")
        names = [f"/d/{number:05}" for number in range(CREATES)]
        return CREATES / timed(lambda: [volume.files.create(name) for name in names])


def bench_import() -> float:
    """Seconds of `import fscore` with what a program touches first, best of five."""
    code = "import time; t = time.perf_counter(); import fscore; fscore.open_volume; print(time.perf_counter() - t)"
    return min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in "12345"
    )


@contextmanager
def redis(work: Path) -> Iterator[str | None]:
    """A Redis of our own on a socket, or None where there is no redis-server."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    socket = work / "redis.sock"
    command = [
        binary,
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--dir",
        str(work),
        "--save",
        "",
        "--daemonize",
        "no",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not socket.exists():
            time.sleep(0.02)
        try:
            yield f"unix://{socket}?db=1"
        finally:
            process.terminate()


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-product-", dir=options.dir))
    try:
        found = dict(bench_model(work, options.mib, options.rounds))
        found["creates/s sqlite"] = bench_creates(f"sqlite3://{work}/creates.db", work / "sqlite")
        with redis(work) as url:
            if url:
                found["creates/s redis"] = bench_creates(url, work / "redis")
        spent = bench_import()
    finally:
        shutil.rmtree(work)
    missed = [name for name, value in found.items() if value < BARS[name]]
    for name, value in found.items():
        print(f"{name:24} {value:10.2f}   bar {BARS[name]:g}{'   MISSED' if name in missed else ''}")
    print(f"{'import fscore, s':24} {spent:10.3f}   bar {MOST_IMPORT_S}{'   MISSED' if spent > MOST_IMPORT_S else ''}")
    return 1 if missed or spent > MOST_IMPORT_S else 0


if __name__ == "__main__":
    sys.exit(main())
