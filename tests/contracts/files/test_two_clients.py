"""Two clients of one volume: what one closes the other opens, and nothing is lost between them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fscore.domain.errors import CorruptError, Exists, NotFound, ReadOnly
from fscore.files.compose import Range
from fscore.runtime.clock import FakeClock
from fscore.runtime.threads import Pool
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

BLOCK = 64 << 10


@pytest.fixture
def two(make_volume: MakeVolume) -> tuple[Volume, Volume]:
    return make_volume(), make_volume()


def test_close_to_open(two: tuple[Volume, Volume]) -> None:
    mine, theirs = two
    for number in range(5):
        content = random.Random(number).randbytes(BLOCK * number + 10)
        mine.files.write_bytes("/f", content)
        assert theirs.files.read_bytes("/f") == content
        theirs.files.truncate("/f", 5)
        with mine.files.open("/f") as file:
            assert file.readall() == content[:5]
    assert_sound(mine)


def test_an_open_reader_follows_within_two_seconds(make_volume: MakeVolume, clock: FakeClock) -> None:
    mine, theirs = make_volume(), make_volume(clock=clock)
    mine.files.write_bytes("/f", b"first")
    with theirs.files.open("/f") as file:
        assert file.read() == b"first"
        with mine.files.open("/f", "ab") as more:
            more.write(b" and second")
        clock.advance(2.1)
        assert file.pread(0, 100) == b"first and second"
    assert_sound(mine)


def test_an_open_reader_survives_when_its_slices_are_replaced(two: tuple[Volume, Volume]) -> None:
    """The objects under the view of an open file are gone: the view is read again."""
    mine, theirs = two
    content = random.Random(1).randbytes(2 * BLOCK)
    mine.files.write_bytes("/f", content)
    with theirs.files.open("/f") as file:
        assert file.pread(0, 10) == content[:10]
        theirs.blocks.cache.close()
        mine.files.write_bytes("/f", content[::-1])
        old = {info.key for info in mine.objects.scan("chunks/")}
        mine.meta.truncate(mine.files.who, mine.files.stat("/f").ino, 0)
        mine.files.compose("/g", [])
        assert len(old) == 4
        for key in old:
            mine.objects.delete(key)
        mine.files.write_bytes("/f", content[::-1])
        assert file.pread(0, 2 * BLOCK) == content[::-1]
    mine.files.unlink("/f")
    mine.collect()
    assert_sound(mine)


def test_a_block_that_is_gone_for_good_is_an_error(two: tuple[Volume, Volume]) -> None:
    mine, theirs = two
    mine.files.write_bytes("/f", b"x" * 100)
    for info in mine.objects.scan("chunks/"):
        mine.objects.delete(info.key)
    with pytest.raises(CorruptError, match="missing"):
        theirs.files.read_bytes("/f")
    mine.files.unlink("/f")
    mine.collect()
    assert_sound(mine)


def test_creates_race_to_one_winner(two: tuple[Volume, Volume]) -> None:
    volumes = two

    def attempt(number: int) -> bool:
        try:
            volumes[number % 2].files.open(f"/f{number // 2}", "xb").close()
        except Exists:
            return False
        return True

    with Pool("race", 4) as pool:
        won = list(pool.map_bounded(attempt, range(60)))
    assert [won[number] + won[number + 1] for number in range(0, 60, 2)] == [1] * 30
    assert len(volumes[0].files.listdir("/")) == 30
    assert_sound(volumes[0])


def test_renames_and_unlinks_race_without_loss(two: tuple[Volume, Volume]) -> None:
    volumes = two
    for number in range(20):
        volumes[0].files.write_bytes(f"/a{number}", b"x")

    def attempt(number: int) -> str:
        fs = volumes[number % 2].files
        try:
            if number % 4 < 2:
                fs.rename(f"/a{number // 4}", f"/b{number // 4}")
                return "renamed"
            fs.unlink(f"/a{number // 4}")
        except NotFound:
            return "missed"
        return "removed"

    with Pool("race", 4) as pool:
        outcomes = list(pool.map_bounded(attempt, range(80)))
    per_file = [outcomes[start : start + 4] for start in range(0, 80, 4)]
    for outcome in per_file:
        assert len([word for word in outcome if word != "missed"]) == 1
    left = volumes[1].files.listdir("/")
    assert len(left) == sum("renamed" in outcome for outcome in per_file)
    assert_sound(volumes[0])


def test_what_is_believed_for_a_second_does_no_harm(two: tuple[Volume, Volume]) -> None:
    """Files and directories that the other client replaced are found under their names at once when they are used."""
    mine, theirs = two[0].files, two[1].files
    mine.mkdir("/d/e", parents=True)
    mine.write_bytes("/d/e/f", b"old")
    mine.write_bytes("/top", b"old top")
    assert theirs.read_bytes("/d/e/f") == b"old"
    assert theirs.stat("/top").size == 7
    mine.rmtree("/d")
    mine.mkdir("/d/e", parents=True)
    mine.write_atomic("/d/e/f", b"new and longer", replace=True)
    mine.write_atomic("/top", b"new top, longer", replace=True)
    assert theirs.read_bytes("/d/e/f") == b"new and longer"
    theirs.create("/d/e/g")
    theirs.compose("/composed", [Range("/top", 0, 15)])
    assert mine.read_bytes("/composed") == b"new top, longer"
    mine.rmtree("/d")
    mine.mkdir("/d")
    theirs.mkdir("/d/e")
    theirs.setxattr("/d/e", "user.x", b"1")
    mine.unlink("/top")
    with pytest.raises(NotFound):
        theirs.open("/top", "r+b")
    with theirs.open("/top", "ab") as file:
        file.write(b"made anew")
    assert mine.read_bytes("/top") == b"made anew"
    assert_sound(two[0])


def test_a_read_only_client_changes_nothing(make_volume: MakeVolume) -> None:
    writer = make_volume()
    writer.files.write_bytes("/f", b"x")
    writer.files.mkdir("/d")
    writer.sync()
    reader = make_volume(read_only=True)
    assert reader.files.read_bytes("/f") == b"x"
    refused: list[Callable[[], object]] = [
        lambda: reader.files.write_bytes("/g", b""),
        lambda: reader.files.open("/f", "r+b"),
        lambda: reader.files.mkdir("/e"),
        lambda: reader.files.unlink("/f"),
        lambda: reader.files.rename("/f", "/g"),
        lambda: reader.files.chmod("/f", 0),
        lambda: reader.files.truncate("/f", 0),
        lambda: reader.files.compose("/c", []),
    ]
    for attempt in refused:
        with pytest.raises(ReadOnly):
            attempt()
    assert len(writer.meta.engine.sessions()) == 1
    assert_sound(writer)
