"""Files created in process a second, empty and with a slice record: ours beside the official client's own mdtest.

    JUICEFS_BIN=/path/to/juicefs python tests/bench/bench_mdtest.py [--rounds 3] [--files 500]

Both make the same tree of 13 directories and put the same number of files into each, by path, on one thread; the
bytes are only said to be there. Each round gives both a fresh volume on the same Redis, and on SQLite, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fscore.admin.format import format_volume
from fscore.domain.caller import Caller
from fscore.domain.ids import ROOT
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from tests.kit.redis_server import BINARY, RedisServer

SAY = sys.stdout.write
WIDTH: Final = 3
DEPTH: Final = 2
BYTES: Final = 4096
WHO: Final = Caller.root()
RATE: Final = re.compile(r"Created \d+ files in .*\((\d+) files/s\)")


def folders(top: str, depth: int = DEPTH) -> list[str]:
    """The tree that mdtest makes: each directory before those below it."""
    found = [top]
    if depth:
        for number in range(WIDTH):
            found += folders(f"{top}/mdtest_tree.{number}", depth - 1)
    return found


def ours(url: str, files: int, size: int) -> float:
    """Files a second through MetaService: the parent is resolved, the file created, its record written."""
    service = MetaService.open(open_engine(url))
    try:
        service.mkdir(WHO, ROOT, b"t", 0o777)
        tree = folders("t/mdtest_tree.0")
        for folder in tree:
            above, _, name = folder.rpartition("/")
            service.mkdir(WHO, service.resolve(WHO, above.encode())[0], name.encode(), 0o777)
        start = time.perf_counter()
        for folder in tree:
            for number in range(files):
                parent, _ = service.resolve(WHO, folder.encode())
                ino, _ = service.create(WHO, parent, b"file.mdtest.0.%d" % number, 0o666)
                service.hold_file(ino)
                if size:
                    record = SliceRecord(0, service.new_slice_id(), size, 0, size)
                    service.write(ino, 0, [record], time.time_ns(), new_length=size)
                service.close_file(ino)
        return len(tree) * files / (time.perf_counter() - start)
    finally:
        service.close()


def official(binary: str, url: str, files: int, size: int) -> float:
    """Files a second as the official client's mdtest tells."""
    command = [binary, "mdtest", url, "/t", "--dirs", str(WIDTH), "--depth", str(DEPTH), "--files", str(files)]
    command += ["--write", str(size), "--threads", "1", "--no-usage-report", "--backup-meta", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found = RATE.search(done.stdout + done.stderr)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


def main() -> None:
    """Measure in turns; 1 when ours is slower than the official client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--files", type=int, default=500, help="in each of 13 directories")
    args = parser.parse_args()
    binary = os.environ.get("JUICEFS_BIN", "")
    missed = False
    with tempfile.TemporaryDirectory(prefix="bench-mdtest-") as name, contextlib.ExitStack() as stack:
        place = Path(name)
        engines = ["sqlite"]
        redis = RedisServer(place)
        if Path(BINARY).exists():
            redis.start()
            stack.callback(redis.stop)
            engines.insert(0, "redis")

        def fresh(engine: str) -> str:
            number = uuid.uuid4().hex
            url = redis.fresh_url() if engine == "redis" else f"sqlite3://{place}/{number}.db"
            format_volume(url, "bench", bucket=f"{place}/{number}/", trash_days=0)
            return url

        for engine in engines:
            for size, what in ((0, "empty"), (BYTES, "with a slice")):
                own: list[float] = []
                peer: list[float] = []
                for _ in range(args.rounds):
                    own.append(ours(fresh(engine), args.files, size))
                    if binary:
                        peer.append(official(binary, fresh(engine), args.files, size))
                missed |= _tell(engine, what, own, peer)
    sys.exit(int(missed))


def _tell(engine: str, what: str, ours: list[float], official: list[float]) -> bool:
    own = statistics.median(ours)
    SAY(f"{engine:<7} {what:<13} fscore {own:>7,.0f} files/s")
    if not official:
        SAY("; JUICEFS_BIN names no official client to compare with\n")
        return False
    peer = statistics.median(official)
    SAY(f", official {peer:>7,.0f}: {own / peer:.2f} (bar 1.0)\n")
    return own < peer


if __name__ == "__main__":
    main()
