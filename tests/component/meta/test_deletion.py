"""The deletion of files' data goes on where records are damaged, and ends soon when its client goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.domain.errors import UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.records import DirStat
from fscore.meta.service import MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.tree import SUPER, mkdir, mkfile, names

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
