"""Clients among each other: sessions, files deleted while open, settings that change, limits; on every engine."""

from __future__ import annotations

import json
import os
import time

import pytest
from msgspec.structs import replace

from fscore import __version__
from fscore.domain.errors import NoSpace, NotFound, ReadOnly, SettingError, Stale
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.registry import open_engine
from fscore.meta.records import DirStat, Session
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.threads import ours
from tests.kit.tree import SUPER, mkdir, mkfile, names, put


def sessions(meta: MetaService) -> dict[int, Session]:
    """Registered sessions by number."""
    return {session.sid: session for session in meta.engine.sessions()}


def test_a_session_describes_its_client(make_meta: MakeMeta) -> None:
    meta = make_meta(heartbeat_s=12.0, place="/mnt/x")
    assert meta.sid == 1
    session = sessions(meta)[1]
    info = json.loads(session.info)
    assert list(info) == ["Version", "HostName", "IPAddrs", "MountPoint", "MountTime", "ProcessID"]
    assert info["Version"] == f"1.4.1+fscore.{__version__}"
    assert (info["MountPoint"], info["ProcessID"]) == ("/mnt/x", os.getpid())
    assert info["MountTime"] == "2023-11-14T22:13:20.000000000Z"
    assert abs(session.expires - meta.engine.server_time() - 60) < 5


def test_who_gets_a_session(make_meta: MakeMeta) -> None:
    writer = make_meta()
    assert make_meta(read_only=True).sid is None
    assert make_meta(session=False).sid is None
    second = make_meta()
    assert set(sessions(writer)) == {1, 2}
    second.close()
    assert set(sessions(writer)) == {1}


def test_a_heartbeat_moves_the_expiry_and_registers_again(make_meta: MakeMeta) -> None:
    meta = make_meta()
    assert meta.sid is not None
    before = sessions(meta)[1]
    meta.engine.put_session(Session(1, 5, b"{}"))
    assert sessions(meta)[1] == Session(1, 5, before.info), "what describes it stays"
    meta.beat()
    assert sessions(meta)[1].expires > before.expires - 5
    meta.engine.drop_session(1)
    meta.beat()
    assert sessions(meta)[1].info == before.info


def test_a_file_deleted_while_open_lives_until_its_last_close(meta: MetaService) -> None:
    ino = mkfile(meta, b"f", 10_000)
    meta.setxattr(SUPER, ino, b"user.a", b"1")
    for _ in range(2):
        meta.open_file(SUPER, ino, write=True)
    meta.unlink(SUPER, ROOT, b"f")
    assert meta.getattr(ino).nlink == 0
    assert meta.sid is not None
    assert meta.engine.sustained(meta.sid) == [ino]
    assert meta.statfs()[2:4] == (12288, 1)
    put(meta, ino, 10_000, 10_000)
    assert meta.statfs()[2:4] == (20480, 1)
    assert meta.purge_deleted() == 0
    meta.close_file(ino)
    assert meta.getattr(ino).length == 20_000
    meta.close_file(ino)
    with pytest.raises(NotFound):
        meta.getattr(ino)
    assert meta.engine.sustained(meta.sid) == []
    assert meta.statfs()[2:4] == (0, 0)
    assert meta.purge_deleted() == 1
    assert len(meta.dead()) == 2


def test_a_replaced_file_that_is_open_is_sustained(meta: MetaService) -> None:
    ino = mkfile(meta, b"old", 10)
    mkfile(meta, b"new")
    meta.open_file(SUPER, ino, write=False)
    meta.rename(SUPER, ROOT, b"new", ROOT, b"old")
    assert meta.getattr(ino).nlink == 0
    meta.close_file(ino)
    with pytest.raises(NotFound):
        meta.getattr(ino)


def test_without_a_session_nothing_is_sustained(make_meta: MakeMeta) -> None:
    meta = make_meta(session=False)
    ino = mkfile(meta, b"f", 10)
    meta.open_file(SUPER, ino, write=False)
    meta.unlink(SUPER, ROOT, b"f")
    with pytest.raises(NotFound):
        meta.getattr(ino)
    meta.close_file(ino)


