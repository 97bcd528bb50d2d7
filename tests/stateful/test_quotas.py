"""Histories under quotas: what is stored is what a count from scratch finds, and nothing grows past a limit."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, OverQuota
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import AttrChange, MetaService, RenameFlag, SliceRange
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.engines import SQL_SERVERS, fresh_urls
from tests.kit.invariants import check_engine
from tests.kit.quota_audit import check_quotas
from tests.kit.tree import SUPER

PICK = st.integers(0, 1 << 16)
NAMES = st.sampled_from([b"a", b"b", b"c"])
LENGTHS = st.sampled_from([0, 1, 4096, 4097, 20_000])
USERS = st.sampled_from([0, 1, 2])
SPACES = st.sampled_from([None, 0, 8192, 40_000])
INODES = st.sampled_from([None, 0, 3, 8])
PERSONS = [SUPER, Caller(uid=1, gid=1, gids=(1, 2)), Caller(uid=2, gid=2)]


class UnderQuotas(RuleBasedStateMachine):
    """Two clients take turns; the clock moves on so that each soon sees what the other did."""

    make_url: Callable[[], str]
    trash = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        url = type(self).make_url()
        engine = open_engine(url)
        setting = Setting(name="quotas", uuid=str(uuid.UUID(int=7)), trash_days=int(self.trash))
        MetaService.format(engine, setting, self.clock)
        self.services = [
            MetaService.open(each, self.clock, background=False, cache_s=0.5) for each in (engine, open_engine(url))
        ]
        self.steps = 0
        self.folders: list[int] = [ROOT]
        self.files: list[int] = []

    @property
    def meta(self) -> MetaService:
        """Whose turn it is; what the other one did is flushed and seen."""
        self.steps += 1
        self.clock.advance(1)
        return self.services[self.steps % 2]

    @initialize()
    def furnish(self) -> None:
        """A few directories that everybody may write to."""
        meta = self.meta
        for parent, name in ((ROOT, b"a"), (ROOT, b"b"), (0, b"a")):
            self.folders.append(meta.mkdir(SUPER, parent or self.folders[-1], name, 0o777)[0])
        for ino in self.folders:
            meta.setattr(SUPER, ino, AttrChange(mode=0o777))

    def folder(self, pick: int) -> int:
        return self.folders[pick % len(self.folders)]

    def file(self, pick: int) -> int:
        return self.files[pick % len(self.files)] if self.files else 999_999

    def within(self, step: Callable[[MetaService], Any]) -> Any:
        """Run a step that must not let anything limited grow past its limit; errors of the tree are its own affair."""
        meta = self.meta
        for service in self.services:
            service.flush()
            service.beat()
        before = self.stored()
        done = None
        with suppress(FsError):
            done = step(meta)
        meta.flush()
        for key, quota in self.stored().items():
            if self.trash and key.kind is not QuotaKind.DIRECTORY and key.number == 0:
                continue  # the trash makes its hours whatever uid 0 has left
            old = before.get(key, Quota())
            grown = (quota.used_space - old.used_space, quota.used_inodes - old.used_inodes)
            assert old.limited(quota.max_space, quota.max_inodes).allows(*grown), (key, old, quota)
        return done

    def stored(self) -> dict[QuotaKey, Quota]:
        return self.services[0].engine.load_quotas(*QuotaKind)

    @rule(pick=PICK, name=NAMES, who=USERS)
    def mkdir(self, pick: int, name: bytes, who: int) -> None:
        made = self.within(lambda meta: meta.mkdir(PERSONS[who], self.folder(pick), name, 0o777))
        if made:
            self.folders.append(made[0])

    @rule(pick=PICK, name=NAMES, who=USERS)
    def create(self, pick: int, name: bytes, who: int) -> None:
        made = self.within(lambda meta: meta.create(PERSONS[who], self.folder(pick), name, 0o666))
        if made:
            self.files.append(made[0])

    @rule(pick=PICK, name=NAMES, who=USERS)
    def symlink(self, pick: int, name: bytes, who: int) -> None:
        self.within(lambda meta: meta.symlink(PERSONS[who], self.folder(pick), name, b"x" * 5000))
        self.within(lambda meta: meta.symlink(PERSONS[who], self.folder(pick), name, b"x" * 50))

    @rule(pick=PICK, length=LENGTHS)
    def write(self, pick: int, length: int) -> None:
        def step(meta: MetaService) -> None:
            record = SliceRecord(0, meta.new_slice_id(), length + 1, 0, length + 1)
            meta.write(self.file(pick), 0, [record], 1, new_length=length + 1)

        self.within(step)

    @rule(pick=PICK, length=LENGTHS | st.just(CHUNK + 5))
    def truncate(self, pick: int, length: int) -> None:
        self.within(lambda meta: meta.truncate(SUPER, self.file(pick), length))

    @rule(pick=PICK, length=LENGTHS)
    def fallocate(self, pick: int, length: int) -> None:
        self.within(lambda meta: meta.fallocate(SUPER, self.file(pick), 0, length, 10))

    @rule(pick=PICK, other=PICK, length=LENGTHS)
    def share(self, pick: int, other: int, length: int) -> None:
        self.within(lambda meta: meta.compose(SUPER, self.file(pick), 5, [SliceRange(self.file(other), 0, length)]))

    @rule(pick=PICK, folder=PICK, name=NAMES)
    def link(self, pick: int, folder: int, name: bytes) -> None:
        self.within(lambda meta: meta.link(SUPER, self.file(pick), self.folder(folder), name))

    @rule(here=PICK, name=NAMES, there=PICK, new=NAMES, exchange=st.booleans())
    def rename(self, here: int, name: bytes, there: int, new: bytes, *, exchange: bool) -> None:
        flags = RenameFlag.EXCHANGE if exchange else RenameFlag.NONE
        places = (self.folder(here), name, self.folder(there), new)
        self.within(lambda meta: meta.rename(SUPER, *places, flags=flags))

    @rule(pick=PICK, name=NAMES)
    def remove(self, pick: int, name: bytes) -> None:
        self.within(lambda meta: meta.unlink(SUPER, self.folder(pick), name))
        self.within(lambda meta: meta.rmdir(SUPER, self.folder(pick), name))

    @rule(pick=PICK, name=NAMES)
    def remove_while_open(self, pick: int, name: bytes) -> None:
        def step(meta: MetaService) -> None:
            ino, attr = meta.lookup(SUPER, self.folder(pick), name)
            if attr.is_file:
                meta.open_file(SUPER, ino, write=False)
                meta.unlink(SUPER, self.folder(pick), name)
                meta.flush()
                assert check_quotas(meta.engine) == []
                meta.close_file(ino)

        self.within(step)

    @rule(pick=PICK, into=PICK, name=NAMES, who=USERS, preserve=st.booleans())
    def clone(self, pick: int, into: int, name: bytes, who: int, *, preserve: bool) -> None:
        def step(meta: MetaService) -> tuple[int, Any]:
            return meta.clone(PERSONS[who], self.folder(pick), self.folder(into), name, preserve=preserve)

        made = self.within(step)
        if made:
            self.folders.append(made[0])

    @rule(pick=PICK, uid=USERS, gid=USERS)
    def chown(self, pick: int, uid: int, gid: int) -> None:
        """By uid 0, whom no quota holds up."""
        inodes = self.files + self.folders[1:]
        with suppress(FsError):
            self.meta.setattr(SUPER, inodes[pick % len(inodes)], AttrChange(uid=uid, gid=gid))

    @rule(pick=PICK, gid=st.sampled_from([1, 2]))
    def chgrp(self, pick: int, gid: int) -> None:
        self.within(lambda meta: meta.setattr(PERSONS[1], self.file(pick), AttrChange(gid=gid)))

    @rule(pick=PICK)
    def restore(self, pick: int) -> None:
        def step(meta: MetaService) -> None:
            hours = list(meta.readdir(SUPER, TRASH)) if self.trash else []
            entries = [(hour.ino, entry.name) for hour in hours for entry in meta.readdir(SUPER, hour.ino)]
            if entries:
                meta.restore(SUPER, *entries[pick % len(entries)])

        self.within(step)

    @rule(pick=PICK, space=SPACES, inodes=INODES)
    def limit_directory(self, pick: int, space: int | None, inodes: int | None) -> None:
        with suppress(FsError):
            self.meta.set_quota(QuotaKind.DIRECTORY, self.folder(pick), max_space=space, max_inodes=inodes)
        for service in self.services:
            service.beat()

    @rule(pick=PICK)
    def unlimit_directory(self, pick: int) -> None:
        self.meta.delete_quota(QuotaKind.DIRECTORY, self.folder(pick))

    @rule(kind=st.sampled_from([QuotaKind.USER, QuotaKind.GROUP]), owner=USERS, space=SPACES, inodes=INODES)
    def limit_owner(self, kind: QuotaKind, owner: int, space: int | None, inodes: int | None) -> None:
        for service in self.services:
            service.flush()
        self.meta.set_quota(kind, owner, max_space=space, max_inodes=inodes)
        for service in self.services:
            service.beat()

    @invariant()
    def counted(self) -> None:
        """Every few steps: the records say what the tree says."""
        if self.steps % 3 == 0:
            for service in self.services:
                service.flush()
            assert check_quotas(self.services[0].engine) == []

    def teardown(self) -> None:
        """The volume is sound, and its quotas agree with its nodes."""
        engine = self.services[0].engine
        for service in self.services:
            service.flush()
        assert check_engine(engine) == []
        assert check_quotas(engine) == []
        findings = self.services[0].check_owners().values() if self.services[0].setting.user_group_quota else ()
        assert all(finding.consistent for finding in findings)
        for service in reversed(self.services):
            service.close()


@pytest.mark.parametrize("trash", [False, True], ids=["no-trash", "trash"])
@pytest.mark.parametrize("kind", ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis), *SQL_SERVERS])
def test_histories_under_quotas(kind: str, request: pytest.FixtureRequest, *, trash: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_url = fresh_urls(kind, request, Path(folder))
        machine = type("Machine", (UnderQuotas,), {"trash": trash, "make_url": staticmethod(make_url)})
        share = settings().max_examples if kind == "memory" else max(settings().max_examples // 6, 5)
        run_state_machine_as_test(machine, settings=settings(max_examples=share, stateful_step_count=30))


def test_the_machine_would_notice(tmp_path: Path) -> None:
    """A quota that somebody else's change was not counted into is found by the audit."""
    url = f"sqlite3://{tmp_path}/meta.db"
    engine = open_engine(url)
    MetaService.format(engine, Setting(name="quotas", uuid=str(uuid.UUID(int=7)), trash_days=0), FakeClock())
    with MetaService.open(engine, FakeClock(), background=False) as meta:
        meta.set_quota(QuotaKind.DIRECTORY, ROOT, max_inodes=2)
        meta.create(SUPER, ROOT, b"a", 0o644)
        meta.flush()
        assert check_quotas(engine) == []
        key = QuotaKey(QuotaKind.DIRECTORY, ROOT)

        def spoil(txn: MetaTxn) -> None:
            assert txn.quotas([key])
            txn.add_quota(key, 1, 0)

        engine.transact(spoil)
        assert len(check_quotas(engine)) == 1
        meta.create(SUPER, ROOT, b"b", 0o644)
        with pytest.raises(OverQuota):
            meta.create(SUPER, ROOT, b"c", 0o644)
