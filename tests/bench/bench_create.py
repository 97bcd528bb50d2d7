"""Creates per second through `MetaService.create`, per engine, on one thread.

    python tests/bench/bench_create.py [--count 5000] [--rounds 3] [--profile] [META-URL ...]

Without URLs: memory, SQLite in a temporary directory, and servers of its own, as far as they are installed: Redis, with
its round trips a create, PostgreSQL and MariaDB, which write a commit to the system and leave the syncing to it.
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
from tests.kit.mariadb import MariadbServer, program
from tests.kit.postgres import PostgresServer, programs
from tests.kit.redis_server import BINARY, RedisServer

SAY = sys.stdout.write
BARS = {"memory": 3000, "sqlite3": 3000, "unix": 3000, "redis": 3000}
"""Creates a second that memory, SQLite and a local Redis must reach."""


@contextlib.contextmanager
def places() -> Iterator[list[str]]:
    """META-URLs of one empty volume an engine."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fscore-bench-")))
        place.chmod(0o755)
        urls = [f"memory://{uuid.uuid4().hex}", f"sqlite3://{place}/meta.db"]
        if Path(BINARY).exists():
            redis = RedisServer(place)
            redis.start()
            stack.callback(redis.stop)
            urls.append(redis.fresh_url())
        made: list[PostgresServer | MariadbServer] = []
        for name, found in (("postgres", programs()), ("mariadb", program("mariadbd"))):
            if found:
                (place / name).mkdir()
                made.append(
                    PostgresServer(place / name, "fsync=off")
                    if name == "postgres"
                    else MariadbServer(place / name, "--innodb-flush-log-at-trx-commit=2")
                )
        for server in made:
            server.start()
            stack.callback(server.stop)
            urls.append(server.url(server.create()))
        yield urls


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
            kind = url.partition(":")[0]
            bar = BARS.get(kind, 0)
            missed |= rate < bar
            SAY(f"{kind:<8} {rate:>8,.0f} creates/s{'' if rate >= bar else f', the bar is {bar:,}'}\n")
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
