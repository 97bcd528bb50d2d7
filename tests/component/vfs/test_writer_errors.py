"""What a writer does when the world below refuses: errors surface, nothing half stays, the file is not lied about."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from fscore.admin.format import format_volume
from fscore.domain.caller import Caller
from fscore.domain.errors import NoSpace, NotFound, NotPermitted, UnavailableError
from fscore.meta.engines.registry import forget_memory, open_engine
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty, When
from fscore.volume import Volume, open_volume
from tests.kit.crash import faulty_engine
from tests.kit.volumes import assert_sound

BLOCK = 64 << 10


class World:
    """A volume over a store and an engine that fail when told to."""

    def __init__(self, **setting: object) -> None:
        self.name = uuid.uuid4().hex
        self.puts = FaultPlan(calls=frozenset({"put"}), error=UnavailableError)
        self.commits = FaultPlan(calls=frozenset({"transact"}), error=UnavailableError)
        self.store = MemoryStore(self.name)
        url = f"memory://{self.name}"
        chosen: dict[str, object] = {"trash_days": 0, "block_size": "64K"} | setting
        format_volume(url, "vol", storage="memory", bucket=self.name, object_store=self.store, **chosen)  # type: ignore[arg-type]
        self.volume: Volume = open_volume(
            url,
            object_store=Faulty(self.store, self.puts),
            meta_engine=faulty_engine(open_engine(url), self.commits),
            background=False,
            attempts=1,
            patience_s=(0.0,),
        )

    def keys(self) -> list[str]:
        return [info.key for info in self.store.scan("vol/chunks/")]

    def fail_puts(self, **how: object) -> None:
        self.puts.seen = 0
        self.puts.at, self.puts.persistent = 1, bool(how.get("persistent", False))

    def fail_commits(self, when: When) -> None:
        self.commits.seen, self.commits.when, self.commits.at = 0, when, 1


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.puts.heal()
    world.commits.heal()
    world.volume.close()
    forget_memory(world.name)


def test_a_failed_upload_surfaces_at_close_and_leaves_no_object(world: World) -> None:
    fs = world.volume.files
    world.fail_puts(persistent=True)
    file = fs.open("/f", "wb")
    file.write(b"x" * 100)
    with pytest.raises(UnavailableError):
        file.close()
    assert file.closed
    world.puts.heal()
    assert fs.read_bytes("/f") == b""
    assert world.keys() == []
    fs.write_bytes("/f", b"works again")
    assert fs.read_bytes("/f") == b"works again"
    assert_sound(world.volume)


def test_a_background_upload_that_failed_surfaces_at_a_later_call(world: World) -> None:
    fs = world.volume.files
    world.fail_puts()
    file = fs.open("/f", "wb")
    with pytest.raises(UnavailableError):
        file.writelines([b"y" * BLOCK] * 1000)
    for again in (lambda: file.write(b"z"), file.flush, file.close):
        with pytest.raises(UnavailableError):
            again()
    assert fs.read_bytes("/f") == b""
    assert world.keys() == []
    assert_sound(world.volume)


def test_a_commit_that_is_refused_deletes_its_objects() -> None:
    world = World(capacity=10 * 4096)
    fs = world.volume.files
    file = fs.open("/f", "wb")
    file.write(b"z" * (20 * 4096))
    with pytest.raises(NoSpace):
        file.close()
    assert world.keys() == []
    assert fs.stat("/f").size == 0
    fs.write_bytes("/g", b"z" * 4096)
    with pytest.raises(NoSpace):
        fs.write_atomic("/h", b"z" * (20 * 4096), replace=False)
    assert fs.listdir("/") == ["f", "g"]
    assert_sound(world.volume)
    world.volume.close()
    forget_memory(world.name)


def test_a_file_that_another_client_removed_takes_no_writes(world: World) -> None:
    fs = world.volume.files
    file = fs.open("/f", "wb")
    file.write(b"x" * 100)
    with open_volume(f"memory://{world.name}", object_store=world.store, background=False) as other:
        other.files.unlink("/f")
        other.collect()
    with pytest.raises(NotFound):
        file.close()
    assert world.keys() == []
    assert_sound(world.volume)


def test_a_commit_whose_answer_was_lost_counts(world: World) -> None:
    fs = world.volume.files
    file = fs.open("/f", "wb")
    file.write(b"x" * 100)
    world.fail_commits(When.AFTER)
    file.close()
    assert fs.read_bytes("/f") == b"x" * 100
    assert_sound(world.volume)


def test_a_commit_that_never_came_leaves_a_leak_at_worst(world: World) -> None:
    fs = world.volume.files
    file = fs.open("/f", "wb")
    file.write(b"x" * 100)
    world.fail_commits(When.BEFORE)
    with pytest.raises(UnavailableError):
        file.close()
    assert fs.read_bytes("/f") == b""
    assert len(world.keys()) == 1
    assert_sound(world.volume, leaks=True)


def test_a_file_made_immutable_while_open_takes_no_more(world: World) -> None:
    fs = world.volume.files
    file = fs.open("/f", "wb")
    file.write(b"first")
    file.flush()
    fs.set_immutable("/f", on=True)
    file.write(b"second")
    with pytest.raises(NotPermitted):
        file.close()
    assert fs.read_bytes("/f") == b"first"
    assert_sound(world.volume)


def test_memory_is_bounded_by_early_commits() -> None:
    name = uuid.uuid4().hex
    format_volume(f"memory://{name}", "vol", storage="memory", bucket=name, trash_days=0)
    with open_volume(f"memory://{name}", background=False, buffer_size=1 << 20) as volume:
        files = [volume.files.open(f"/{number}", "wb") for number in range(8)]
        for _ in range(20):
            for file in files:
                file.write(b"x" * (128 << 10))
            assert volume.vfs.buffered <= (1 << 20) + 8 * (256 << 10) + (128 << 10)
        for file in files:
            file.close()
        assert volume.vfs.buffered == 0
        assert {stat.size for stat in volume.files.scandir("/")} == {20 * (128 << 10)}
        assert_sound(volume)
    forget_memory(name)


def test_vfs_speaks_inodes_and_handles(world: World) -> None:
    vfs, root = world.volume.vfs, Caller.root()
    ino, attr, fh = vfs.create(root, 1, b"f", 0o644, os.O_RDWR)
    assert attr.is_file
    assert vfs.write(fh, 5, b"hello") == 5
    assert vfs.getattr(ino).length == 10
    again, _, second = vfs.create(root, 1, b"f", 0o644, os.O_RDONLY)
    assert again == ino
    buffer = bytearray(10)
    assert vfs.read_into(second, 0, memoryview(buffer)) == 10
    assert buffer == bytes(5) + b"hello"
    vfs.fsync(fh)
    vfs.release(fh)
    vfs.release(second)
    assert world.volume.meta.getattr(ino).length == 10
    third = vfs.open(root, ino, os.O_WRONLY | os.O_TRUNC)
    assert vfs.length(third) == 0
    vfs.release(third)
    assert_sound(world.volume)


def test_a_client_that_goes_takes_its_deleted_bytes_along(world: World) -> None:
    url = f"memory://{world.name}"
    world.volume.files.write_bytes("/kept", b"k" * BLOCK)
    with open_volume(url, object_store=world.store, background=False) as short_lived:
        short_lived.files.write_bytes("/f", b"x" * (3 * BLOCK))
        short_lived.files.unlink("/f")
    assert len(world.keys()) == 1
    assert_sound(world.volume)


def test_an_error_that_stays_does_not_grow(world: World) -> None:
    file = world.volume.files.open("/f", "wb")
    file.write(b"x" * 100)
    world.fail_puts(persistent=True)
    depths = []
    for _ in range(20):
        with pytest.raises(UnavailableError) as caught:
            file.flush()
        depths.append(len(caught.traceback))
    assert max(depths[1:]) == min(depths[1:])
    with pytest.raises(UnavailableError):
        file.close()


def test_an_error_goes_with_the_last_who_writes_though_others_read(world: World) -> None:
    fs, vfs, root = world.volume.files, world.volume.vfs, Caller.root()
    fs.write_bytes("/f", b"before")
    ino, _ = world.volume.meta.resolve(root, b"/f")
    reads, writes, also = (vfs.open(root, ino, flags) for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY))
    world.fail_puts(persistent=True)
    vfs.write(writes, 0, b"lost")
    for fh in (writes, also):
        with pytest.raises(UnavailableError):
            vfs.release(fh)
    world.puts.heal()
    assert bytes(vfs.read(reads, 0, 10)) == b"before"
    vfs.truncate(root, ino, 3)
    assert bytes(vfs.read(reads, 0, 10)) == b"bef"
    again = vfs.open(root, ino, os.O_RDWR | os.O_TRUNC)
    vfs.write(again, 0, b"anew")
    vfs.release(again)
    assert bytes(vfs.read(reads, 0, 10)) == b"anew"
    vfs.release(reads)
    assert_sound(world.volume)
