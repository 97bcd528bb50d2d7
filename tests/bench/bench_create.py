"""Creates per second through `MetaService.create`, per engine, on one thread.

    python tests/bench/bench_create.py [--count 5000] [--rounds 3] [--profile] [META-URL ...]

Without URLs: memory, SQLite in a temporary directory, and a redis-server of its own, with its round trips a create.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import pstats
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fscore.domain.caller import Caller
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import MetaService
from fscore.runtime.clock import SystemClock
from tests.kit.redis_server import BINARY, RedisServer

SAY = sys.stdout.write
BAR = 3000
"""Creates a second that SQLite and a local Redis must reach."""


@contextlib.contextmanager
def places() -> Iterator[list[str]]:
    """META-URLs of one empty volume an engine."""
    with tempfile.TemporaryDirectory(prefix="fscore-bench-") as place:
        urls = [f"memory://{uuid.uuid4().hex}", f"sqlite3://{place}/meta.db"]
        if not Path(BINARY).exists():
            yield urls
            return
        server = RedisServer(Path(place))
        server.start()
        try:
            yield [*urls, server.fresh_url()]
        finally:
            server.stop()


def creates(url: str, count: int, *, profile: bool) -> float:
    """Creates a second of `count` empty files in a new directory of the volume at `url`, made if it is not there."""
    clock = SystemClock()
    engine = open_engine(url)
    if engine.load_setting() is None:
        MetaService.format(engine, Setting(name="bench", uuid=str(uuid.uuid4()), trash_days=1), clock)
    service = MetaService.open(engine, clock)
    who = Caller.root()
    folder, _ = service.mkdir(who, ROOT, uuid.uuid4().hex.encode(), 0o755)
    trips = engine.round_trips if isinstance(engine, RedisEngine) else 0
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    start = time.perf_counter()
    for number in range(count):
        service.create(who, folder, b"file-%d" % number, 0o644)
    seconds = time.perf_counter() - start
    if profiler:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    if isinstance(engine, RedisEngine):
        SAY(f"  {(engine.round_trips - trips) / count:.2f} round trips a create\n")
    service.close()
    engine.close()
    return count / seconds


def main() -> None:
    """Measure every engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="*", metavar="META-URL")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="the best counts")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    missed = False
    with contextlib.ExitStack() as stack:
        for url in options.urls or stack.enter_context(places()):
            rate = max(creates(url, options.count, profile=options.profile) for _ in range(options.rounds))
            missed |= rate < BAR
            SAY(f"{url.partition(':')[0]:<8} {rate:>8,.0f} creates/s{'' if rate >= BAR else f', the bar is {BAR:,}'}\n")
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
