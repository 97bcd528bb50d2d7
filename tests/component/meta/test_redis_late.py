"""What comes late: a transaction that its client gave up long ago, a greeting while numbers are taken."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.engines.redis.link import Answer, Command
from fscore.meta.service import MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.bodies import bump, create
from tests.kit.redis_server import CutLink

pytestmark = pytest.mark.redis


class StalledLink(CutLink):
    """A real link that keeps a transaction back in the network, and tells its client that nobody answers."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.stall = False
        self.late: list[Callable[[], list[Answer]]] = []

    def _trip(self, commands: Sequence[Command]) -> list[Answer]:
        if not self.stall:
            return super()._trip(commands)
        self.late.append(lambda: super(StalledLink, self)._trip(commands))
        raise UnavailableError("nobody answers")


@pytest.fixture
def stalled(redis_engine: RedisEngine, redis_url: str) -> Iterator[tuple[RedisEngine, StalledLink]]:
    """A client whose transactions can be kept back, with its scripts known to the server."""
    link = StalledLink(redis_url)
    client = RedisEngine(link, Keys())
    client.transact(create(b"warm", 50))
    yield client, link
    client.close()


def links(engine: RedisEngine) -> int:
    """Links of the root."""
    with engine.view() as view:
        root = view.node(1)
    assert root is not None
    return root.nlink


def test_a_late_transaction_does_not_undo_the_mark_of_the_next(
    stalled: tuple[RedisEngine, StalledLink],
) -> None:
    """A is given up; B takes its mark and is done, unheard; A arrives after all; B, sent again, is known as done."""
    client, link = stalled
    link.stall = True
    with pytest.raises(UnavailableError):
        client.transact(lambda txn: txn.put_symlink(7, b"late"))
    link.stall = False

    def late() -> None:
        for trip in link.late:
            trip()

    link.cut_next("after", late)
    client.transact(lambda txn: txn.add_usage(4096, 1))
    with client.view() as view:
        assert view.usage().inodes == 2
        assert view.symlink(7) is None
    client.transact(bump)
    assert links(client) == 3


def test_a_late_transaction_that_nobody_followed_happens_once(stalled: tuple[RedisEngine, StalledLink]) -> None:
    client, link = stalled
    link.stall = True
    with pytest.raises(UnavailableError):
        client.transact(lambda txn: txn.add_usage(4096, 1))
    link.stall = False
    for trip in link.late * 2:
        trip()
    with client.view() as view:
        assert view.usage().inodes == 2
    client.transact(lambda txn: txn.add_usage(4096, 1))
    with client.view() as view:
        assert view.usage().inodes == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_statistics_that_were_cut_are_counted_anew(redis_url: str, when: Literal["before", "after"]) -> None:
    """The answer to a flush is lost, and with it whether anything was added; a count too large is never negative."""
    link, clock = CutLink(redis_url), FakeClock()
    engine = RedisEngine(link, Keys())
    MetaService.format(engine, Setting(name="late", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13"), clock)
    with MetaService.open(engine, clock, background=False) as service:
        folder, _ = service.mkdir(Caller.root(), ROOT, b"folder", 0o755)
        service.flush()
        service.create(Caller.root(), folder, b"one", 0o644)
        link.cut_next(when)
        service.flush_stats()
        assert engine.dir_stat(folder) == ((0, 4096, 1) if when == "after" else (0, 0, 0))
        service.create(Caller.root(), folder, b"two", 0o644)
        service.flush_stats()
        assert engine.dir_stat(folder) == (0, 8192, 2)


def test_a_new_master_is_greeted_while_another_thread_takes_its_first_number(redis_engine: RedisEngine) -> None:
    """The greeting names every counter that was taken from, and these become more meanwhile."""
    redis_engine._reserved.update({b"%d" % number: 1 for number in range(20_000)})
    over = threading.Event()

    def take() -> None:
        number = 0
        while not over.is_set():
            redis_engine._reserved[b"more-%d" % (number := number + 1)] = 1
            redis_engine._reserved.pop(b"more-%d" % (number - 100), None)

    taker = threading.Thread(target=take)
    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    taker.start()
    try:
        greetings = [redis_engine._greet() for _ in range(20)]
    finally:
        sys.setswitchinterval(patience)
        over.set()
        taker.join()
    assert all(len(greeting) >= 20_000 for greeting in greetings)
