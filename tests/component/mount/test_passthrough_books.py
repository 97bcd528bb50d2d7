"""The bookkeeping of native opens: one decision an inode, refusals said once, numbers closed with the last open."""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import TextBusy
from fscore.mount.passthrough import Opening, Passthrough
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

ROOT = Caller.root()
DATA = random.Random(4).randbytes(3 << 20)


class Ids:
    """A kernel's table of local files; refuses with `error` when there is one."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.asked = 0
        self.open: dict[int, bytes] = {}

    def register(self, fd: int) -> int:
        self.asked += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.open[self.asked] = os.pread(fd, 10, 0)
        return self.asked

    def close(self, backing_id: int) -> None:
        del self.open[backing_id]


@pytest.fixture
def volume(open_at: MakeVolume, tmp_path: Path) -> Iterator[Volume]:
    """A volume whose file /f lies whole in the cache."""
    chosen: dict[str, Any] = {"cache_dir": str(tmp_path / "cache"), "whole": "all", "free_space_ratio": 0.0}
    opened = open_at(setting={"block_size": "1M"}, caller=ROOT, **chosen)
    opened.files.write_bytes("/f", DATA)
    opened.files.write_bytes("/small", b"small")
    while not list(tmp_path.glob("cache/*/whole/*/*.sums")):
        assert opened.files.read_bytes("/f") == DATA
        time.sleep(0.01)
    yield opened
    assert_sound(opened)


def handle(volume: Volume, path: bytes = b"/f", flags: int = os.O_RDONLY) -> tuple[int, int]:
    ino, _ = volume.meta.resolve(ROOT, path)
    return ino, volume.vfs.open(ROOT, ino, flags)


def test_opens_share_a_number_until_the_last_is_closed(volume: Volume) -> None:
    ids = Ids()
    books = Passthrough(volume.vfs, ids)
    ino, fh = handle(volume)
    assert books.opened(ino, os.O_RDONLY) == Opening(1)
    assert books.opened(ino, os.O_RDONLY) == Opening(1)
    assert ids.open == {1: DATA[:10]}
    books.released(ino)
    assert ids.open == {1: DATA[:10]}
    books.released(ino)
    assert ids.open == {}
    assert books.opened(ino, os.O_RDONLY) == Opening(2)
    books.close()
    assert ids.open == {}
    assert volume.metrics.get("mount.native.opens") == 3
    assert volume.metrics.get("mount.native.bytes") == 3 * len(DATA)
    volume.vfs.release(fh)


def test_beside_an_open_of_the_daemon_all_are_the_daemons(volume: Volume) -> None:
    ids = Ids()
    books = Passthrough(volume.vfs, ids)
    ino, writing = handle(volume, flags=os.O_RDWR)
    assert books.opened(ino, os.O_RDWR) == Opening(0)
    _, reading = handle(volume)
    assert books.opened(ino, os.O_RDONLY) == Opening(0)
    books.admit(ino, os.O_WRONLY)
    volume.vfs.release(writing)
    books.released(ino)
    assert books.opened(ino, os.O_RDONLY) == Opening(0), "the reader still is"
    books.released(ino)
    books.released(ino)
    assert books.opened(ino, os.O_RDONLY) == Opening(1)
    volume.vfs.release(reading)


def test_a_writer_beside_native_readers_is_refused_before_the_kernel_is_asked(volume: Volume) -> None:
    books = Passthrough(volume.vfs, Ids())
    ino, fh = handle(volume)
    books.admit(ino, os.O_RDWR)
    assert books.opened(ino, os.O_RDONLY) == Opening(1)
    books.admit(ino, os.O_RDONLY)
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(TextBusy):
            books.admit(ino, flags)
    with pytest.raises(TextBusy):
        books.opened(ino, os.O_RDWR)
    books.released(ino)
    books.admit(ino, os.O_RDWR)
    volume.vfs.release(fh)


def test_a_file_that_is_not_here_whole_is_the_daemons(volume: Volume) -> None:
    ids = Ids()
    books = Passthrough(volume.vfs, ids)
    ino, fh = handle(volume, b"/small")
    assert books.opened(ino, os.O_RDONLY) == Opening(0)
    assert ids.asked == 0
    books.released(ino)
    books.released(ino)  # one too many harms nobody
    volume.vfs.release(fh)


def test_a_file_that_changed_under_native_readers_is_read_by_the_daemon(volume: Volume, open_at: MakeVolume) -> None:
    books = Passthrough(volume.vfs, Ids())
    ino, fh = handle(volume)
    assert books.opened(ino, os.O_RDONLY) == Opening(1)
    with open_at(caller=ROOT).files.open("/f", "r+b") as file:
        file.write(b"new")
    _, second = handle(volume)
    assert books.opened(ino, os.O_RDONLY) == Opening(1, direct_io=True)
    assert volume.vfs.read(second, 0, 5) == b"new" + DATA[3:5]
    volume.vfs.release(second)
    volume.vfs.release(fh)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP, errno.ELOOP])
def test_a_refusal_is_said_once_and_the_daemon_serves(
    volume: Volume, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    ids = Ids(number)
    books = Passthrough(volume.vfs, ids)
    ino, fh = handle(volume)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert books.opened(ino, os.O_RDONLY) == Opening(0)
            books.released(ino)
    assert ids.asked == 1
    assert not books.on
    assert len([record for record in caplog.records if "passthrough" in record.message]) == 1
    volume.vfs.release(fh)


def test_a_passing_trouble_is_tried_again(volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
    ids = Ids(errno.EMFILE)
    books = Passthrough(volume.vfs, ids)
    ino, fh = handle(volume)
    with caplog.at_level(logging.WARNING):
        assert books.opened(ino, os.O_RDONLY) == Opening(0)
    books.released(ino)
    ids.error = 0
    assert books.opened(ino, os.O_RDONLY) == Opening(2)
    volume.vfs.release(fh)
