"""Reading ahead waits for nothing: neither for a block nor for what the tree says about the next chunk."""

from __future__ import annotations

import os
import threading
import time

import pytest

from fscore.domain.caller import Caller
from fscore.domain.geometry import CHUNK
from fscore.domain.slices import SliceRecord
from fscore.runtime.threads import Task
from tests.kit.volumes import MakeVolume, assert_sound

MIB = 1 << 20


def test_a_reader_does_not_wait_for_the_next_chunk(open_at: MakeVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_at(setting={"block_size": "4M"}, read_ahead=8 * MIB)
    volume.files.write_bytes("/f", b"a" * (CHUNK + 4 * MIB))
    vfs, records, gate, asked = volume.vfs, volume.meta.records, threading.Event(), threading.Event()

    def slow(ino: int, index: int) -> list[SliceRecord]:
        if index:
            asked.set()
            gate.wait(20)
        return records(ino, index)

    ino, _ = volume.meta.resolve(Caller.root(), b"/f")
    fh = vfs.open(Caller.root(), ino, os.O_RDONLY)
    monkeypatch.setattr(volume.meta, "records", slow)
    read: list[int] = []

    def sequence() -> None:
        read.extend(len(vfs.read(fh, at, MIB)) for at in range(CHUNK - 12 * MIB, CHUNK, MIB))

    reading = Task("reading", sequence)
    try:
        assert reading.join(10), "it waits for a chunk that it has not asked for"
        assert read == [MIB] * 12
        assert asked.is_set(), "the next chunk is looked up meanwhile"
    finally:
        gate.set()
    assert bytes(vfs.read(fh, CHUNK, MIB)) == b"a" * MIB
    deadline = time.monotonic() + 10
    while not vfs._handles.get(fh).file.reader.knows(CHUNK, MIB) and time.monotonic() < deadline:
        time.sleep(0.01)
    vfs.release(fh)
    assert_sound(volume)
