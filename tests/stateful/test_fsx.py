"""fsx in process: a few files changed at random against byte arrays, with compaction and deletion going on.

Lists of two records are compacted already, and dead slices deleted twenty times a second, so that whatever a copy, a
truncation or a reader does not watch is lost here. One client, or two that take turns as close-to-open allows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fscore.runtime.threads import Pool
from fscore.vfs.compaction import Thresholds
from fscore.volume import Volume
from tests.kit.engines import REDIS_GROUPS, SQL_SERVERS, fresh_url
from tests.kit.fsx import BORDER, IN_PROCESS, run
from tests.kit.vfs_files import OpenFiles
from tests.kit.volumes import MakeVolume, assert_sound

TWO_DAYS_NS = 2 * 86_400 * 1_000_000_000
EAGER = Thresholds(read=2, write=3, force=40)
OPTIONS: dict[str, Any] = {
    "background": True,
    "heartbeat_s": 0,
    "compact": EAGER,
    "cache_s": 0.0,
    "patience_s": (0.0, 0.01, 0.1, 1.0),
}


class Rubbish:
    """Deletes dead slices all the time, on a thread of its own."""

    def __init__(self, clients: Sequence[Volume]) -> None:
        self._clients = clients
        self._stop = threading.Event()
        self._pool = Pool("rubbish", 1)
        self._run = self._pool.submit(self._collect)

    def _collect(self) -> int:
        deleted = rounds = 0
        while not self._stop.wait(0.05):
            rounds += 1
            if rounds % 50 == 0:  # what compaction parked would fill the disk: let two days pass
                self._clients[0].meta.purge_delayed(time.time_ns() + TWO_DAYS_NS, gated=False)
            deleted += sum(client.collect().slices for client in self._clients)
        return deleted

    def stop(self) -> int:
        """Slices deleted; raises what went wrong."""
        self._stop.set()
        try:
            return self._run.result()
        finally:
            self._pool.close()


def play(clients: Sequence[Volume], seed: int, ops: int, origin: int) -> None:
    """One history, then every byte again by a client that knows nothing, and fsck."""
    subject = OpenFiles(clients, files=2)
    rubbish = Rubbish(clients)
    try:
        run(subject, seed=seed, ops=ops, origin=origin, kinds=IN_PROCESS)
        subject.close()
    finally:
        deleted = rubbish.stop()
    for client in clients:
        client.vfs.drain()
        client.collect()
    if clients[0].setting.trash_days == 0:
        assert deleted, "nothing was compacted or cut: this history proves nothing"
    longest = max(len(records) for _, _, records in clients[0].meta.engine.scan_chunks())
    assert longest < ops // 4, "lists grew as if nothing had been compacted"


@pytest.mark.parametrize("trash_days", [0, 1])
@pytest.mark.parametrize(("count", "origin"), [(1, 0), (1, BORDER), (2, 0)])
def test_random_changes_are_what_a_byte_array_says(
    make_volume: MakeVolume, count: int, origin: int, trash_days: int
) -> None:
    clients = [make_volume(setting={"trash_days": trash_days}, **OPTIONS) for _ in range(count)]
    play(clients, seed=count + trash_days, ops=700, origin=origin)
    assert_sound(clients[0])


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """META-URL of an empty place on the engine that the test names; it outlives the volumes that are opened there."""
    return fresh_url(request.param, request, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("trash_days", [0, 1])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("place", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
def test_a_hundred_thousand_changes(place: str, seed: int, trash_days: int, open_at: MakeVolume) -> None:
    clients = [open_at(place, setting={"trash_days": trash_days}, **OPTIONS) for _ in range(1 + seed % 2)]
    play(clients, seed=seed, ops=100_000, origin=BORDER if seed % 3 == 1 else 0)
    assert_sound(clients[0])


@pytest.mark.nightly
@pytest.mark.parametrize("trash_days", [0, 1])
@pytest.mark.parametrize("place", [*REDIS_GROUPS, *SQL_SERVERS], indirect=True)
def test_ten_thousand_changes_on_servers(place: str, trash_days: int, open_at: MakeVolume) -> None:
    clients = [open_at(place, setting={"trash_days": trash_days}, **OPTIONS) for _ in range(2)]
    play(clients, seed=trash_days, ops=10_000, origin=0)
    assert_sound(clients[0])