def test_closing_the_client_lets_go(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    ino = mkfile(one, b"f", 10)
    one.open_file(SUPER, ino, write=False)
    one.unlink(SUPER, ROOT, b"f")
    one.close()
    with pytest.raises(NotFound):
        two.getattr(ino)
    assert two.statfs()[2:4] == (0, 0)


def test_peers_clean_up_after_a_client_that_died(make_meta: MakeMeta) -> None:
    dead, alive = make_meta(), make_meta()
    ino = mkfile(dead, b"f", 10)
    dead.open_file(SUPER, ino, write=False)
    dead.unlink(SUPER, ROOT, b"f")
    assert dead.sid is not None
    alive.beat()
    assert dead.sid in sessions(alive), "it has not expired yet"
    alive.engine.put_session(Session(dead.sid, 5, b""))
    alive.engine.claim_job("lastCleanupSessions", int(alive.engine.server_time()), 0)
    alive.beat()
    assert dead.sid in sessions(alive), "one cleaner in 0.9 heartbeats"
    later = MetaService.open(alive.engine, alive._clock, background=False, heartbeat_s=0.001, session=True, cache_s=0.0)
    time.sleep(1.1)
    later.beat()
    assert dead.sid in sessions(alive), "who was late itself does not judge"
    later.beat()
    assert dead.sid not in sessions(alive)
    assert alive.engine.sustained(dead.sid) == []
    assert alive.statfs()[2:4] == (0, 0)
    later.end_session(later.sid or 0)


def test_an_open_client_follows_the_setting(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    mkfile(one, b"f", 10)
    one.engine.store_setting(replace(one.setting, trash_days=3, inodes=1).render())
    two.beat()
    with pytest.raises(NoSpace):
        two.create(SUPER, ROOT, b"g", 0o644)
    assert two.setting.trash_days == 3
    two.engine.store_setting(replace(one.setting, inodes=0).render())
    two.beat()
    mkfile(two, b"g")


def test_a_client_stops_when_its_volume_is_another(make_meta: MakeMeta) -> None:
    meta, reader = make_meta(), make_meta(read_only=True)
    mkfile(meta, b"f")
    whole = meta.setting
    meta.engine.store_setting(replace(whole, uuid="00000000-0000-4000-8000-000000000000").render())
    for client in (meta, reader):
        client.beat()
        with pytest.raises(Stale, match="UUID"):
            client.getattr(ROOT)
        with pytest.raises(Stale):
            client.lookup(SUPER, ROOT, b"f")
    with pytest.raises(Stale):
        meta.create(SUPER, ROOT, b"g", 0o644)
    meta.engine.store_setting(replace(whole, meta_version=2).render())
    meta.beat()
    with pytest.raises(Stale, match="version 2"):
        meta.readdir(SUPER, ROOT)
    meta.engine.store_setting(whole.render())
    for client in (meta, reader):
        client.beat()
        assert set(names(client)) == {b"f"}


def test_a_read_only_client_writes_nothing(make_meta: MakeMeta) -> None:
    writer, reader = make_meta(), make_meta(read_only=True)
    ino = mkfile(writer, b"f", 10)
    for forbidden in (
        lambda: reader.create(SUPER, ROOT, b"g", 0o644),
        lambda: reader.unlink(SUPER, ROOT, b"f"),
        lambda: reader.truncate(SUPER, ino, 0),
        lambda: reader.open_file(SUPER, ino, write=True),
        lambda: reader.setxattr(SUPER, ino, b"user.a", b""),
        reader.new_slice_id,
        reader.dead,
        reader.purge_trash,
    ):
        with pytest.raises(ReadOnly):
            forbidden()
    assert reader.open_file(SUPER, ino, write=False).length == 10
    assert reader.resolve(SUPER, b"/f")[0] == ino


def test_limits(make_meta: MakeMeta) -> None:
    meta = make_meta(setting={"capacity": 5 * 4096, "inodes": 3})
    ino = mkfile(meta, b"a", 4096)
    mkfile(meta, b"b")
    mkdir(meta, b"c")
    with pytest.raises(NoSpace):
        mkfile(meta, b"d")
    assert meta.statfs() == (5 * 4096, 2 * 4096, 3 * 4096, 3, 0)
    put(meta, ino, 0, 3 * 4096)
    with pytest.raises(NoSpace):
        put(meta, ino, 0, 4 * 4096)
    with pytest.raises(NoSpace):
        meta.truncate(SUPER, ino, 100_000)
    put(meta, ino, 0, 100)
    with pytest.raises(NoSpace):
        meta.clone(SUPER, ino, ROOT, b"clone")
    meta.unlink(SUPER, ROOT, b"b")
    meta.unlink(SUPER, ROOT, b"a")
    mkfile(meta, b"d", 4 * 4096)
    meta.link(SUPER, names(meta)[b"d"], ROOT, b"e")
    meta.purge_deleted()


def test_a_foreign_client_counts_after_a_heartbeat(make_meta: MakeMeta) -> None:
    one, two = make_meta(setting={"inodes": 2}), make_meta()
    mkfile(one, b"a")
    mkfile(one, b"b")
    one.flush()
    two.beat()
    with pytest.raises(NoSpace):
        mkfile(two, b"c")


def test_statistics_are_flushed_at_the_end(make_meta: MakeMeta) -> None:
    one, two = make_meta(), make_meta()
    sub = mkdir(one, b"d")
    mkfile(one, b"f", 5000, parent=sub)
    assert two.engine.dir_stat(sub) == DirStat(0, 0, 0)
    one.close()
    assert two.engine.dir_stat(sub) == DirStat(5000, 8192, 1)


def test_missing_statistics_are_counted_anew(make_meta: MakeMeta) -> None:
    meta = make_meta(setting={"dir_stats": False})
    sub = mkdir(meta, b"d")
    for index in range(5):
        mkfile(meta, b"%d" % index, 100, parent=sub)
    assert meta.engine.dir_stat(sub) is None
    meta.engine.store_setting(replace(meta.setting, dir_stats=True).render())
    meta.beat()
    put(meta, names(meta, sub)[b"0"], 100, 100)
    assert meta.dir_stat(sub) == DirStat(600, 5 * 4096, 5)


def test_tickers_beat_and_stop(make_meta: MakeMeta) -> None:
    before = ours()
    meta = make_meta(background=True, heartbeat_s=0.05)
    meta.engine.drop_session(meta.sid or 0)
    sub = mkdir(meta, b"d")
    mkfile(meta, b"f", 5000, parent=sub)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not (sessions(meta) and meta.engine.dir_stat(sub) == (5000, 8192, 1)):
        time.sleep(0.02)
    assert sessions(meta)
    assert meta.engine.dir_stat(sub) == DirStat(5000, 8192, 1)
    assert len(ours() - before) == 2
    meta.close()
    assert ours() <= before


def test_opening_what_is_no_volume(engine_url: str, meta_clock: FakeClock) -> None:
    engine = open_engine(engine_url)
    try:
        with pytest.raises(SettingError, match="format"):
            MetaService.open(engine, meta_clock)
        setting = Setting(name="vol", uuid="u", secret_key="s3cret", access_key="me")
        stored = MetaService.format(engine, setting, meta_clock)
        assert stored.key_encrypted
        assert stored.secret_key != "s3cret"
        with pytest.raises(SettingError):
            MetaService.format(engine, setting, meta_clock)
        with MetaService.open(open_engine(engine_url), meta_clock, read_only=True, background=False) as meta:
            assert meta.setting == stored
            assert meta.setting.with_plain_secrets().secret_key == "s3cret"
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("change", "readable"),
    [
        ({"unknown": {"Brand": "new"}}, True),
        ({"meta_version": 2}, False),
        ({"min_client_version": "9.0.0"}, False),
        ({"max_client_version": "1.0.0"}, False),
        ({"compression": "brotli"}, False),
        ({"encrypt_key": "-----BEGIN", "encrypt_algo": "sm4gcm"}, False),
        ({"ranger_rest_url": "http://ranger"}, False),
    ],
)
def test_volumes_that_use_what_is_not_built(
    engine_url: str, meta_clock: FakeClock, change: dict[str, object], *, readable: bool
) -> None:
    engine = open_engine(engine_url)
    MetaService.format(engine, Setting(name="vol", uuid="u"), meta_clock)
    engine.store_setting(replace(Setting(name="vol", uuid="u"), **change).render())
    with pytest.raises(SettingError, match="must not open") as refused:
        MetaService.open(engine, meta_clock, background=False)
    assert ("read-only" in str(refused.value)) is readable
    assert "\n" not in str(refused.value)
    if readable:
        with MetaService.open(engine, meta_clock, read_only=True, background=False) as meta:
            assert meta.getattr(ROOT).nlink == 2
    else:
        with pytest.raises(SettingError):
            MetaService.open(engine, meta_clock, read_only=True, background=False)
        engine.close()


def test_a_late_heartbeat_is_made_up_for_before_a_write(
    make_meta: MakeMeta, meta_clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    meta = make_meta(background=True, heartbeat_s=3600.0)
    meta.engine.drop_session(meta.sid or 0)
    mkfile(meta, b"f")
    assert not sessions(meta)
    meta_clock.advance(6 * 3600)
    mkfile(meta, b"g")
    assert set(sessions(meta)) == {meta.sid}
    assert "late" in caplog.text


def test_parked_slices_go_when_the_trash_would(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    """What a compacting peer parked is released after the trash days."""
    meta = make_meta(setting={"trash_days": 1})
    ino = mkfile(meta, b"f")
    old = put(meta, ino, 0, 100) + put(meta, ino, 50, 100)
    new = meta.new_slice_id()
    now_s = meta_clock.now_ns() // 1_000_000_000

    def compact(txn: MetaTxn) -> None:
        assert len(txn.chunk(ino, 0)) == 2
        txn.new_slice(new, 150)
        txn.replace_prefix(ino, 0, 2, [SliceRecord(0, new, 150, 0, 150)])
        txn.put_delayed(new, now_s, [(one, 100) for one in old])

    meta.engine.transact(compact)
    assert meta.purge_delayed() == 0
    meta_clock.advance(2 * 86400)
    assert meta.purge_delayed() == 1
    assert sorted(meta.dead()) == [(one, 100) for one in old]
    meta.forget(meta.dead())
