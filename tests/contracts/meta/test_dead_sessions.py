"""What clients leave behind when they die, and how the others clear it away; on every engine (volume-format.md 2.6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fscore.domain.errors import NotFound, Stale, UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.locks import EOF, LockKind, LockRange
from fscore.meta.records import LockOwner, Session
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from tests.kit.engines import MakeMeta
from tests.kit.tree import SUPER, mkfile

READ, WRITE, UNLOCK = LockKind.READ, LockKind.WRITE, LockKind.UNLOCK


def expire(meta: MetaService, dead: MetaService) -> int:
    """Let a client's session have expired long ago, and the last clean-up be as long ago."""
    assert dead.sid is not None
    meta.engine.put_session(Session(dead.sid, 5, b""))
    meta.engine.claim_job("lastCleanupSessions", 1, 0)
    return dead.sid


def test_locks_and_files_of_the_dead_go(make_meta: MakeMeta) -> None:
    dead, alive = make_meta(), make_meta()
    held, locked = mkfile(dead, b"held", 10), mkfile(dead, b"locked")
    dead.open_file(SUPER, held, write=False)
    dead.unlink(SUPER, ROOT, b"held")
    assert dead.flock(locked, 1, READ)
    assert dead.setlk(locked, 2, WRITE, 0, EOF, 5)
    assert not alive.flock(locked, 1, WRITE)
    sid = expire(alive, dead)
    alive.beat()
    assert sid not in {session.sid for session in alive.engine.sessions()}
    assert alive.flock(locked, 1, WRITE)
    assert alive.setlk(locked, 1, WRITE, 0, EOF, 5)
    with pytest.raises(NotFound):
        alive.getattr(held, fresh=True)
    assert alive.statfs()[2:4] == (4096, 1)


def test_who_was_taken_for_dead_registers_again(make_meta: MakeMeta) -> None:
    slow, alive = make_meta(), make_meta()
    ino = mkfile(slow, b"f")
    sid = expire(alive, slow)
    alive.beat()
    slow.beat()
    assert sid in {session.sid for session in alive.engine.sessions()}
    assert slow.flock(ino, 1, WRITE)
    assert not alive.flock(ino, 1, WRITE)


