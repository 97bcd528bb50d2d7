"""Locks as a transport asks for them: what is given back is given back, whatever else fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import Stale, UnavailableError, WouldBlock
from fscore.domain.locks import LockKind
from fscore.mount.api import LockRequest
from fscore.mount.operations import Operations
from fscore.mount.options import MountOptions
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume

SUPER = Caller.root()
EOF = (1 << 63) - 1
MINE, OTHER = 1, 2


@pytest.fixture
def puts() -> FaultPlan:
    """Heals at the end, so that the volume can be closed."""
    return FaultPlan(calls=frozenset({"put"}), error=UnavailableError)


@pytest.fixture
def volume(open_at: MakeVolume, puts: FaultPlan) -> Iterator[Volume]:
    """A volume whose store refuses what `puts` says."""
    yield open_at(object_store=Faulty(MemoryStore("locks"), puts), attempts=1, patience_s=(0.0,))
    puts.heal()


@pytest.fixture
def operations(volume: Volume) -> Operations:
    return Operations(volume.vfs, MountOptions())


def ranged(owner: int, kind: LockKind) -> LockRequest:
    """A request for a whole file's range."""
    return LockRequest(owner, kind, 0, EOF, os.getpid())


def test_what_cannot_be_written_does_not_keep_a_lock(operations: Operations, puts: FaultPlan) -> None:
    entry, file = operations.create(SUPER, 1, b"f", 0o644, os.O_RDWR)
    ino = entry.ino
    operations.flock(SUPER, ino, MINE, LockKind.WRITE)
    operations.setlk(SUPER, ino, ranged(MINE, LockKind.WRITE))
    operations.write(SUPER, ino, file.fh, 0, b"x" * 100)
    puts.at, puts.persistent = 1, True
    with pytest.raises(UnavailableError):
        operations.setlk(SUPER, ino, ranged(MINE, LockKind.UNLOCK))
    assert operations.getlk(SUPER, ino, ranged(OTHER, LockKind.WRITE)) is None
    with pytest.raises(UnavailableError):
        operations.release(SUPER, ino, file.fh, MINE, unlock=True)
    operations.flock(SUPER, ino, OTHER, LockKind.WRITE)


