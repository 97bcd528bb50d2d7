"""Access times: never moved, moved when old, moved every second; on every engine (volume-format.md 2.13)."""

from __future__ import annotations

import pytest

from fscore.domain.ids import ROOT
from fscore.meta.ops.change import AttrChange
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import SUPER, mkdir, mkfile

HOUR_S = 3600.0


def test_by_default_reading_moves_nothing(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    meta = make_meta()
    ino = mkfile(meta, b"f")
    link, _ = meta.symlink(SUPER, ROOT, b"l", b"f")
    before = meta.getattr(ino), meta.getattr(link), meta.getattr(ROOT)
    meta_clock.advance(100 * HOUR_S)
    meta.touch_atime(ino)
    meta.readlink(link)
    list(meta.readdir(SUPER, ROOT))
    assert (meta.getattr(ino, fresh=True), meta.getattr(link, fresh=True), meta.getattr(ROOT, fresh=True)) == before


def test_relatime(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    meta = make_meta(atime_mode="relatime")
    ino = mkfile(meta, b"f")
    made = meta.getattr(ino)
    meta_clock.advance(HOUR_S)
    meta.touch_atime(ino)
    assert meta.getattr(ino, fresh=True) == made, "it was read since it was changed"
    meta.setattr(SUPER, ino, AttrChange(mode=0o600))
    changed = meta.getattr(ino)
    meta_clock.advance(1)
    meta.touch_atime(ino)
    read = meta.getattr(ino, fresh=True)
    assert read.atime_ns == meta_clock.now_ns()
    assert read.ctime_ns == changed.ctime_ns, "reading is no change"
    meta_clock.advance(23 * HOUR_S)
    meta.touch_atime(ino)
    assert meta.getattr(ino, fresh=True) == read
    meta_clock.advance(2 * HOUR_S)
    meta.touch_atime(ino)
    assert meta.getattr(ino, fresh=True).atime_ns == meta_clock.now_ns(), "once a day at least"


def test_strictatime(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    meta = make_meta(atime_mode="strictatime")
    ino = mkfile(meta, b"f")
    made = meta.getattr(ino)
    meta_clock.advance(0.9)
    meta.touch_atime(ino)
    assert meta.getattr(ino, fresh=True) == made
    meta_clock.advance(0.2)
    meta.touch_atime(ino)
    assert meta.getattr(ino, fresh=True).atime_ns == meta_clock.now_ns()


@pytest.mark.parametrize("mode", ["relatime", "strictatime"])
def test_what_counts_as_reading(make_meta: MakeMeta, meta_clock: FakeClock, mode: str) -> None:
    meta = make_meta(atime_mode=mode)
    sub = mkdir(meta, b"d")
    link, _ = meta.symlink(SUPER, sub, b"l", b"f")
    meta_clock.advance(2)
    mkfile(meta, b"f", parent=sub)
    meta.setattr(SUPER, link, AttrChange(uid=1))
    meta_clock.advance(2)
    meta.lookup(SUPER, sub, b"f")
    assert meta.getattr(sub, fresh=True).atime_ns < meta_clock.now_ns()
    list(meta.readdir(SUPER, sub))
    assert meta.getattr(sub, fresh=True).atime_ns == meta_clock.now_ns()
    assert meta.readlink(link) == b"f"
    assert meta.getattr(link, fresh=True).atime_ns == meta_clock.now_ns()


def test_a_read_only_client_and_the_trash_keep_their_times(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    writer = make_meta(setting={"trash_days": 1}, atime_mode="strictatime")
    reader = make_meta(read_only=True, atime_mode="strictatime")
    ino = mkfile(writer, b"f")
    made = writer.getattr(ino)
    meta_clock.advance(5)
    reader.touch_atime(ino)
    assert writer.getattr(ino, fresh=True) == made
    writer.unlink(SUPER, ROOT, b"f")
    gone = writer.getattr(ino, fresh=True)
    meta_clock.advance(5)
    writer.touch_atime(ino)
    assert writer.getattr(ino, fresh=True) == gone
    writer.touch_atime(12345)