def test_who_held_locks_when_it_was_taken_for_dead_is_told(
    make_meta: MakeMeta, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever locked meanwhile may have changed what the lock protected: every owner hears of it, until it lets go."""
    slow, alive = make_meta(), make_meta()
    whole, ranges, other = (mkfile(slow, name) for name in (b"whole", b"ranges", b"other"))
    assert slow.flock(whole, 1, WRITE)
    assert slow.setlk(ranges, 2, WRITE, 0, 99, 5)
    assert slow.setlk(ranges, 3, READ, 200, 209, 5)
    assert slow.setlk(ranges, 4, READ, 300, 309, 5)
    assert slow.setlk(ranges, 4, UNLOCK, 300, 309, 5), "this one holds nothing any more"
    expire(alive, slow)
    alive.beat()
    assert alive.flock(whole, 1, WRITE)
    assert alive.flock(whole, 1, UNLOCK)
    slow.beat()
    assert f"locks of 3 programs are lost: peers took this client for dead (inodes {whole}, {ranges})" in caplog.text
    for _ in range(2):
        for asks in (
            lambda: slow.flock(whole, 1, READ),
            lambda: slow.setlk(ranges, 2, WRITE, 500, 501, 5),
            lambda: slow.getlk(ranges, 2, WRITE, 500, 501),
            lambda: slow.setlk(ranges, 3, UNLOCK, 200, 204, 5),
        ):
            with pytest.raises(Stale, match="lock anew"):
                asks()
    assert slow.setlk(ranges, 4, WRITE, 300, 309, 5)
    assert slow.flock(other, 1, WRITE), "of this file it had no lock"
    assert alive.setlk(ranges, 2, WRITE, 0, 99, 6)
    for lets_go in (
        lambda: slow.flock(whole, 1, UNLOCK),
        lambda: slow.release_locks(ranges, 2),
        lambda: slow.setlk(ranges, 3, UNLOCK, 205, EOF, 5),
    ):
        with pytest.raises(Stale):
            lets_go()
    assert slow.flock(whole, 1, WRITE)
    assert not slow.setlk(ranges, 2, WRITE, 0, 99, 5)
    assert slow.setlk(ranges, 3, READ, 200, 209, 5)
    slow.release_locks(ranges, 2)
    slow.beat()
    assert slow.flock(whole, 1, READ)


def test_a_lock_got_while_its_session_ends_is_lost(make_meta: MakeMeta, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a lock comes before the peers clear it away, and is looked at after that."""
    slow, alive = make_meta(), make_meta()
    ino = mkfile(slow, b"f")
    transact = slow.engine.transact

    def suspended(body: Callable[[MetaTxn], object]) -> object:
        answer = transact(body)
        monkeypatch.setattr(slow.engine, "transact", transact)
        expire(alive, slow)
        alive.beat()
        slow.beat()
        return answer

    monkeypatch.setattr(slow.engine, "transact", suspended)
    with pytest.raises(Stale):
        slow.flock(ino, 1, WRITE)
    with pytest.raises(Stale):
        slow.flock(ino, 1, UNLOCK)
    assert slow.flock(ino, 1, WRITE)


def test_open_files_without_a_name_are_held_again_or_lost(
    make_meta: MakeMeta, caplog: pytest.LogCaptureFixture
) -> None:
    slow, alive = make_meta(), make_meta()
    held = mkfile(slow, b"held", 10)
    slow.open_file(SUPER, held, write=False)
    slow.unlink(SUPER, ROOT, b"held")
    sid = expire(alive, slow)
    slow.engine.drop_session(sid)

    def forget(txn: MetaTxn) -> None:
        txn.unsustain(sid, held)

    slow.engine.transact(forget)
    slow.beat()
    assert alive.engine.sustained(sid) == [held], "its peers had not come to it yet"
    assert slow.getattr(held).nlink == 0
    alive.end_session(sid)
    slow.beat()
    assert f"open inode {held}, which has no name, is lost" in caplog.text
    alive.purge_deleted()
    for looks in (lambda: slow.getattr(held), lambda: slow.records(held, 0)):
        with pytest.raises(NotFound):
            looks()
    slow.close_file(held)


def test_who_was_away_itself_gives_its_peers_one_more_heartbeat(
    make_meta: MakeMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage every session has expired, and one client is the first to be back."""
    first, peer = make_meta(), make_meta()
    held, locked = mkfile(peer, b"held", 10), mkfile(peer, b"locked")
    peer.open_file(SUPER, held, write=False)
    peer.unlink(SUPER, ROOT, b"held")
    assert peer.flock(locked, 1, WRITE)
    start_s = first.engine.server_time()
    monkeypatch.setattr(first.engine, "server_time", lambda: start_s + 70)
    first.beat()
    assert first.getattr(held, fresh=True).nlink == 0
    assert not first.flock(locked, 1, WRITE)
    monkeypatch.setattr(first.engine, "server_time", lambda: start_s + 82)
    first.beat()
    with pytest.raises(NotFound):
        first.getattr(held, fresh=True)
    assert first.flock(locked, 1, WRITE)


def test_a_session_that_is_back_while_others_are_cleared_away_stays(
    make_meta: MakeMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, slow, alive = make_meta(), make_meta(), make_meta()
    gone, back = expire(alive, dead), expire(alive, slow)
    end = alive.end_session

    def takes_long(sid: int, stop: Callable[[], bool]) -> bool:
        over = end(sid, stop)
        if sid == gone:
            slow.beat()
        return over

    monkeypatch.setattr(alive, "end_session", takes_long)
    alive.beat()
    left = {session.sid for session in alive.engine.sessions()}
    assert gone not in left
    assert back in left


def test_one_session_that_cannot_be_cleared_away_does_not_keep_the_others(
    make_meta: MakeMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, dead, alive = make_meta(), make_meta(), make_meta()
    first, second = expire(alive, stuck), expire(alive, dead)
    drop = alive.engine.drop_session

    def fails_for_one(sid: int) -> None:
        if sid == first:
            raise UnavailableError("a row is locked")
        drop(sid)

    with monkeypatch.context() as patched:
        patched.setattr(alive.engine, "drop_session", fails_for_one)
        alive.beat()
    left = {session.sid for session in alive.engine.sessions()}
    assert first in left
    assert second not in left
    alive.end_session(first)
    assert first not in {session.sid for session in alive.engine.sessions()}


def test_locks_without_a_session_stand_in_nobodys_way(make_meta: MakeMeta) -> None:
    """1.4.1 forgets the shared locks of a client that died, on Redis; whoever is blocked by one finds that out."""
    meta, other = make_meta(), make_meta()
    ino = mkfile(meta, b"f")
    ghost = LockOwner(99, 7)

    def haunt(txn: MetaTxn) -> None:
        whole, ranges = txn.flocks(ino), txn.plocks(ino)
        assert not whole
        assert not ranges
        txn.put_flock(ino, ghost, READ)
        txn.put_plock(ino, ghost, (LockRange(WRITE, 5, 0, 9),))

    meta.engine.transact(haunt)
    assert other.flock(ino, 1, READ)
    assert not meta.flock(ino, 1, WRITE), "the ghost is gone, the other one is alive"
    with meta.engine.view() as view:
        assert set(view.flocks(ino)) == {LockOwner(other.sid or 0, 1)}
        assert view.plocks(ino) == {}
    assert meta.setlk(ino, 1, WRITE, 0, 9, 5)