def test_ranges_that_were_not_given_back_are_with_the_next_close(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, file = operations.create(SUPER, 1, b"f", 0o644, os.O_RDWR)
    operations.setlk(SUPER, entry.ino, ranged(MINE, LockKind.WRITE))

    def down(_ino: int, _owner: int) -> None:
        raise UnavailableError("down")

    with monkeypatch.context() as outage:
        outage.setattr(operations.meta, "release_locks", down)
        with pytest.raises(UnavailableError):
            operations.flush(SUPER, entry.ino, file.fh, MINE)
    assert operations.getlk(SUPER, entry.ino, ranged(OTHER, LockKind.WRITE)) is not None
    operations.flush(SUPER, entry.ino, file.fh, MINE)
    assert operations.getlk(SUPER, entry.ino, ranged(OTHER, LockKind.WRITE)) is None
    operations.release(SUPER, entry.ino, file.fh)


class Notices:
    """Remembers what the kernel was told to forget, and whether the answer waited for that."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def inode(self, ino: int, *, data: bool = True, wait_s: float = 0.0) -> None:
        assert data
        self.told.append((ino, wait_s > 0))

    def entry(self, parent: int, name: bytes) -> None:
        raise AssertionError((parent, name))


def test_a_lock_tells_the_kernel_what_only_this_process_has_noticed(open_at: MakeVolume) -> None:
    here, there = open_at(), open_at()
    here.files.write_bytes("/f", b"first")
    operations = Operations(here.vfs, MountOptions())
    operations.notifier = notices = Notices()
    ino = operations.lookup(SUPER, 1, b"f").ino
    file = operations.open(SUPER, ino, os.O_RDONLY)
    operations.setlk(SUPER, ino, ranged(MINE, LockKind.READ))
    assert notices.told == [], "nothing has changed since the open"
    there.files.write_bytes("/f", b"the second")
    here.vfs.refresh(ino)  # as a read after a second does
    for kind in (LockKind.UNLOCK, LockKind.READ, LockKind.READ):
        operations.setlk(SUPER, ino, ranged(MINE, kind))
    assert notices.told == [(ino, True)], "once, and before the lock was answered"
    assert operations.open(SUPER, ino, os.O_RDONLY).keep_cache
    operations.release(SUPER, ino, file.fh)


def test_only_where_no_lock_can_be_held_is_close_not_told(open_at: MakeVolume) -> None:
    """FOPEN_NOFLUSH keeps FLUSH back, and FLUSH is what gives a closing program's ranges back."""
    first = open_at("memory://quiet", session=True)
    first.files.write_bytes("/f", b"x")
    first.files.set_immutable("/f", on=True)
    for volume, quiet in ((first, False), (open_at("memory://quiet", session=False), True)):
        operations = Operations(volume.vfs, MountOptions())
        ino, _ = volume.meta.resolve(SUPER, b"/f")
        file = operations.open(SUPER, ino, os.O_RDONLY)
        assert file.no_flush is quiet
        operations.release(SUPER, ino, file.fh)


def test_a_program_whose_locks_were_lost_is_told_by_every_way_it_may_ask(open_at: MakeVolume) -> None:
    """Its mount was suspended until a peer took it for dead, and that peer's program has the lock now."""
    here, there = open_at("memory://lost", session=True), open_at("memory://lost", session=True)
    operations = Operations(here.vfs, MountOptions())
    entry, file = operations.create(SUPER, 1, b"f", 0o644, os.O_RDWR)
    ino = entry.ino
    operations.flock(SUPER, ino, MINE, LockKind.WRITE)
    operations.setlk(SUPER, ino, ranged(MINE, LockKind.WRITE))
    assert here.meta.sid is not None
    there.meta.end_session(here.meta.sid)
    assert there.meta.flock(ino, OTHER, LockKind.WRITE)
    here.meta.beat()
    asking: tuple[Callable[[], object], ...] = (
        lambda: operations.flock(SUPER, ino, MINE, LockKind.READ),
        lambda: operations.setlk(SUPER, ino, ranged(MINE, LockKind.READ)),
        lambda: operations.getlk(SUPER, ino, ranged(MINE, LockKind.READ)),
        lambda: operations.flush(SUPER, ino, file.fh, MINE),
        lambda: operations.release(SUPER, ino, file.fh, MINE, unlock=True),
    )
    for asks in asking:
        with pytest.raises(Stale):
            asks()
    file = operations.open(SUPER, ino, os.O_RDWR)
    operations.setlk(SUPER, ino, ranged(MINE, LockKind.WRITE))
    with pytest.raises(WouldBlock):
        operations.flock(SUPER, ino, MINE, LockKind.WRITE)
    assert there.meta.flock(ino, OTHER, LockKind.UNLOCK)
    operations.flock(SUPER, ino, MINE, LockKind.WRITE)
    operations.flush(SUPER, ino, file.fh, MINE)
    operations.release(SUPER, ino, file.fh, MINE, unlock=True)
    assert there.meta.flock(ino, OTHER, LockKind.WRITE)


def test_a_closed_file_keeps_no_lock_when_the_server_is_back(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody closes it a second time."""
    entry, file = operations.create(SUPER, 1, b"f", 0o644, os.O_RDWR)
    operations.flock(SUPER, entry.ino, MINE, LockKind.WRITE)
    operations.setlk(SUPER, entry.ino, ranged(MINE, LockKind.WRITE))

    def down(_body: object) -> None:
        raise UnavailableError("down")

    with monkeypatch.context() as outage:
        outage.setattr(operations.meta.engine, "transact", down)
        with pytest.raises(UnavailableError):
            operations.flush(SUPER, entry.ino, file.fh, MINE)
        with pytest.raises(UnavailableError):
            operations.release(SUPER, entry.ino, file.fh, MINE, unlock=True)
    operations.meta.beat()
    operations.flock(SUPER, entry.ino, OTHER, LockKind.WRITE)
    operations.setlk(SUPER, entry.ino, ranged(OTHER, LockKind.WRITE))
