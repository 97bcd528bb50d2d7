"""Files that a volume keeps whole: filled by whoever reads them in sequence, gone with any change, never wrong."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fscore.blocks.cache.whole.file import WholeFile
from fscore.domain.caller import Caller
from fscore.domain.errors import CorruptError
from fscore.domain.setting import Setting
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

pytestmark = pytest.mark.usefixtures("no_thread_left")

ROOT = Caller.root()
MIB = 1 << 20
DATA = random.Random(9).randbytes(9 * MIB + 17)
Open = Callable[..., Volume]


@pytest.fixture
def open_one(open_at: MakeVolume, tmp_path: Path) -> Iterator[Open]:
    """Opens the volume, which holds /model, immutable, and /plain, with a cache directory."""
    first = open_at(setting={"block_size": "1M"}, caller=ROOT)
    first.files.write_bytes("/model", DATA)
    first.files.write_bytes("/plain", DATA)
    first.files.set_immutable("/model", on=True)

    def new(**options: Any) -> Volume:
        chosen: dict[str, Any] = {"cache_dir": str(tmp_path / "cache"), "whole": "immutable", "caller": ROOT}
        chosen |= {"free_space_ratio": 0.0} | options
        return open_at(**chosen)

    yield new
    first.files.set_immutable("/model", on=False)
    assert_sound(first)


def wholes(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("cache/*/whole/*/*.bytes"))


def read_through(volume: Volume, path: str = "/model", piece: int = MIB // 2) -> bytes:
    with volume.files.open(path, "rb") as file:
        return b"".join(iter(lambda: file.read(piece), b""))


def wait_for(ready: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    return ready()


def handle(volume: Volume, path: bytes = b"/model", flags: int = os.O_RDONLY) -> tuple[int, int]:
    ino, _ = volume.meta.resolve(ROOT, path)
    return ino, volume.vfs.open(ROOT, ino, flags)


def whole(volume: Volume, path: bytes = b"/model") -> WholeFile | None:
    ino, fh = handle(volume, path)
    try:
        return volume.vfs.whole(ino)
    finally:
        volume.vfs.release(fh)


def test_a_sequential_reader_fills_it_and_the_next_reads_it(open_one: Open, tmp_path: Path) -> None:
    volume = open_one()
    assert whole(volume) is None
    assert read_through(volume) == DATA
    assert wait_for(lambda: whole(volume) is not None)
    assert [path.read_bytes() for path in wholes(tmp_path)] == [DATA]
    twice = volume.metrics.get("blocks.fetch.bytes") - len(DATA)
    assert twice <= 2 * volume.blocks.block_size, "save what was under way when it began, each block came once"
    file = whole(volume)
    assert file is not None
    assert file.length == len(DATA)
    assert os.pread(file.fd, 100, MIB) == DATA[MIB : MIB + 100]
    assert read_through(volume) == DATA
    ino, fh = handle(volume)
    assert volume.vfs.peek(fh, 5, 1000) == DATA[5:1005]
    assert volume.vfs.whole(ino) is not None
    volume.vfs.release(fh)
    other = open_one(read_only=True)
    assert read_through(other) == DATA
    assert other.metrics.get("blocks.fetch.bytes") == 0


def test_two_readers_while_it_fills(open_one: Open) -> None:
    volume = open_one(memory_cache=MIB)
    with volume.files.open("/model", "rb") as one, volume.files.open("/model", "rb") as two:
        for at in range(0, 4 * MIB, MIB // 4):
            assert one.read(MIB // 4) == DATA[at : at + MIB // 4]
        backwards = range(len(DATA) - 1000, 0, -777_777)
        assert [two.pread(at, 1000) for at in backwards] == [DATA[at : at + 1000] for at in backwards]
        assert one.read() == DATA[4 * MIB :]
    assert wait_for(lambda: whole(volume) is not None)


@pytest.mark.parametrize("policy", ["off", "immutable", "auto", "all"])
def test_the_policy_says_which(open_one: Open, tmp_path: Path, policy: str) -> None:
    volume = open_one(whole=policy)
    read_through(volume)
    read_through(volume, "/plain")
    kept = {"off": 0, "immutable": 1, "auto": 1, "all": 2}[policy]
    assert wait_for(lambda: len(wholes(tmp_path)) == kept)
    volume.close()
    assert len(wholes(tmp_path)) == kept


def test_random_reads_fill_nothing(open_one: Open, tmp_path: Path) -> None:
    volume = open_one()
    with volume.files.open("/model", "rb") as file:
        for at in random.Random(1).sample(range(0, len(DATA), 4096), 300):
            assert file.pread(at, 4096) == DATA[at : at + 4096]
    volume.close()
    assert list(tmp_path.glob("cache/*/whole/*/*")) == []


def test_a_change_makes_it_another_file(open_one: Open, tmp_path: Path) -> None:
    volume = open_one(whole="all")
    read_through(volume, "/plain")
    assert wait_for(lambda: whole(volume, b"/plain") is not None)
    ino, reading = handle(volume, b"/plain")
    assert volume.vfs.read(reading, 0, 10) == DATA[:10]
    _, fh = handle(volume, b"/plain", os.O_RDWR)
    volume.vfs.write(fh, 3, b"new")
    assert volume.vfs.read(reading, 0, 10) == DATA[:3] + b"new" + DATA[6:10]
    assert volume.vfs.whole(ino) is None, "somebody writes it"
    volume.vfs.release(fh)
    volume.vfs.release(reading)
    assert whole(volume, b"/plain") is None
    assert read_through(volume, "/plain") == DATA[:3] + b"new" + DATA[6:]
    assert wait_for(lambda: whole(volume, b"/plain") is not None)
    assert len(wholes(tmp_path)) == 2


def test_a_change_by_another_client_is_seen(open_one: Open) -> None:
    volume, other = open_one(whole="all", cache_s=0.0), open_one(whole="off")
    read_through(volume, "/plain")
    assert wait_for(lambda: whole(volume, b"/plain") is not None)
    with volume.files.open("/plain", "rb") as file:
        assert file.read(4) == DATA[:4]
        with other.files.open("/plain", "r+b") as changed:
            changed.write(b"else")
        assert file.pread(0, 5) == b"else" + DATA[4:5]


def test_the_same_bytes_under_two_names_are_one_file(open_one: Open, tmp_path: Path) -> None:
    volume = open_one()
    volume.files.clone("/model", "/again")
    volume.files.set_immutable("/again", on=True)
    read_through(volume)
    assert wait_for(lambda: whole(volume) is not None)
    assert whole(volume, b"/again") is not None
    assert len(wholes(tmp_path)) == 1
    volume.files.set_immutable("/again", on=False)


def test_blocks_that_are_wrong_are_never_assembled(
    open_one: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = open_one()
    block = next(path for path in sorted((tmp_path / "objects-0").rglob("*_3_1048576")))
    right = block.read_bytes()
    block.write_bytes(right[:-1])
    with caplog.at_level(logging.CRITICAL), pytest.raises(CorruptError):
        read_through(volume)
    assert whole(volume) is None
    volume.close()
    assert list(tmp_path.glob("cache/*/whole/*/*")) == []
    block.write_bytes(right)


def test_a_cached_block_that_is_wrong_is_fetched_again(
    open_one: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_one(whole="off")
    read_through(first)
    first.close()
    for path in tmp_path.glob("cache/*/raw/**/*_1048576"):
        data = bytearray(path.read_bytes())
        data[500_000] ^= 4
        path.write_bytes(data)
    with caplog.at_level(logging.ERROR):
        volume = open_one()
        assert read_through(volume) == DATA
        assert wait_for(lambda: whole(volume) is not None)
        volume.close()
    assert [path.read_bytes() for path in wholes(tmp_path)] == [DATA]


def test_a_missing_block_is_an_error_and_no_file(
    open_one: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = open_one()
    blocks = {path: path.read_bytes() for path in (tmp_path / "objects-0").rglob("*_5_1048576")}
    assert len(blocks) == 2
    for path in blocks:
        path.unlink()
    with caplog.at_level(logging.CRITICAL), pytest.raises(CorruptError):
        read_through(volume)
    volume.close()
    assert list(tmp_path.glob("cache/*/whole/*/*")) == []
    for path, data in blocks.items():
        path.write_bytes(data)


def test_a_compaction_changes_the_key_and_no_byte(open_one: Open) -> None:
    volume = open_one(whole="all")
    ino, fh = handle(volume, b"/plain", os.O_RDWR)
    for number in range(6):
        volume.vfs.write(fh, number * 3 * 65536, bytes([number]) * 65536)
        volume.vfs.flush(fh)
    volume.vfs.release(fh)
    want = read_through(volume, "/plain")
    assert wait_for(lambda: whole(volume, b"/plain") is not None)
    volume.vfs.compact(ino, 0)
    assert read_through(volume, "/plain") == want


def test_an_encrypted_volume_keeps_none_unless_asked(tmp_path: Path) -> None:
    from fscore.runtime.clock import SystemClock
    from fscore.runtime.metrics import Metrics
    from fscore.volume import Options, _caches

    sealed = Setting(name="x", uuid="u", storage="memory", bucket="b", encrypt_key="-----BEGIN")
    plain = Setting(name="x", uuid="u", storage="memory", bucket="b")
    for setting, policy, kept in [
        (sealed, "auto", False),
        (sealed, "immutable", True),
        (plain, "auto", True),
        (plain, "off", False),
    ]:
        options = Options(cache_dir=str(tmp_path / "cache"), whole=policy)  # type: ignore[arg-type]
        cache, found = _caches(setting, options, SystemClock(), Metrics())
        assert (found is not None) is kept
        if found is not None:
            found.close()
        cache.close()


def test_warm_up_brings_files_whole_where_they_are_kept_whole(open_one: Open, tmp_path: Path) -> None:
    volume = open_one()
    report = volume.files.warm(["/"])
    assert (report.cached, report.fetched, report.failed) == (0, 2 * len(DATA), 0)
    assert [path.read_bytes() for path in wholes(tmp_path)] == [DATA]
    assert volume.files.is_whole("/model")
    assert not volume.files.is_whole("/plain")
    assert volume.files.cached_bytes(["/plain"]) == len(DATA)
    assert volume.files.cached_bytes(["/model"]) == 0, "its bytes lie there once"
    again = volume.files.warm(["/"])
    assert (again.cached, again.fetched, again.failed) == (2 * len(DATA), 0, 0)
    volume.close()
    other = open_one(read_only=True)
    assert other.files.read_bytes("/model") == DATA
    assert other.metrics.get("blocks.fetch.bytes") == 0


def test_warm_up_of_what_has_no_room_whole_brings_blocks(open_one: Open, tmp_path: Path) -> None:
    volume = open_one(cache_size=len(DATA) - 1, memory_cache=32 * MIB)
    report = volume.files.warm(["/model"])
    assert (report.fetched, report.failed) == (len(DATA), 0)
    assert not volume.files.is_whole("/model")
    assert wholes(tmp_path) == []


def test_warm_up_counts_what_it_cannot_read(open_one: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = open_one()
    (block,) = (tmp_path / "objects-0").rglob("1_2_1048576")
    right = block.read_bytes()
    block.unlink()
    with caplog.at_level(logging.CRITICAL):
        report = volume.files.warm(["/model"])
    assert report.failed == MIB
    assert not volume.files.is_whole("/model")
    block.write_bytes(right)


def test_a_compaction_lets_go_what_was_being_filled(open_one: Open, tmp_path: Path) -> None:
    volume = open_one(whole="all")
    ino, fh = handle(volume, b"/plain")
    file = volume.vfs._handles.file(ino)
    assert file is not None
    volume.vfs.read(fh, 0, MIB)
    volume.vfs.read(fh, MIB, MIB)
    assert wait_for(lambda: file.reader.local is not None)
    filling = file.filling
    assert filling is not None
    file.reader.compacted()
    assert file.reader.local is None
    assert file.filling is None, "while it is still open"
    assert filling.users == 0
    volume.vfs.release(fh)
    assert filling.users == 0, "it is left once"
    assert wait_for(lambda: filling.failed or filling.whole), "nothing stays pinned"
