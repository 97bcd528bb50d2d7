"""The change log: a line for every change, as the official client writes it, and what is kept of it (2.15)."""

from __future__ import annotations

import re

from fscore.domain.ids import ROOT, TRASH
from fscore.domain.quota import QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.service import AttrChange, FreshSlice, Hole, MetaService, RenameFlag, SliceRange
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, SUPER, mkdir, mkfile

LINE = re.compile(rb"(\d+)\.(\d{9})\|(.*)\|\((\d+),(\d+)\)", re.DOTALL)
ON = {"change_log": True}


def said(meta: MetaService) -> list[str]:
    """The operations in the log, oldest first."""
    found = []
    for _, line in meta.engine.scan_log():
        match = LINE.fullmatch(line)
        assert match is not None, line
        found.append(match[3].decode())
    return found


def since(meta: MetaService, count: int) -> list[str]:
    """What the log got after its first `count` lines."""
    return said(meta)[count:]


def test_a_client_says_that_it_came_and_went(make_meta: MakeMeta) -> None:
    meta, other = make_meta(setting=ON), make_meta()
    sid = other.sid
    assert sid is not None
    other.close()
    lines = [line for line in said(meta) if line.startswith(("NEW", "CLEAN", "INCR"))]
    assert lines[0] == "INCR_COUNTER(nextSession,1)"
    assert re.match(r"NEWSESSION\(1,\d+,{%22Version%22:%22", lines[1])
    assert lines[-1] == f"CLEANSESSION({sid})"


