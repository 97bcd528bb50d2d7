"""A dirty chunk against bytes: whatever order it is written in, its records say what was written last."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from fscore.blocks.store import BlockStore
from fscore.domain.geometry import CHUNK
from fscore.domain.slices import overlay
from fscore.objects.memory import MemoryStore
from fscore.vfs.dirty import DirtyChunk

BLOCK = 64 << 10
SPAN = 6 * BLOCK
PLACES = st.one_of(st.integers(0, SPAN), st.integers(0, 6).map(lambda n: n * BLOCK), st.integers(0, 200))
SIZES = st.one_of(st.integers(1, 300), st.sampled_from([4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5]))


class World:
    """A chunk in the making over a store in memory."""

    def __init__(self) -> None:
        self.store = BlockStore(MemoryStore("dirty"), block_size=BLOCK, upload_threads=1)
        ids = count(1)
        self.chunk = DirtyChunk(0, BLOCK, lambda: self.store.new_writer(next(ids)))
        self.model: dict[int, int] = {}
        self.stamps = count(1)

    def write(self, pos: int, size: int) -> None:
        stamp = next(self.stamps) % 255 + 1
        request = bytearray([stamp]) * size
        self.chunk.write(pos, memoryview(request))
        request[:] = bytes(size)  # the caller uses its buffer again
        self.model.update(dict.fromkeys(range(pos, pos + size), stamp))

    def committed(self) -> dict[int, int]:
        """What the records say, byte by byte, after everything went up."""
        for writer in self.chunk.send():
            writer.finish()
        found: dict[int, int] = {}
        for piece in overlay(self.chunk.records()):
            if piece.id:
                data = self.store.read(piece.id, piece.size, piece.off, piece.length)
                found.update(zip(range(piece.pos, piece.end), data, strict=True))
        return found


@given(st.lists(st.tuples(PLACES, SIZES), min_size=1, max_size=25))
def test_the_newest_bytes_win(writes: list[tuple[int, int]]) -> None:
    world = World()
    try:
        for pos, size in writes:
            world.write(pos, size)
            assert world.chunk.touches(pos, pos + size)
        held = bytearray(SPAN)
        for at, value in world.model.items():
            if at < SPAN:
                held[at] = value
        if world.chunk.patches(0, SPAN):
            shown = bytearray(SPAN)
            world.chunk.patch(0, memoryview(shown))
            assert shown == held
        assert world.chunk.end == max(world.model) + 1
        assert world.chunk.buffered <= sum(size for _, size in writes)
        assert world.committed() == world.model
    finally:
        world.store.close()


@given(st.permutations(range(12)))
def test_pieces_that_touch_are_one_record_in_whatever_order_they_come(order: list[int]) -> None:
    world = World()
    try:
        for number in order:
            world.write(1000 + number * 100, 100)
        world.committed()
        assert [(record.pos, record.length) for record in world.chunk.records()] == [(1000, 1200)]
    finally:
        world.store.close()


def test_what_follows_a_whole_block_goes_up_as_one_slice() -> None:
    world = World()
    for at in range(0, 4 * BLOCK + 500, 100):
        world.write(at, 100)
    assert world.chunk.extents == 0
    assert world.chunk.buffered <= BLOCK
    world.committed()
    assert len(world.chunk.records()) == 1
    world.store.close()


def test_a_stream_may_reach_the_end_of_the_chunk() -> None:
    world = World()
    world.write(CHUNK - 2 * BLOCK, 2 * BLOCK - 10)
    before = world.chunk.full
    world.write(CHUNK - 10, 10)
    assert (before, world.chunk.full) == (False, True)
    world.committed()
    world.store.close()
