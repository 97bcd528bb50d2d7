"""`buffer_size` bounds what programs wrote and the store does not have yet, whoever holds it: measured at both ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from fscore.objects.api import Buffer, as_view
from fscore.objects.memory import MemoryStore
from fscore.runtime.threads import Pool
from fscore.vfs.writer import SMALL
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

BUFFER = 4 << 20
WRITERS = 4
EACH = 12 << 20
STEP = 64 << 10


class Slow(MemoryStore):
    """Takes its time for a block, and knows how far it is behind those who write."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = self.most = 0
        self._lock = threading.Lock()

    def wrote(self, count: int) -> None:
        with self._lock:
            self.waiting += count
            self.most = max(self.most, self.waiting)

    def put(self, key: str, data: Buffer) -> None:
        time.sleep(0.004)
        super().put(key, data)
        self.wrote(-len(as_view(data)))


def sequential(volume: Volume, store: Slow, number: int) -> None:
    with volume.files.open(f"/{number}", "wb") as file:
        for _ in range(EACH // STEP):
            file.write(bytes([number]) * STEP)
            store.wrote(STEP)


def scattered(volume: Volume, store: Slow, number: int) -> None:
    part = STEP // 4
    with volume.files.open(f"/{number}", "wb") as file:
        for place in range(EACH // part):
            file.seek(place * 7 % (EACH // part) * 2 * part)
            file.write(bytes([number]) * part)
            store.wrote(part)


@pytest.mark.parametrize("write", [sequential, scattered])
def test_what_waits_in_memory_is_bounded(open_at: MakeVolume, write: Callable[[Volume, Slow, int], None]) -> None:
    store = Slow()
    volume = open_at(object_store=store, buffer_size=BUFFER)
    with Pool("writers", WRITERS) as pool:
        for _ in pool.map_bounded(lambda number: write(volume, store, number), range(WRITERS)):
            pass
    assert store.waiting == 0
    assert store.most <= BUFFER + WRITERS * (SMALL + 2 * STEP), "more waited than was allowed"
    assert store.most > BUFFER // 2, "what may wait is used"
    for number in range(WRITERS):
        assert set(volume.files.read_bytes(f"/{number}")) <= {0, number}
    assert_sound(volume)
