"""Locks between clients and between programs of one client, on every engine (volume-format.md 2.7)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from fscore.domain.errors import Invalid, ReadOnly, UnavailableError, Unsupported
from fscore.domain.locks import EOF, LockKind, LockRange
from fscore.meta.engine import MetaEngine
from fscore.meta.records import LockOwner, want_flocks, want_plocks
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.threads import together
from tests.kit.tree import mkfile

READ, WRITE, UNLOCK = LockKind.READ, LockKind.WRITE, LockKind.UNLOCK
A, B = 0xD8E6F55110705D44, 7
Outage = Callable[[MetaService], AbstractContextManager[None]]


def flocks(meta: MetaService, ino: int) -> dict[LockOwner, LockKind]:
    """Whole locks as stored."""
    with meta.engine.view() as view:
        return dict(view.flocks(ino))


def plocks(meta: MetaService, ino: int) -> dict[LockOwner, tuple[LockRange, ...]]:
    """Ranges as stored."""
    with meta.engine.view() as view:
        return dict(view.plocks(ino))


def test_many_may_read_one_may_write(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, READ)
    assert one.flock(ino, B, READ)
    assert two.flock(ino, A, READ), "the same number in another session is another owner"
    assert not two.flock(ino, B, WRITE)
    assert set(flocks(one, ino)) == {LockOwner(1, A), LockOwner(1, B), LockOwner(2, A)}
    for meta, owner in ((one, A), (one, B), (two, A)):
        assert meta.flock(ino, owner, UNLOCK)
    assert flocks(one, ino) == {}
    assert two.flock(ino, B, WRITE)
    assert not one.flock(ino, A, READ)
    assert two.flock(ino, B, UNLOCK)


def test_a_reader_becomes_a_writer_when_alone_and_a_writer_a_reader(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, READ)
    assert one.flock(ino, A, WRITE)
    assert flocks(one, ino) == {LockOwner(1, A): WRITE}
    assert one.flock(ino, A, READ)
    assert two.flock(ino, A, READ)
    assert not one.flock(ino, A, WRITE)
    assert flocks(one, ino) == {LockOwner(2, A): READ}, "flock(2) gives up the old lock before it asks for the new"
    assert two.flock(ino, A, WRITE), "so that two readers who both want to write do not wait for each other"
    assert two.flock(ino, A, UNLOCK)


def test_ranges_conflict_where_they_overlap_and_one_writes(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f")
    assert one.setlk(ino, A, WRITE, 50, 149, 11)
    assert one.setlk(ino, A, READ, 500, 509, 11)
    assert not two.setlk(ino, A, READ, 0, 50, 22)
    assert not two.setlk(ino, A, WRITE, 509, EOF, 22)
    assert two.setlk(ino, A, READ, 400, 600, 22)
    assert two.setlk(ino, A, WRITE, 150, 399, 22)
    assert two.getlk(ino, A, READ, 0, EOF) == LockRange(WRITE, 0, 50, 149), (
        "a process number of another host says nothing"
    )
    assert one.getlk(ino, B, WRITE, 505, EOF) == LockRange(READ, 0, 400, 600), "the first one"
    assert one.getlk(ino, B, READ, 0, 99) == LockRange(WRITE, 11, 50, 149)
    assert one.getlk(ino, A, WRITE, 0, 149) is None, "one's own locks are in nobody's way"
    assert one.getlk(ino, B, UNLOCK, 0, EOF) is None
    assert not one.setlk(ino, A, WRITE, 0, 200, 11)
    assert plocks(one, ino)[LockOwner(1, A)] == (LockRange(WRITE, 11, 50, 149), LockRange(READ, 11, 500, 509))


def test_ranges_split_merge_and_go(meta: MetaService) -> None:
    ino = mkfile(meta, b"f")
    owner = LockOwner(1, A)
    assert meta.setlk(ino, A, READ, 0, EOF, 5)
    assert meta.setlk(ino, A, WRITE, 10, 19, 5)
    assert [one[2:] for one in plocks(meta, ino)[owner]] == [(0, 9), (10, 19), (20, EOF)]
    assert meta.setlk(ino, A, READ, 10, 19, 5)
    assert plocks(meta, ino) == {owner: (LockRange(READ, 5, 0, EOF),)}
    assert meta.setlk(ino, A, UNLOCK, 5, 9, 5)
    assert [one[2:] for one in plocks(meta, ino)[owner]] == [(0, 4), (10, EOF)]
    assert meta.setlk(ino, A, UNLOCK, 0, EOF, 5)
    assert plocks(meta, ino) == {}
    for start, end in ((-1, 5), (6, 5), (0, EOF + 1)):
        with pytest.raises(Invalid):
            meta.setlk(ino, A, WRITE, start, end, 5)


def test_close_lets_the_ranges_of_an_owner_go(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, B, WRITE)
    for start in (0, 100, 200):
        assert one.setlk(ino, A, WRITE, start, start + 9, 5)
    assert one.setlk(ino, B, WRITE, 300, 309, 5)
    one.release_locks(ino, A)
    assert set(plocks(one, ino)) == {LockOwner(1, B)}
    assert two.setlk(ino, A, WRITE, 0, 299, 6)
    assert flocks(one, ino) == {LockOwner(1, B): WRITE}, "whole locks go by a call of their own"


def test_unlocking_what_was_never_locked_asks_nobody(meta: MetaService, monkeypatch: pytest.MonkeyPatch) -> None:
    ino = mkfile(meta, b"f")

    def refused(*_: object) -> None:
        raise AssertionError("a transaction was begun")

    with monkeypatch.context() as patched:
        patched.setattr(meta.engine, "transact", refused)
        meta.release_locks(ino, A)
        assert meta.flock(ino, A, UNLOCK)
        assert meta.setlk(ino, A, UNLOCK, 0, EOF, 1)
    assert meta.setlk(ino, A, WRITE, 0, 9, 1)
    meta.release_locks(ino, A)
    assert plocks(meta, ino) == {}


def test_the_end_of_a_session_is_the_end_of_its_locks(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, READ)
    assert two.flock(ino, A, READ)
    assert one.setlk(ino, A, WRITE, 0, EOF, 5)
    assert not two.setlk(ino, B, READ, 1, 1, 6)
    one.close()
    assert flocks(two, ino) == {LockOwner(2, A): READ}
    assert plocks(two, ino) == {}
    assert two.flock(ino, A, WRITE)
    assert two.engine.used_features() == {"locks"}


def test_who_cannot_lock(make_meta: MakeMeta) -> None:
    writer = make_meta()
    ino = mkfile(writer, b"f")
    with pytest.raises(Unsupported):
        make_meta(session=False).flock(ino, A, READ)
    reader = make_meta(read_only=True)
    with pytest.raises(ReadOnly):
        reader.setlk(ino, A, READ, 0, 1, 1)
    assert writer.setlk(ino, A, WRITE, 0, 1, 1)
    assert reader.getlk(ino, A, READ, 0, 1) == LockRange(WRITE, 0, 0, 1)


def test_a_volume_with_locks_is_open_to_writers(make_meta: MakeMeta) -> None:
    one = make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, READ)
    two = make_meta()
    mkfile(two, b"g")
    assert two.engine.used_features() == {"locks"}


@pytest.mark.parametrize("ranges", [False, True])
def test_of_many_who_race_one_has_the_lock(make_meta: MakeMeta, ranges: bool) -> None:
    clients = [make_meta(), make_meta()]
    ino = mkfile(clients[0], b"f")
    counter = 0
    torn = threading.Event()

    def contend(number: int) -> None:
        nonlocal counter
        meta = clients[number % 2]
        for _ in range(10):
            while not (meta.setlk(ino, number, WRITE, 5, 9, number) if ranges else meta.flock(ino, number, WRITE)):
                torn.wait(0.001)
            seen = counter
            torn.wait(0.0005)
            counter = seen + 1
            assert meta.setlk(ino, number, UNLOCK, 0, EOF, 0) if ranges else meta.flock(ino, number, UNLOCK)

    together(*(lambda number=number: contend(number) for number in range(4)))
    assert counter == 40
    assert (plocks if ranges else flocks)(clients[0], ino) == {}


def test_records_of_locks(meta_engine: MetaEngine) -> None:
    """What an engine promises: records in, records out, an owner's number with all its 64 bits."""
    engine = meta_engine
    engine.init_volume(b"{}", {})
    low, high = LockOwner(3, 1), LockOwner(3, (1 << 64) - 1)
    ranges = (LockRange(READ, 2, 0, 4), LockRange(WRITE, 2, 5, EOF))

    def take(txn: MetaTxn) -> None:
        txn.prefetch(want_flocks(9), want_plocks(9))
        assert (txn.flocks(9), txn.plocks(9)) == ({}, {})
        txn.put_flock(9, low, READ)
        txn.put_flock(9, high, WRITE)
        txn.put_plock(9, high, ranges)

    engine.transact(take)
    with engine.view() as view:
        assert view.flocks(9) == {low: READ, high: WRITE}
        assert view.plocks(9) == {high: ranges}
        assert view.flocks(8) == {}

    def change(txn: MetaTxn) -> None:
        held = txn.flocks(9)
        assert txn.plocks(9)[high] == ranges
        txn.put_flock(9, low, WRITE)
        txn.put_flock(9, next(owner for owner in held if owner != low), UNLOCK)
        txn.put_plock(9, high, ())

    engine.transact(change)
    with engine.view() as view:
        assert view.flocks(9) == {low: WRITE}
        assert view.plocks(9) == {}
    engine.drop_session(3)
    with engine.view() as view:
        assert view.flocks(9) == {}


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Lets a client's transactions fail as if its server were away."""

    def away(*_: object) -> None:
        raise UnavailableError("the server is away")

    @contextmanager
    def begin(meta: MetaService) -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(meta.engine, "transact", away)
            yield

    return begin


