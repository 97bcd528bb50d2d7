"""What shares bytes instead of copying them: compose, clone, copy_range; and what puts files in place whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import Denied, Exists, Invalid, IsADir, NotFound, NotPermitted
from fscore.domain.geometry import CHUNK
from fscore.files.compose import Data, Piece, Range, Zeros, data
from fscore.files.filesystem import Filesystem
from fscore.runtime.threads import Pool
from fscore.volume import Volume

BLOCK = 64 << 10


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def object_count(volume: Volume) -> int:
    return sum(1 for _ in volume.objects.scan("chunks/"))


def test_compose_of_ranges_moves_no_bytes(any_volume: Volume) -> None:
    fs = any_volume.files
    one, two = blob(3 * BLOCK, 1), blob(2 * BLOCK, 2)
    fs.write_bytes("/one", one)
    fs.write_bytes("/two", two)
    before = object_count(any_volume)
    report = fs.compose("/made", [Range("/two", 100, 5000), Range("/one", 0, len(one)), Range("/two", 7, 1)])
    assert (report.bytes_new, report.bytes_shared, report.records) == (0, 5000 + len(one) + 1, 3)
    assert fs.read_bytes("/made") == two[100:5100] + one + two[7:8]
    assert object_count(any_volume) == before
    fs.unlink("/one")
    fs.unlink("/two")
    any_volume.collect()
    assert fs.read_bytes("/made") == two[100:5100] + one + two[7:8]


def test_adjacent_ranges_become_one_record(fs: Filesystem) -> None:
    content = blob(3 * BLOCK)
    fs.write_bytes("/f", content)
    report = fs.compose("/g", [Range("/f", at, 1000) for at in range(0, 100_000, 1000)])
    assert report.records == 1
    assert fs.read_bytes("/g") == content[:100_000]


def test_new_bytes_stream_and_start_slices_of_their_own(any_volume: Volume) -> None:
    fs = any_volume.files
    first, second = blob(2 * BLOCK + 11, 3), blob(100, 4)
    asked: list[int] = []

    def stream() -> Iterator[bytes]:
        for start in range(0, len(first), 1000):
            asked.append(start)
            yield first[start : start + 1000]

    pieces: list[Piece] = [Data(stream, len(first)), data(second), Zeros(5000), data(b"tail")]
    report = fs.compose("/f", pieces, mode=0o600)
    assert (report.bytes_new, report.bytes_shared) == (len(first) + len(second) + 4, 0)
    assert asked == list(range(0, len(first), 1000))
    assert fs.read_bytes("/f") == first + second + bytes(5000) + b"tail"
    assert fs.info("/f").slices == 3
    assert fs.stat("/f").mode == 0o600


def test_slices_restart_at_chunk_borders(fs: Filesystem) -> None:
    source = blob(BLOCK)
    fs.write_bytes("/s", source)
    with_border: list[Piece] = [
        Zeros(CHUNK - 100),
        data(source),
        Range("/s", 10, 50),
        Zeros(CHUNK),
        Range("/s", 0, BLOCK),
    ]
    report = fs.compose("/f", with_border)
    assert report.bytes_new == BLOCK
    with fs.open("/f") as file:
        assert file.size == 2 * CHUNK - 100 + 2 * BLOCK + 50
        assert file.pread(CHUNK - 101, BLOCK + 1) == b"\0" + source
        assert file.pread(CHUNK - 100 + BLOCK, 51) == source[10:60] + b"\0"
        assert file.pread(2 * CHUNK - 50 + BLOCK, BLOCK) == source


def test_ranges_cross_source_borders(fs: Filesystem) -> None:
    with fs.open("/s", "wb") as file:
        file.pwrite(CHUNK - 10, b"0123456789ABCDEFGHIJ")
    fs.compose("/f", [data(b"<"), Range("/s", CHUNK - 12, 22), data(b">")])
    assert fs.read_bytes("/f") == b"<\0\x000123456789ABCDEFGHIJ>"


def test_compose_of_nothing_is_an_empty_file(fs: Filesystem) -> None:
    assert fs.compose("/f", []).records == 0
    assert fs.read_bytes("/f") == b""
    fs.compose("/z", [Zeros(10)])
    assert fs.read_bytes("/z") == bytes(10)


def test_compose_sees_what_is_not_flushed(fs: Filesystem) -> None:
    with fs.open("/s", "wb") as file:
        file.write(b"not flushed yet")
        fs.compose("/f", [Range("/s", 4, 7)])
    assert fs.read_bytes("/f") == b"flushed"


def test_a_refused_composition_leaves_nothing(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.write_bytes("/s", blob(BLOCK))
    fs.mkdir("/d")

    def fails() -> Iterator[bytes]:
        yield blob(3 * BLOCK)
        raise RuntimeError("the source broke")

    before = object_count(any_volume)
    with pytest.raises(Exists):
        fs.compose("/s", [data(b"x")])
    with pytest.raises(NotFound):
        fs.compose("/f", [Range("/absent", 0, 1)])
    with pytest.raises(Invalid):
        fs.compose("/f", [Range("/d", 0, 1)])
    with pytest.raises(Invalid):
        fs.compose("/f", [data(blob(BLOCK)), Range("/s", 0, BLOCK + 1)])
    with pytest.raises(RuntimeError, match="broke"):
        fs.compose("/f", [Range("/s", 0, BLOCK), Data(fails, 4 * BLOCK)])
    with pytest.raises(Invalid, match="fewer"):
        fs.compose("/f", [Data(lambda: iter([b"x"]), 2)])
    with pytest.raises(Invalid, match="more"):
        fs.compose("/f", [Data(lambda: iter([b"xyz"]), 2)])
    assert fs.listdir("/") == ["d", "s"]
    any_volume.collect()
    assert object_count(any_volume) == before


def test_sources_must_be_readable(any_volume: Volume) -> None:
    any_volume.files.chmod("/", 0o777)
    any_volume.files.write_bytes("/secret", b"secret")
    any_volume.files.chmod("/secret", 0o600)
    with pytest.raises(Denied):
        any_volume.as_caller(Caller(uid=1000, gid=1000)).compose("/mine", [Range("/secret", 0, 6)])


def test_clone_of_a_tree_shares_all(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.mkdir("/a/b", parents=True)
    fs.write_bytes("/a/b/f", blob(3 * BLOCK))
    fs.symlink("b/f", "/a/l")
    fs.setxattr("/a/b/f", "user.x", b"1")
    before = object_count(any_volume)
    fs.clone("/a", "/c")
    assert object_count(any_volume) == before
    assert fs.read_bytes("/c/l") == blob(3 * BLOCK)
    assert fs.getxattr("/c/b/f", "user.x") == b"1"
    with fs.open("/c/b/f", "r+b") as file:
        file.write(b"changed")
    assert fs.read_bytes("/a/b/f") == blob(3 * BLOCK)
    with pytest.raises(Exists):
        fs.clone("/a/b/f", "/c/b/f")
    fs.rmtree("/a")
    any_volume.collect()
    assert fs.read_bytes("/c/b/f") == b"changed" + blob(3 * BLOCK)[7:]


def test_copy_range_shares(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.write_bytes("/a", blob(2 * BLOCK))
    fs.write_bytes("/b", b"x" * 100)
    before = object_count(any_volume)
    with fs.open("/b") as open_before:
        assert open_before.pread(0, 100) == b"x" * 100
        assert fs.copy_range("/a", 1000, "/b", 50, 10 * BLOCK) == 2 * BLOCK - 1000
        assert open_before.pread(0, 60) == b"x" * 50 + blob(2 * BLOCK)[1000:1010]
    assert fs.read_bytes("/b") == b"x" * 50 + blob(2 * BLOCK)[1000:]
    assert object_count(any_volume) == before


def test_write_atomic_shows_all_or_nothing(fs: Filesystem) -> None:
    fs.write_atomic("/f", b"one", replace=False)
    with pytest.raises(Exists) as caught:
        fs.write_atomic("/f", b"two", replace=False)
    assert caught.value.filename == "/f"
    assert fs.read_bytes("/f") == b"one"
    fs.write_atomic("/f", b"three", replace=True)
    assert fs.read_bytes("/f") == b"three"
    fs.mkdir("/d")
    with pytest.raises(IsADir):
        fs.write_atomic("/d", b"x", replace=True)
    fs.write_atomic("/" + "n" * 255, b"long name", replace=False)
    assert fs.listdir("/") == ["d", "f", "n" * 255]


def test_of_many_exclusive_writers_one_wins(any_volume: Volume) -> None:
    fs = any_volume.files
    for round_number in range(5):
        path = f"/log-{round_number}"

        def attempt(number: int, path: str = path) -> int:
            try:
                fs.write_atomic(path, str(number).encode(), replace=False)
            except Exists:
                return -1
            return number

        with Pool("race", 8) as pool:
            winners = [number for number in pool.map_bounded(attempt, range(8)) if number >= 0]
        assert len(winners) == 1
        assert fs.read_bytes(path) == str(winners[0]).encode()
    assert len(fs.listdir("/")) == 5


def test_immutable_trees_resist(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.mkdir("/v/1/sub", parents=True)
    fs.write_bytes("/v/1/sub/f", blob(BLOCK))
    fs.write_bytes("/v/1/g", b"g")
    fs.symlink("g", "/v/1/l")
    assert fs.set_immutable("/v/1", on=True, recursive=True) == 4
    assert fs.stat("/v/1/sub/f").immutable
    refused: list[Callable[[], object]] = [
        lambda: fs.write_bytes("/v/1/g", b"x"),
        lambda: fs.open("/v/1/g", "ab"),
        lambda: fs.create("/v/1/new"),
        lambda: fs.unlink("/v/1/g"),
        lambda: fs.rename("/v/1/g", "/v/1/h"),
        lambda: fs.rename("/v/1/g", "/h"),
        lambda: fs.rename("/v/1/sub", "/sub"),
        lambda: fs.chmod("/v/1/g", 0o600),
        lambda: fs.truncate("/v/1/g", 0),
        lambda: fs.rmtree("/v/1"),
        lambda: fs.link("/v/1/g", "/h"),
    ]
    for attempt in refused:
        with pytest.raises(NotPermitted):
            attempt()
    assert fs.read_bytes("/v/1/sub/f") == blob(BLOCK)
    fs.compose("/copy", [Range("/v/1/sub/f", 0, BLOCK)])
    fs.clone("/v/1", "/draft")
    assert not fs.stat("/draft").immutable
    fs.rmtree("/draft")
    assert fs.set_immutable("/v/1", on=False, recursive=True) == 4
    assert fs.set_immutable("/v/1", on=False, recursive=True) == 0
    fs.rmtree("/v")


def test_info_tells_where_the_bytes_are(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.write_bytes("/f", blob(2 * BLOCK + 5))
    fs.compose("/g", [Range("/f", BLOCK - 10, 20)])
    info = fs.info("/g")
    assert (info.slices, info.objects) == (1, 2)
    refs = info.chunks[0].objects
    assert [(ref.size, ref.offset, ref.length) for ref in refs] == [(BLOCK, BLOCK - 10, 10), (BLOCK, 0, 10)]
    found = b"".join(any_volume.objects.get(ref.key, ref.offset, ref.length) for ref in refs)
    assert found == fs.read_bytes("/g")
    fs.symlink("f", "/l")
    assert fs.info("/l").target == "f"
    assert fs.info("/").chunks == []


def test_warm_fills_the_cache(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.mkdir("/m")
    fs.write_bytes("/m/a", blob(3 * BLOCK))
    fs.write_bytes("/m/b", blob(100, 2))
    fs.clone("/m/a", "/m/c")
    assert fs.cached_bytes(["/m"]) == 0
    report = fs.warm(["/m"])
    assert (report.fetched, report.failed) == (3 * BLOCK + 100, 0)
    assert fs.cached_bytes(["/m"]) == 3 * BLOCK + 100
    assert fs.warm(["/m/a"]).fetched == 0


def test_warm_fetches_what_is_referred_to_only(any_volume: Volume) -> None:
    fs = any_volume.files
    fs.write_bytes("/whole", blob(10 * BLOCK))
    fs.compose("/part", [Range("/whole", 2 * BLOCK + 5, 10), Range("/whole", 7 * BLOCK - 1, 2)])
    assert fs.warm(["/part"]).fetched == 3 * BLOCK
    assert fs.cached_bytes(["/whole"]) == 3 * BLOCK
