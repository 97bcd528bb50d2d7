"""What small random writes cost: bytes that go to the store for each byte that was written, compaction counted."""

from __future__ import annotations

import os
import random

from fscore.domain.caller import Caller
from fscore.domain.geometry import CHUNK
from fscore.objects.api import Buffer, as_view
from fscore.objects.memory import MemoryStore
from tests.kit.volumes import MakeVolume, assert_sound

WRITES = 2_000
EACH = 4 << 10
SYNC_EVERY = 50


class Weighed(MemoryStore):
    """Counts the bytes that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def put(self, key: str, data: Buffer) -> None:
        self.taken += len(as_view(data))
        super().put(key, data)


def test_random_writes_do_not_rewrite_their_chunk_again_and_again(open_at: MakeVolume) -> None:
    store = Weighed()
    volume = open_at(object_store=store, background=True, setting={"block_size": "4M"})
    vfs, who = volume.vfs, Caller.root()
    _, _, fh = vfs.create(who, 1, b"f", 0o644, os.O_RDWR)
    expected = bytearray(os.urandom(1 << 20) * (CHUNK >> 20))
    vfs.write(fh, 0, bytes(expected))
    vfs.fsync(fh)
    before = store.taken
    rng = random.Random(7)
    for number in range(1, WRITES + 1):
        at, data = rng.randrange(CHUNK // EACH) * EACH, rng.randbytes(EACH)
        vfs.write(fh, at, data)
        expected[at : at + EACH] = data
        if number % SYNC_EVERY == 0:
            vfs.fsync(fh)
            vfs.drain()  # as slowly as a compaction wants
            at = rng.randrange(CHUNK - EACH)
            assert vfs.read(fh, at, EACH) == expected[at : at + EACH]
    vfs.drain()
    factor = (store.taken - before) / (WRITES * EACH)
    assert 1 <= factor < 10.5, f"{factor:.1f} bytes stored for each byte written"
    assert vfs.read(fh, 0, CHUNK) == expected
    vfs.release(fh)
    assert_sound(volume)