def test_an_unlock_that_failed_is_made_up_for(make_meta: MakeMeta, outage: Outage) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, WRITE)
    assert one.setlk(ino, A, WRITE, 0, 99, 5)
    assert one.setlk(ino, B, READ, 200, 209, 5)
    with outage(one):
        for fails in (
            lambda: one.flock(ino, A, UNLOCK),
            lambda: one.setlk(ino, A, UNLOCK, 10, 19, 5),
            lambda: one.release_locks(ino, B),
            lambda: one._repay(("flock", ino, A)),
        ):
            with pytest.raises(UnavailableError):
                fails()
        one._repay_all()
    assert set(flocks(two, ino)) == {LockOwner(1, A)}
    one.beat()
    assert flocks(two, ino) == {}
    assert {owner.owner: [r[2:] for r in held] for owner, held in plocks(two, ino).items()} == {A: [(0, 9), (20, 99)]}
    assert two.flock(ino, A, WRITE)
    assert two.flock(ino, A, UNLOCK)


def test_an_unlock_is_owed_when_the_heartbeat_is_late_too(
    make_meta: MakeMeta, meta_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long outage the session is refreshed before anything is written, and that fails first."""
    one = make_meta(background=True, heartbeat_s=3600.0)
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, WRITE)
    assert one.setlk(ino, A, WRITE, 0, 99, 5)
    meta_clock.advance(6 * 3600)

    def away() -> bytes:
        raise UnavailableError("the server is away")

    with monkeypatch.context() as patched:
        patched.setattr(one.engine, "load_setting", away)
        for fails in (lambda: one.flock(ino, A, UNLOCK), lambda: one.release_locks(ino, A)):
            with pytest.raises(UnavailableError):
                fails()
        assert one.flock(ino, B, UNLOCK), "who holds nothing waits for nobody"
        assert one.setlk(ino, B, UNLOCK, 0, EOF, 5)
    one.beat()
    assert (flocks(one, ino), plocks(one, ino)) == ({}, {})


def test_who_locks_again_keeps_what_it_gets(make_meta: MakeMeta, outage: Outage) -> None:
    """An unlock that is still owed is older than the lock."""
    one = make_meta()
    ino = mkfile(one, b"f")
    assert one.flock(ino, A, WRITE)
    assert one.setlk(ino, A, WRITE, 0, 99, 5)
    with outage(one):
        with pytest.raises(UnavailableError):
            one.flock(ino, A, UNLOCK)
        with pytest.raises(UnavailableError):
            one.setlk(ino, A, UNLOCK, 0, EOF, 5)
        with pytest.raises(UnavailableError):
            one.flock(ino, A, READ)
    assert one.flock(ino, A, READ)
    assert one.setlk(ino, A, READ, 5, 9, 5)
    one.beat()
    assert flocks(one, ino) == {LockOwner(1, A): READ}
    assert plocks(one, ino) == {LockOwner(1, A): (LockRange(READ, 5, 5, 9),)}
    one.release_locks(ino, A)
    assert one.flock(ino, A, UNLOCK)
    assert (flocks(one, ino), plocks(one, ino)) == ({}, {})
