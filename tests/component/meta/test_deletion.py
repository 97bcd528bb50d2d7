"""The deletion of files' data goes on where records are damaged, and ends soon when its client goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fscore.domain.errors import UnavailableError
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT
from fscore.domain.locks import LockKind
from fscore.domain.setting import Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.records import DirStat
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.invariants import check_engine
from tests.kit.tree import SUPER, mkdir, mkfile, names, put

HOUR_S = 3600


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "meta.db"


@pytest.fixture
def clock() -> FakeClock:
    """The clock of every client."""
    return FakeClock()


@pytest.fixture
def meta(path: Path, clock: FakeClock) -> Iterator[MetaService]:
    """A client of a new volume without a trash."""
    engine = open_engine(f"sqlite3://{path}")
    MetaService.format(engine, Setting(name="gone", uuid="u", trash_days=0), clock)
    with MetaService.open(engine, clock, background=False) as opened:
        yield opened


def delete_three(meta: MetaService) -> list[int]:
    """Three files with data, deleted; their inodes."""
    inos = [mkfile(meta, name, 1000) for name in (b"a", b"b", b"c")]
    for name in (b"a", b"b", b"c"):
        meta.unlink(SUPER, ROOT, name)
    return inos


def damage(path: Path, ino: int) -> None:
    """Cut the stored list of a file's chunk."""
    with sqlite3.connect(path) as raw:
        assert raw.execute("UPDATE jfs_chunk SET slices = x'00' WHERE inode = ?", (ino,)).rowcount == 1
    raw.close()


def test_a_damaged_list_keeps_no_other_file(meta: MetaService, path: Path, clock: FakeClock) -> None:
    bad, _, _ = delete_three(meta)
    damage(path, bad)
    assert meta.purge_deleted() == 2
    assert list(meta.engine.scan_delfiles()) == [(bad, 1000)], "what may be mended stays queued"
    clock.advance(2 * HOUR_S)
    other = mkfile(meta, b"other", 1000)
    meta.unlink(SUPER, ROOT, b"other")
    meta._doomed.clear()
    clock.advance(2 * HOUR_S)
    assert meta.purge_deleted() == 1, "and it ends"
    assert list(meta.engine.scan_delfiles()) == [(bad, 1000)]
    assert other != bad


def test_who_leaves_drops_only_its_own(meta: MetaService, path: Path, clock: FakeClock) -> None:
    with MetaService.open(open_engine(f"sqlite3://{path}"), clock, background=False) as peer:
        mkfile(peer, b"theirs", 1000)
        peer.unlink(SUPER, ROOT, b"theirs")
        peer._doomed.clear()
        clock.advance(2 * HOUR_S)
        mkfile(meta, b"ours", 1000)
        meta.unlink(SUPER, ROOT, b"ours")
        sub = mkdir(meta, b"d")
        mkfile(meta, b"f", 0, sub)
        meta.leaving()
        assert not meta.remove_tree(ROOT, b"d", sub)
        assert set(names(meta, sub)) == {b"f"}
        assert meta.purge_trash() == meta.purge_delayed() == 0
        assert meta.purge_deleted() == 1
        assert peer.purge_deleted() == 1, "the gate was left to the others"


def test_who_leaves_stops_after_a_while(meta: MetaService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    delete_three(meta)
    forget = meta.engine.forget_delfile

    def slowly(ino: int, length: int) -> None:
        forget(ino, length)
        clock.advance(4)

    monkeypatch.setattr(meta.engine, "forget_delfile", slowly)
    meta.leaving()
    assert meta.purge_deleted() == 2
    assert len(list(meta.engine.scan_delfiles())) == 1


@pytest.fixture
def slow(meta: MetaService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> MetaService:
    """The client, each of whose transactions takes a second from now on."""
    transact = meta.engine.transact

    def slowly(body: Callable[[MetaTxn], object]) -> object:
        clock.advance(1)
        return transact(body)

    monkeypatch.setattr(meta.engine, "transact", slowly)
    return meta


def test_who_leaves_stops_in_the_middle_of_a_file(slow: MetaService, path: Path, clock: FakeClock) -> None:
    """1 TiB are 16,384 chunks: what is left of it is found by whoever looks after an hour."""
    big, chunks = mkfile(slow, b"big"), 20
    for index in range(chunks):
        put(slow, big, index * CHUNK, 1000)
    slow.unlink(SUPER, ROOT, b"big")
    slow.leaving()
    assert slow.purge_deleted() == 0
    left = [index for ino, index, _ in slow.engine.scan_chunks() if ino == big]
    assert chunks - 7 <= len(left) < chunks - 3
    assert [ino for ino, _ in slow.engine.scan_delfiles()] == [big]
    assert check_engine(slow.engine) == []
    with MetaService.open(open_engine(f"sqlite3://{path}"), clock, background=False) as peer:
        clock.advance(2 * HOUR_S)
        assert peer.purge_deleted() == 1
        assert not [*peer.engine.scan_chunks(), *peer.engine.scan_delfiles()]
        assert len(peer.dead()) == chunks
        assert check_engine(peer.engine) == []


def test_who_leaves_too_many_open_files_leaves_them_to_its_peers(
    slow: MetaService, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its session stays, expired, as long as there is something that only the session tells of."""
    with MetaService.open(open_engine(f"sqlite3://{path}"), slow._clock, background=False) as peer:
        locked = mkfile(slow, b"locked")
        assert slow.flock(locked, 1, LockKind.WRITE)
        for number in range(20):
            ino = mkfile(slow, b"%d" % number, 10)
            slow.open_file(SUPER, ino, write=False)
            slow.unlink(SUPER, ROOT, b"%d" % number)
        sid = slow.sid or 0
        slow.close()
        assert f"session {sid} leaves deleted files" in caplog.text
        assert 20 - 7 <= len(peer.engine.sustained(sid)) < 20 - 3
        assert sid in {session.sid for session in peer.engine.sessions()}
        assert check_engine(peer.engine) == []
        peer.beat()
        assert peer.engine.sustained(sid) == []
        assert {session.sid for session in peer.engine.sessions()} == {peer.sid}
        assert peer.statfs()[2:4] == (4096, 1)
        assert peer.flock(locked, 1, LockKind.WRITE)


def test_statistics_are_stored_though_the_purge_fails(
    meta: MetaService, path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = MetaService.open(open_engine(f"sqlite3://{path}"), clock, background=False)
    sub = mkdir(going, b"d")
    mkfile(going, b"kept", 1000, sub)
    delete_three(going)

    def fails(ino: int, length: int) -> None:
        raise UnavailableError("the server is gone")

    monkeypatch.setattr(going.engine, "forget_delfile", fails)
    with pytest.raises(UnavailableError):
        going.close()
    assert meta.engine.dir_stat(sub) == DirStat(1000, 4096, 1)
