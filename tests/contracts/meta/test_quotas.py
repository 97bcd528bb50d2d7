"""Quotas of directories, users and groups: what they refuse, what they count, how they are kept (2.5, 2.10)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import NoSpace, NotADir, NotFound, NotPermitted, OverQuota, SettingError
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.slices import SliceRecord
from fscore.meta.quotas import weigh, weigh_owners
from fscore.meta.service import AttrChange, FreshSlice, MetaService, RenameFlag, SliceRange
from fscore.runtime.clock import FakeClock
from tests.kit.engines import MakeMeta
from tests.kit.tree import ALICE, BOB, SUPER, mkdir, put

DIRECTORY, USER, GROUP = QuotaKind.DIRECTORY, QuotaKind.USER, QuotaKind.GROUP
GIB = 1 << 30


def used(meta: MetaService, kind: QuotaKind, number: int) -> tuple[int, int]:
    """(space, inodes) as stored."""
    quota = meta.quota(kind, number)
    assert quota is not None
    return quota.used_space, quota.used_inodes


def touch(meta: MetaService, name: bytes, parent: int = ROOT) -> int:
    """An empty file of uid 0."""
    return meta.create(SUPER, parent, name, 0o644)[0]


@pytest.fixture
def home(meta: MetaService) -> int:
    """A directory that everybody may write to."""
    ino = mkdir(meta, b"home")
    meta.setattr(SUPER, ino, AttrChange(mode=0o777))
    return ino


def test_a_new_quota_counts_what_is_there(meta: MetaService, home: int) -> None:
    inner = mkdir(meta, b"inner", home)
    touch(meta, b"f", inner)
    put(meta, touch(meta, b"g", home), 0, 10_000)
    quota = meta.set_quota(DIRECTORY, home, max_space=GIB)
    assert quota == Quota(GIB, -1, 4096 + 4096 + 12288, 3)
    assert meta.quotas() == {QuotaKey(DIRECTORY, home): quota}
    assert meta.set_quota(DIRECTORY, home, max_inodes=5) == quota._replace(max_inodes=5)


def test_a_directory_s_inodes_are_limited_wherever_below(meta: MetaService, home: int) -> None:
    meta.set_quota(DIRECTORY, home, max_inodes=3)
    inner = mkdir(meta, b"inner", home)
    first = touch(meta, b"first", inner)
    touch(meta, b"second", inner)
    outside = touch(meta, b"outside")
    for refused in (
        lambda: meta.create(SUPER, inner, b"third", 0o644),
        lambda: meta.mkdir(SUPER, home, b"third", 0o755),
        lambda: meta.symlink(SUPER, home, b"third", b"to"),
        lambda: meta.link(SUPER, first, inner, b"third"),
        lambda: meta.link(SUPER, outside, inner, b"third"),
        lambda: meta.rename(SUPER, ROOT, b"outside", inner, b"third"),
        lambda: meta.clone(SUPER, outside, inner, b"third"),
    ):
        with pytest.raises(OverQuota):
            refused()
    meta.unlink(SUPER, inner, b"second")
    meta.rename(SUPER, ROOT, b"outside", inner, b"third")
    assert used(meta, DIRECTORY, home) == (3 * 4096, 3)
    meta.rename(SUPER, inner, b"third", ROOT, b"outside")
    assert used(meta, DIRECTORY, home) == (2 * 4096, 2)


def test_a_directory_s_space_is_limited_for_every_way_to_grow(meta: MetaService, home: int) -> None:
    source = touch(meta, b"source")
    put(meta, source, 0, 20_000)
    file = touch(meta, b"f", home)
    meta.set_quota(DIRECTORY, home, max_space=3 * 4096)
    put(meta, file, 0, 8192)
    record = SliceRecord(0, meta.new_slice_id(), 12_289, 0, 12_289)
    for refused in (
        lambda: meta.write(file, 0, [record], 1, new_length=12_289),
        lambda: meta.truncate(SUPER, file, 12_289),
        lambda: meta.truncate(SUPER, file, 3 * CHUNK),
        lambda: meta.fallocate(SUPER, file, 0, 0, 12_289),
        lambda: meta.compose(SUPER, file, 0, [SliceRange(source, 0, 12_289)]),
        lambda: meta.compose(SUPER, file, 0, [FreshSlice(record.id, 12_289, 0, 12_289)]),
        lambda: meta.copy_file_range(SUPER, source, 0, file, 8192, 8192),
        lambda: meta.rename(SUPER, ROOT, b"source", home, b"source"),
    ):
        with pytest.raises(OverQuota):
            refused()
    meta.truncate(SUPER, file, 12_288)
    assert used(meta, DIRECTORY, home) == (12_288, 1)
    meta.truncate(SUPER, file, 1)
    assert used(meta, DIRECTORY, home) == (4096, 1)


def test_the_nearest_quota_and_those_above_count(meta: MetaService, home: int) -> None:
    inner = mkdir(meta, b"inner", home)
    meta.set_quota(DIRECTORY, home, max_inodes=4)
    meta.set_quota(DIRECTORY, inner, max_inodes=2)
    touch(meta, b"a", inner)
    touch(meta, b"b", inner)
    with pytest.raises(OverQuota, match=str(inner)):
        meta.create(SUPER, inner, b"c", 0o644)
    touch(meta, b"c", home)
    with pytest.raises(OverQuota, match=str(home)):
        meta.create(SUPER, home, b"d", 0o644)
    assert used(meta, DIRECTORY, inner) == (8192, 2)
    assert used(meta, DIRECTORY, home) == (4 * 4096, 4)
    meta.unlink(SUPER, inner, b"a")
    meta.rename(SUPER, home, b"c", inner, b"c")  # full above, but nothing is new there
    assert used(meta, DIRECTORY, home) == (3 * 4096, 3)


def test_a_tree_moves_with_all_that_it_holds(meta: MetaService, home: int) -> None:
    meta.set_quota(DIRECTORY, home, max_inodes=3)
    tree = mkdir(meta, b"tree")
    touch(meta, b"a", mkdir(meta, b"deep", tree))
    touch(meta, b"b", tree)
    with pytest.raises(OverQuota):
        meta.rename(SUPER, ROOT, b"tree", home, b"tree")
    meta.set_quota(DIRECTORY, home, max_inodes=4)
    meta.rename(SUPER, ROOT, b"tree", home, b"tree")
    assert used(meta, DIRECTORY, home) == (4 * 4096, 4)
    meta.set_quota(DIRECTORY, tree, max_space=GIB)
    meta.rename(SUPER, home, b"tree", ROOT, b"tree")
    assert used(meta, DIRECTORY, home) == (0, 0)
    assert used(meta, DIRECTORY, tree) == (3 * 4096, 3)
    meta.rename(SUPER, ROOT, b"tree", home, b"tree")  # weighed by its own quota
    assert used(meta, DIRECTORY, home) == (4 * 4096, 4)


def test_a_replaced_target_gives_its_room(meta: MetaService, home: int) -> None:
    put(meta, touch(meta, b"old", home), 0, 8192)
    put(meta, touch(meta, b"new"), 0, 8000)
    meta.set_quota(DIRECTORY, home, max_space=8192, max_inodes=1)
    meta.rename(SUPER, ROOT, b"new", home, b"old")
    assert used(meta, DIRECTORY, home) == (8192, 1)


def test_an_exchange_moves_both_trees(meta: MetaService, home: int) -> None:
    other = mkdir(meta, b"other")
    touch(meta, b"x", mkdir(meta, b"small", home))
    big = mkdir(meta, b"big", other)
    for number in range(3):
        touch(meta, b"%d" % number, big)
    meta.set_quota(DIRECTORY, home, max_inodes=3)
    meta.set_quota(DIRECTORY, other, max_inodes=10)
    with pytest.raises(OverQuota):
        meta.rename(SUPER, home, b"small", other, b"big", flags=RenameFlag.EXCHANGE)
    meta.set_quota(DIRECTORY, home, max_inodes=4)
    meta.rename(SUPER, home, b"small", other, b"big", flags=RenameFlag.EXCHANGE)
    assert used(meta, DIRECTORY, home) == (4 * 4096, 4)
    assert used(meta, DIRECTORY, other) == (2 * 4096, 2)


def test_a_cloned_tree_is_charged_once_and_refused_before_it_begins(meta: MetaService, home: int) -> None:
    tree = mkdir(meta, b"tree")
    put(meta, touch(meta, b"a", mkdir(meta, b"deep", tree)), 0, 5000)
    meta.set_quota(DIRECTORY, home, max_inodes=2)
    before = meta.statfs()
    with pytest.raises(OverQuota):
        meta.clone(SUPER, tree, home, b"copy")
    assert meta.statfs() == before
    meta.set_quota(DIRECTORY, home, max_inodes=3)
    meta.clone(SUPER, tree, home, b"copy")
    assert used(meta, DIRECTORY, home) == (4096 + 4096 + 8192, 3)


def test_a_hard_link_counts_wherever_it_has_a_name(meta: MetaService, home: int) -> None:
    file = touch(meta, b"f")
    meta.set_quota(DIRECTORY, home, max_space=GIB)
    meta.link(SUPER, file, home, b"one")
    meta.link(SUPER, file, home, b"two")
    put(meta, file, 0, 5000)
    assert used(meta, DIRECTORY, home) == (2 * 8192, 2)
    meta.unlink(SUPER, home, b"one")
    assert used(meta, DIRECTORY, home) == (8192, 1)


def test_growth_needs_room_for_every_name_below_the_quota(meta: MetaService, home: int) -> None:
    file = touch(meta, b"f", home)
    meta.link(SUPER, file, home, b"one")
    meta.link(SUPER, file, home, b"two")
    meta.set_quota(DIRECTORY, home, max_space=5 * 4096)
    with pytest.raises(OverQuota):
        put(meta, file, 0, 5000)  # 4096 more, three times
    with pytest.raises(OverQuota):
        meta.truncate(SUPER, file, 5000)
    with pytest.raises(OverQuota):
        meta.fallocate(SUPER, file, 0, 0, 5000)
    meta.unlink(SUPER, home, b"two")
    meta.set_quota(DIRECTORY, home, max_space=4 * 4096)
    put(meta, file, 0, 5000)
    assert used(meta, DIRECTORY, home) == (2 * 8192, 2)


def test_the_root_has_a_quota_too(meta: MetaService) -> None:
    meta.set_quota(DIRECTORY, ROOT, max_inodes=1)
    touch(meta, b"f")
    with pytest.raises(OverQuota):
        meta.create(SUPER, ROOT, b"g", 0o644)


def test_what_goes_into_the_trash_leaves_the_directory_s_quota(make_meta: MakeMeta) -> None:
    meta = make_meta(setting={"trash_days": 1})
    home = mkdir(meta, b"home")
    meta.set_quota(DIRECTORY, home, max_inodes=1)
    meta.set_quota(USER, 1000, max_inodes=100)
    file, _ = meta.create(SUPER, home, b"f", 0o644)
    meta.setattr(SUPER, file, AttrChange(uid=1000))
    meta.unlink(SUPER, home, b"f")
    assert used(meta, DIRECTORY, home) == (0, 0)
    assert used(meta, USER, 1000) == (4096, 1)
    touch(meta, b"g", home)
    (hour,) = meta.readdir(SUPER, TRASH)
    (entry,) = meta.readdir(SUPER, hour.ino)
    with pytest.raises(OverQuota):
        meta.restore(SUPER, hour.ino, entry.name)
    meta.set_quota(DIRECTORY, home, max_inodes=2)
    meta.restore(SUPER, hour.ino, entry.name)
    assert used(meta, DIRECTORY, home) == (8192, 2)


def test_a_directory_that_goes_takes_its_quota_along(meta: MetaService, home: int) -> None:
    meta.set_quota(DIRECTORY, home, max_inodes=5)
    touch(meta, b"f", home)
    meta.unlink(SUPER, home, b"f")
    meta.rmdir(SUPER, ROOT, b"home")
    assert meta.quota(DIRECTORY, home) is None
    assert meta.quotas() == {}


def test_a_quota_deleted_by_a_peer_is_not_made_again(make_meta: MakeMeta) -> None:
    ours, theirs = make_meta(), make_meta()
    home = mkdir(ours, b"home")
    ours.set_quota(DIRECTORY, home, max_inodes=1)
    touch(ours, b"f", home)
    theirs.delete_quota(DIRECTORY, home)
    ours.flush()
    assert ours.quota(DIRECTORY, home) is None
    ours.beat()
    touch(ours, b"g", home)


def test_a_peer_s_quota_holds_from_the_next_heartbeat(make_meta: MakeMeta) -> None:
    ours, theirs = make_meta(), make_meta()
    home = mkdir(ours, b"home")
    theirs.set_quota(DIRECTORY, home, max_inodes=1)
    ours.beat()
    touch(ours, b"f", home)
    with pytest.raises(OverQuota):
        ours.create(SUPER, home, b"g", 0o644)
    ours.flush()
    theirs.beat()
    with pytest.raises(OverQuota):
        theirs.create(SUPER, home, b"g", 0o644)


def test_users_and_groups_are_limited(meta: MetaService, home: int) -> None:
    meta.set_quota(USER, 1000, max_inodes=2)
    meta.set_quota(GROUP, 2000, max_space=8192)
    one, _ = meta.create(ALICE, home, b"1", 0o644)
    meta.create(ALICE, home, b"2", 0o644)
    with pytest.raises(OverQuota, match="user 1000"):
        meta.create(ALICE, home, b"3", 0o644)
    with pytest.raises(OverQuota, match="user 1000"):
        meta.link(ALICE, one, home, b"3")
    bobs, _ = meta.create(BOB, home, b"b", 0o644)
    put(meta, bobs, 0, 5000)
    with pytest.raises(OverQuota, match="group 2000"):
        put(meta, bobs, 0, 9000)
    assert used(meta, USER, 1000) == (8192, 2)
    assert used(meta, GROUP, 2000) == (8192, 1)
    meta.unlink(SUPER, home, b"b")
    assert used(meta, GROUP, 2000) == (0, 0)
    assert meta.quotas(USER) == {QuotaKey(USER, 1000): Quota(-1, 2, 8192, 2)}


def test_a_charge_goes_with_the_owner(meta: MetaService, home: int) -> None:
    put(meta, touch(meta, b"f", home), 0, 5000)
    ino, _ = meta.lookup(SUPER, home, b"f")
    meta.set_quota(USER, 1000, max_inodes=1)
    link, _ = meta.symlink(SUPER, home, b"l", b"to")
    assert used(meta, USER, 0) == (3 * 4096 + 4096, 3)
    meta.setattr(SUPER, ino, AttrChange(uid=1000, gid=2000))
    meta.setattr(SUPER, link, AttrChange(uid=1000))  # uid 0 is not held up
    assert used(meta, USER, 0) == (4096, 1)
    assert used(meta, USER, 1000) == (8192 + 4096, 2)
    assert used(meta, GROUP, 2000) == (8192, 1)


def test_an_owner_cannot_give_to_a_group_that_is_full(meta: MetaService, home: int) -> None:
    member = Caller(uid=1000, gid=1000, gids=(1000, 3000))
    ino, _ = meta.create(member, home, b"f", 0o644)
    meta.set_quota(GROUP, 3000, max_space=4095)
    with pytest.raises(OverQuota):
        meta.setattr(member, ino, AttrChange(gid=3000))
    meta.setattr(SUPER, ino, AttrChange(gid=3000))
    assert used(meta, GROUP, 3000) == (4096, 1)


def test_who_has_no_quota_is_counted_all_the_same(meta: MetaService, home: int) -> None:
    meta.set_quota(USER, 5, max_inodes=1)
    meta.create(ALICE, home, b"f", 0o644)
    assert used(meta, USER, 1000) == (4096, 1)
    assert set(meta.quotas()) == {QuotaKey(USER, 5)}
    meta.delete_quota(USER, 5)
    assert meta.quotas() == {}
    assert meta.quota(USER, 5) == Quota(-1, -1, 0, 0)


def test_a_file_held_open_is_charged_until_it_is_closed(meta: MetaService, home: int) -> None:
    meta.set_quota(USER, 1000, max_inodes=9)
    ino, _ = meta.create(ALICE, home, b"f", 0o644)
    meta.open_file(ALICE, ino, write=True)
    meta.unlink(ALICE, home, b"f")
    assert used(meta, USER, 1000) == (4096, 1)
    meta.close_file(ino)
    assert used(meta, USER, 1000) == (0, 0)


def test_the_volume_s_own_limit_is_another_error(make_meta: MakeMeta) -> None:
    meta = make_meta(setting={"inodes": 1})
    meta.set_quota(DIRECTORY, ROOT, max_inodes=1)
    touch(meta, b"f")
    with pytest.raises(NoSpace):
        meta.create(SUPER, ROOT, b"g", 0o644)


def test_a_check_finds_and_repairs(meta: MetaService, home: int) -> None:
    touch(meta, b"f", home)
    meta.set_quota(DIRECTORY, home, max_inodes=9)
    meta.set_quota(USER, 1000, max_inodes=9)
    assert meta.check_quota(DIRECTORY, home).consistent
    assert all(finding.consistent for finding in meta.check_owners().values())
    for key in (QuotaKey(DIRECTORY, home), QuotaKey(USER, 0), QuotaKey(GROUP, 77)):
        meta.engine.transact(_spoil(key))
    assert not meta.check_quota(DIRECTORY, home).consistent
    assert not meta.check_quota(DIRECTORY, home, repair=True).consistent
    assert meta.check_quota(DIRECTORY, home).consistent
    assert meta.quota(DIRECTORY, home) == Quota(-1, 9, 4096, 1)
    wrong = {key for key, finding in meta.check_owners(repair=True).items() if not finding.consistent}
    assert wrong == {QuotaKey(USER, 0), QuotaKey(GROUP, 77)}
    assert all(finding.consistent for finding in meta.check_owners().values())


def _spoil(key: QuotaKey) -> Callable[..., None]:
    def body(txn: object) -> None:
        there = txn.quotas([key])  # type: ignore[attr-defined]
        txn.put_quota(key, there.get(key, Quota()).grown(4096, 7))  # type: ignore[attr-defined]

    return body


def test_what_cannot_have_a_quota(meta: MetaService, home: int) -> None:
    with pytest.raises(NotADir):
        meta.set_quota(DIRECTORY, touch(meta, b"f"), max_inodes=1)
    with pytest.raises(NotFound):
        meta.set_quota(DIRECTORY, 12345, max_inodes=1)
    with pytest.raises(NotFound):
        meta.check_quota(DIRECTORY, home)
    with pytest.raises(SettingError):
        meta.check_owners()
    with pytest.raises(NotPermitted):
        meta.set_quota(DIRECTORY, TRASH, max_inodes=1)


def test_turning_on_writes_the_setting(make_meta: MakeMeta) -> None:
    meta = make_meta(setting={"dir_stats": False})
    home = mkdir(meta, b"home")
    touch(meta, b"f", home)
    assert meta.dir_stat(home) is None
    assert meta.set_quota(DIRECTORY, home, max_inodes=2) == Quota(-1, 2, 4096, 1)
    assert meta.setting.dir_stats
    other = make_meta()
    assert other.setting.dir_stats
    touch(other, b"g", home)
    with pytest.raises(OverQuota):
        touch(other, b"h", home)


def test_space_that_is_shown_ends_at_the_quota(meta: MetaService, home: int) -> None:
    inner = mkdir(meta, b"inner", home)
    touch(meta, b"f", inner)
    meta.set_quota(DIRECTORY, home, max_space=GIB, max_inodes=100)
    shown = meta.statfs(inner)
    assert (shown.total, shown.used, shown.avail) == (GIB, 8192, GIB - 8192)
    assert (shown.inodes_used, shown.inodes_free) == (2, 98)
    assert meta.statfs() == meta.statfs(ROOT)
    assert meta.statfs().total > GIB


def test_a_lost_race_counts_once(make_meta: MakeMeta, meta_clock: FakeClock) -> None:
    ours, theirs = make_meta(), make_meta()
    home = mkdir(ours, b"home")
    ours.set_quota(DIRECTORY, home, max_inodes=1000)
    theirs.beat()
    for number in range(20):
        touch(ours, b"o%d" % number, home)
        touch(theirs, b"t%d" % number, home)
        if number % 3 == 0:
            ours.flush()
            theirs.flush()
    ours.flush()
    theirs.flush()
    assert used(ours, DIRECTORY, home) == (40 * 4096, 40)
    assert weigh(ours.engine, home) == (40 * 4096, 40)
    assert weigh_owners(ours.engine)[QuotaKey(USER, 0)] == (41 * 4096, 41)
