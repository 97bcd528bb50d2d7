"""fsx in process: a few files changed at random against byte arrays, with compaction and deletion going on.

Lists of two records are compacted already, and dead slices deleted twenty times a second, so that whatever a copy, a
truncation or a reader does not watch is lost here. One client, or two that take turns as close-to-open allows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import PastEnd
from fscore.domain.ids import ROOT
from fscore.runtime.threads import Pool
from fscore.vfs.compaction import Thresholds
from fscore.volume import Volume
from tests.kit.engines import fresh_url
from tests.kit.fsx import BORDER, IN_PROCESS, run
from tests.kit.volumes import MakeVolume, assert_sound

WHO = Caller.root()
EAGER = Thresholds(read=2, write=3, force=40)
OPTIONS: dict[str, Any] = {
    "background": True,
    "heartbeat_s": 0,
    "compact": EAGER,
    "cache_s": 0.0,
    "patience_s": (0.0, 0.01, 0.1, 1.0),
}


class OpenFiles:
    """Files of a volume by handles; each time one is opened it is the next client's turn."""

    def __init__(self, clients: Sequence[Volume], files: int) -> None:
        self._turns = cycle(clients)
        self._clients: list[Volume] = [clients[0]] * files
        self._inos: list[int] = []
        self._fhs: list[int] = []
        for file in range(files):
            ino, _, fh = clients[0].vfs.create(WHO, ROOT, b"fsx-%d" % file, 0o644, os.O_RDWR)
            self._inos.append(ino)
            self._fhs.append(fh)

    def write(self, file: int, offset: int, data: bytes) -> None:
        request = bytearray(data)
        self._clients[file].vfs.write(self._fhs[file], offset, memoryview(request))
        request[:] = bytes(len(request))  # as a transport does, which uses its buffer again

    def append(self, file: int, data: bytes) -> None:
        vfs = self._clients[file].vfs
        fh = vfs.open(WHO, self._inos[file], os.O_WRONLY | os.O_APPEND)
        vfs.write(fh, 0, data)
        vfs.release(fh)

    def read(self, file: int, offset: int, length: int) -> bytes:
        return self._clients[file].vfs.read(self._fhs[file], offset, length)

    def truncate(self, file: int, length: int) -> None:
        self._clients[file].vfs.truncate_open(self._fhs[file], length)

    def punch(self, file: int, offset: int, length: int) -> None:
        self._clients[file].vfs.fallocate(self._fhs[file], 3, offset, length)

    def zero(self, file: int, offset: int, length: int, *, keep: bool) -> None:
        self._clients[file].vfs.fallocate(self._fhs[file], 16 | keep, offset, length)

    def allocate(self, file: int, offset: int, length: int, *, keep: bool) -> None:
        self._clients[file].vfs.fallocate(self._fhs[file], int(keep), offset, length)

    def copy(self, source: int, at: int, file: int, offset: int, length: int) -> int:
        if self._clients[source] is not self._clients[file]:
            self._open(source, self._clients[file])
        return self._clients[file].vfs.copy_file_range(self._fhs[source], at, self._fhs[file], offset, length)

    def seek(self, file: int, offset: int, *, hole: bool) -> int | None:
        with suppress(PastEnd):
            return self._clients[file].vfs.seek(self._fhs[file], offset, 4 if hole else 3)
        return None

    def size(self, file: int) -> int:
        vfs = self._clients[file].vfs
        size = vfs.length(self._fhs[file])
        assert vfs.getattr(self._inos[file]).length == size
        return size

    def sync(self, file: int) -> None:
        self._clients[file].vfs.fsync(self._fhs[file])

    def reopen(self, file: int) -> None:
        self._open(file, next(self._turns))

    def _open(self, file: int, client: Volume) -> None:
        self._clients[file].vfs.release(self._fhs[file])
        self._clients[file] = client
        self._fhs[file] = client.vfs.open(WHO, self._inos[file], os.O_RDWR)

    def map_write(self, file: int, offset: int, data: bytes) -> None:
        raise NotImplementedError("there is no kernel here")

    def map_read(self, file: int, offset: int, length: int) -> bytes:
        raise NotImplementedError("there is no kernel here")

    def close(self) -> None:
        for client, fh in zip(self._clients, self._fhs, strict=True):
            client.vfs.release(fh)


class Rubbish:
    """Deletes dead slices all the time, on a thread of its own."""

    def __init__(self, clients: Sequence[Volume]) -> None:
        self._clients = clients
        self._stop = threading.Event()
        self._pool = Pool("rubbish", 1)
        self._run = self._pool.submit(self._collect)

    def _collect(self) -> int:
        deleted = 0
        while not self._stop.wait(0.05):
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


@pytest.mark.nightly
@pytest.mark.parametrize("trash_days", [0, 1])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_a_hundred_thousand_changes(
    kind: str, seed: int, trash_days: int, request: pytest.FixtureRequest, tmp_path: Path, open_at: MakeVolume
) -> None:
    url = fresh_url(kind, request, tmp_path)
    clients = [open_at(url, setting={"trash_days": trash_days}, **OPTIONS) for _ in range(1 + seed % 2)]
    play(clients, seed=seed, ops=100_000, origin=BORDER if seed % 3 == 1 else 0)
    assert_sound(clients[0])