def test_every_change_of_the_tree_has_its_line(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    meta = make_meta(setting=ON)
    file = mkfile(meta, b"f")  # takes the inodes, too
    start = len(said(meta))
    home, _ = meta.mkdir(SUPER, ROOT, b"d,(%)", 0o755)
    new, _ = meta.create(ALICE.root(), home, b"n", 0o640)
    meta.symlink(SUPER, home, b"s", b"to \xff")
    meta.link(SUPER, file, home, b"l")
    slice_id = meta.new_slice_id()
    taken = len(said(meta))
    meta.write(file, 1, [SliceRecord(3, slice_id, 9, 0, 9)], 5_000_000_007, new_length=(64 << 20) + 12)
    meta.truncate(SUPER, file, 4)
    meta.fallocate(SUPER, file, 3, 1, 2)
    meta.copy_file_range(SUPER, file, 0, new, 6, 3)
    meta.setxattr(SUPER, file, b"user.k", b"v,", mode="create")
    meta.removexattr(SUPER, file, b"user.k")
    meta.setattr(SUPER, file, AttrChange(mode=0o600, mtime_ns=7))
    meta.rename(SUPER, home, b"l", ROOT, b"m")
    meta.rename(SUPER, home, b"n", home, b"s", flags=RenameFlag.EXCHANGE)
    meta.unlink(SUPER, ROOT, b"m")
    meta.unlink(SUPER, home, b"n")
    meta.unlink(SUPER, home, b"s")
    meta.rmdir(SUPER, ROOT, b"d,(%)")
    now, ns = divmod(meta_clock.now_ns(), 10**9)
    assert since(meta, start)[: taken - start] == [
        f"CREATE(1,d%2C%28%25%29,0,0,2,493,{SUPER.umask},,linux,true):{home}",
        f"CREATE({home},n,0,0,1,416,{SUPER.umask},,linux,true):{new}",
        f"CREATE({home},s,0,0,3,511,0,to %FF,linux,true):{new + 1}",
        f"LINK({file},{home},l,true):2",
        "INCR_COUNTER(nextChunk,4096)",
    ]
    assert since(meta, taken) == [
        f"WRITE({file},1,3,{slice_id},9,5,7):0",
        f"TRUNCATE({file},{(64 << 20) + 12},4,0)",
        f"FALLOCATE({file},1,2,3)",
        f"COPYFILERANGE({file},0,{new},6,3):9",
        f"SETXATTR({file},user.k,v%2C,1)",
        f"REMOVEXATTR({file},user.k)",
        f"SETATTR({file},33,0,0,0,384,0,{now},0,{ns},7,{now},{ns},0)",
        f"MOVE({home},l,1,m,0,0,0):{file}",
        f"MOVE({home},n,{home},s,2,{new + 1},0):{new}",
        f"UNLINK(1,m,0,false,true):{file}",
        f"UNLINK({home},n,0,false,true):{new + 1}",
        f"UNLINK({home},s,0,false,true):{new}",
        f"RMDIR(1,d%2C%28%25%29,0):{home}",
    ]


def test_the_trash_and_files_held_open(make_meta: MakeMeta) -> None:
    meta = make_meta(setting=ON | {"trash_days": 1})
    file, other = mkfile(meta, b"f"), mkfile(meta, b"o")
    start = len(said(meta))
    meta.unlink(SUPER, ROOT, b"f")
    meta.rename(SUPER, ROOT, b"o", ROOT, b"p")
    (hour,) = meta.readdir(SUPER, TRASH)
    meta.open_file(SUPER, other, write=False)
    meta.unlink(SUPER, ROOT, b"p", skip_trash=True)
    meta.close_file(other)
    assert since(meta, start) == [
        f"CREATE({TRASH},2023-11-14-22,0,0,2,365,{0},,linux,false):{hour.ino}",
        f"UNLINK(1,f,{hour.ino},false,true):{file}",
        f"MOVE(1,o,1,p,0,0,{hour.ino}):{other}",
        f"UNLINK(1,p,0,true,true):{other}",
        f"DELSUSTAINED({meta.sid},{other})",
    ]


def test_clones_compositions_and_quotas(make_meta: MakeMeta) -> None:
    meta = make_meta(setting=ON)
    tree = mkdir(meta, b"t")
    file = mkfile(meta, b"f", 100, tree)
    start = len(said(meta))
    copy, _ = meta.clone(SUPER, tree, ROOT, b"c", preserve=True)
    (entry,) = meta.readdir(SUPER, copy)
    slice_id = meta.new_slice_id()
    meta.compose(SUPER, file, 0, [Hole(5), SliceRange(entry.ino, 1, 7), FreshSlice(slice_id, 10, 0, 10)])
    meta.set_quota(QuotaKind.DIRECTORY, tree, max_inodes=7)
    meta.delete_quota(QuotaKind.DIRECTORY, tree)
    mask = SUPER.umask
    at = meta.getattr(file, fresh=True).mtime_ns
    assert since(meta, start) == [
        f"CLONE({tree},1,c,{copy},2,{mask},true):{copy}",
        f"CLONE({file},{copy},f,{entry.ino},2,{mask},false):{entry.ino}",
        f"ATTACH({copy},1,c)",
        f"FALLOCATE({file},0,5,16)",
        f"COPYFILERANGE({entry.ino},1,{file},5,7):100",
        f"WRITE({file},0,12,{slice_id},10,{at // 10**9},{at % 10**9}):0",
        f"SETQUOTA(0,{tree},-1,7)",
        f"DELQUOTA(0,{tree})",
    ]


def test_data_that_goes_is_told(make_meta: MakeMeta) -> None:
    meta = make_meta(setting=ON)
    file = mkfile(meta, b"f", 100)
    meta.unlink(SUPER, ROOT, b"f")
    start = len(said(meta))
    meta.purge_deleted()
    dead = meta.dead()
    meta.forget(dead)
    assert [line for line in since(meta, start) if not line.startswith("SET(")] == [
        f"DELCHUNK({file},0)",
        f"DELETESLICE({dead[0][0]},100)",
    ]


def test_a_volume_without_one_gets_no_line(make_meta: MakeMeta) -> None:
    meta = make_meta()
    mkfile(meta, b"f")
    assert said(meta) == []
    assert meta.trim_log() == 0


def test_versions_go_up_by_one(make_meta: MakeMeta) -> None:
    meta = make_meta(setting=ON)
    for number in range(5):
        mkfile(meta, b"%d" % number)
    versions = [version for version, _ in meta.engine.scan_log()]
    assert versions == list(range(1, len(versions) + 1))
    assert meta.engine.count_log() == len(versions)
    numbers = [int(match[5]) for _, line in meta.engine.scan_log() if (match := LINE.fullmatch(line))]
    assert len(set(numbers)) == len(numbers)


def test_old_lines_go(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    meta = make_meta(setting=ON | {"change_log_max_age": 3600})
    mkfile(meta, b"old")
    old = meta.engine.count_log()
    meta_clock.advance(3601)
    mkfile(meta, b"young")
    assert meta.trim_log() == old
    kept = list(meta.engine.scan_log())
    assert [version for version, _ in kept] == [old + 1, old + 2]
    assert [line.partition("(")[0] for line in said(meta)] == ["CREATE", "SET"]
    assert meta.trim_log() == 0, "the gate lets nobody in twice"


def test_no_more_than_so_many_lines_stay(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    meta = make_meta(setting=ON | {"change_log_max_lines": 3})
    for number in range(6):
        mkfile(meta, b"%d" % number)
    meta.beat()
    assert meta.engine.count_log() == 3
    meta_clock.advance(301)
    mkfile(meta, b"more")
    meta.beat()
    assert meta.engine.count_log() == 3
    last = list(meta.engine.scan_log())[-1][0]
    mkfile(meta, b"last")
    assert list(meta.engine.scan_log())[-1][0] == last + 1
