"""The master is killed with -9 under load: callers see a pause and no error, and nothing that was acknowledged is lost.

`wait-replicas` is part of the URL, because replication is asynchronous: without it Redis itself may forget what it
acknowledged in its last moments; what remains is then older, and still whole. One replica is enough for a master that
dies. One that only hung may wake and go on with a replica that nobody told yet: then it must be all of them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from fscore.domain.caller import Caller
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.redis.engine import open_redis
from fscore.meta.service import MetaService, RenameFlag
from fscore.runtime.clock import SystemClock
from tests.kit.invariants import check_engine
from tests.kit.redis_groups import ClusterGroup, Group, SentinelGroup, running, until

pytestmark = [pytest.mark.redis, pytest.mark.xdist_group("redis-failover")]

WHO: Final = Caller.root()
SETTING: Final = Setting(name="failover", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=1)
BEFORE_S: Final = 0.7
AFTER: Final = 150
"""Operations that each thread does on the new master."""

Known = dict[bytes, tuple[int, int]]


@pytest.fixture(params=[SentinelGroup, ClusterGroup], ids=["sentinel", "cluster"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group of its own, which may be harmed."""
    with running(request.param) as started:
        yield started


class Worker:
    """One thread that changes a directory which it shares, and knows what must be there: name -> (inode, length)."""

    def __init__(self, service: MetaService, folder: int, name: bytes, rng: random.Random) -> None:
        self.known: Known = {}
        self.done = 0
        self.longest_s = 0.0
        self.errors: list[Exception] = []
        self._service, self._folder, self._name, self._rng = service, folder, name, rng

    def run(self, over: Callable[[], bool]) -> None:
        """Work until it is over, or something fails."""
        try:
            while not over():
                start = time.monotonic()
                self._step()
                self.longest_s = max(self.longest_s, time.monotonic() - start)
                self.done += 1
        except Exception as error:  # noqa: BLE001 - the main thread looks at it
            self.errors.append(error)

    def _step(self) -> None:
        service, fresh = self._service, b"%b-%d" % (self._name, self.done)
        old = self._rng.choice(list(self.known)) if self.known else b""
        deed = self._rng.randrange(6) if old else 0
        if deed < 2:
            ino, _ = service.create(WHO, self._folder, fresh, 0o644)
            self.known[fresh] = (ino, 0)
        elif deed == 2:
            ino, length = self.known[old]
            slice_id = service.new_slice_id()
            attr = service.write(ino, 0, [SliceRecord(length, slice_id, 100, 0, 100)], 1, new_length=length + 100)
            assert attr.length == length + 100
            self.known[old] = (ino, length + 100)
        elif deed == 3:
            service.rename(WHO, self._folder, old, self._folder, fresh)
            self.known[fresh] = self.known.pop(old)
        elif deed == 4:
            service.unlink(WHO, self._folder, old, skip_trash=self._rng.random() < 0.5)
            del self.known[old]
        elif len(self.known) > 1:
            other = self._rng.choice([name for name in self.known if name != old])
            service.rename(WHO, self._folder, old, self._folder, other, flags=RenameFlag.EXCHANGE)
            self.known[old], self.known[other] = self.known[other], self.known[old]


def load(group: Group, url: str, service: MetaService, *, hangs: bool) -> list[Worker]:
    """Two threads work while the master is killed, or hangs, and go on until each has done enough on the new one.

    The old one comes back as a replica, for which `wait-replicas` waits.
    """
    folder, _ = service.mkdir(WHO, ROOT, b"shared", 0o755)
    workers = [Worker(service, folder, b"w%d" % n, random.Random(n)) for n in range(2)]
    killed = threading.Event()
    enough = [0, 0]

    def over(number: int) -> Callable[[], bool]:
        def check() -> bool:
            if not killed.is_set():
                enough[number] = workers[number].done + AFTER
            return workers[number].done >= enough[number]

        return check

    threads = [threading.Thread(target=worker.run, args=(over(n),)) for n, worker in enumerate(workers)]
    for thread in threads:
        thread.start()
    time.sleep(BEFORE_S)
    master = group.master_of(url)
    (group.hang if hangs else group.kill)(master)
    killed.set()
    until("there is a new master", lambda: group.master_of(url) != master)
    (group.wake if hangs else group.revive)(master)
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    return workers


@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["killed", "hung"])
def test_a_master_lost_under_load_costs_a_pause(group: Group, *, hangs: bool) -> None:
    everywhere = 2 if isinstance(group, SentinelGroup) else 1
    url = f"{group.fresh_url()}?wait-replicas={everywhere if hangs else 1}"
    engine = open_redis(url)
    MetaService.format(engine, SETTING, SystemClock())
    service = MetaService.open(engine, SystemClock(), heartbeat_s=1.0)
    try:
        workers = load(group, url, service, hangs=hangs)
        assert [worker.errors for worker in workers] == [[], []]
        pause = max(worker.longest_s for worker in workers)
        assert 0.3 < pause < 30, "the master was really away, and not for long"
        assert all(worker.done > AFTER for worker in workers)
    finally:
        service.close()
    engine = open_redis(url)
    with MetaService.open(engine, SystemClock(), background=False) as after:
        folder, _ = after.lookup(WHO, ROOT, b"shared")
        found = {entry.name: (entry.ino, entry.attr.length) for entry in after.readdir(WHO, folder) if entry.attr}
        assert found == workers[0].known | workers[1].known
        for ino, length in found.values():
            records = after.records(ino, 0)
            assert [record.pos for record in records] == list(range(0, length, 100)), "no write is missing or doubled"
        after.flush()
        assert check_engine(engine, stats=False) == []
