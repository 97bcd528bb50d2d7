"""Histories of two clients that lock, link, set ACLs and die, against the obvious model, on every engine.

Their sessions, locks and rules are shared records: whatever one does the other must see at once (no cache), and when a
client dies the other one buries it, at times alive: then its owners are told that their locks are lost.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fscore.domain.acl import ACCESS, DEFAULT, NAMES
from fscore.domain.caller import Caller
from fscore.domain.errors import Denied, NoAttribute, Stale
from fscore.domain.ids import ROOT
from fscore.domain.locks import EOF, LockKind
from fscore.domain.setting import Setting
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import open_engine
from fscore.meta.records import Session
from fscore.meta.service import AttrChange, MetaService
from fscore.runtime.clock import FakeClock
from tests.kit import client_model as model
from tests.kit.client_model import BYTES, Acl, Node, Owner
from tests.kit.engines import META_ENGINES, REDIS_GROUPS, fresh_urls
from tests.kit.invariants import check_engine

SUPER = Caller(uid=0, gid=0)
PICK = st.integers(0, 1 << 16)
OWNERS = st.sampled_from([1, 2, (1 << 64) - 1])
KINDS = st.sampled_from(LockKind)
EVERY = range(BYTES + 1)
STARTS = st.integers(0, BYTES - 1)
ENDS = st.one_of(st.integers(0, BYTES - 1), st.just(EOF))
BITS = st.integers(0, 7)
IDS = st.sampled_from([0, 1, 2, 3])
MODES = st.builds(lambda high, low: high << 9 | low, st.sampled_from([0, 0, 1, 4]), st.integers(0, 0o777))
CALLERS = st.builds(
    lambda uid, gid, gids, umask: Caller(uid=uid, gid=gid, gids=gids, umask=umask),
    IDS, IDS, st.lists(IDS, max_size=2).map(tuple), st.sampled_from([0, 0o022, 0o077]),
)  # fmt: skip
NAMED = st.dictionaries(IDS, BITS, max_size=2)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    """Rules; a mask is there where somebody is named."""
    users, groups = draw(NAMED), draw(NAMED)
    mask = draw(BITS if users or groups else st.one_of(st.none(), BITS))
    return Acl(draw(BITS), draw(BITS), draw(BITS), mask, users, groups)


class Clients(RuleBasedStateMachine):
    """Two clients of one volume with ACLs and a trash; a client that died is replaced."""

    make_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).make_url()
        self.clock = FakeClock()
        engine = open_engine(self.url)
        setting = Setting(name="clients", uuid=str(uuid.UUID(int=7)), trash_days=1, enable_acl=True)
        MetaService.format(engine, setting, self.clock)
        engine.close()
        self.dead: list[MetaService] = []
        self.engines: list[MetaEngine] = []
        self.services = [self._open(), self._open()]
        self.numbers = [0, 1]
        self.born = 1
        self.nodes: dict[int, Node] = {ROOT: Node(True, 0, 0, 0o777)}
        self.names: dict[bytes, int] = {}
        self.made = 0
        self.lost: dict[tuple[str, int, Owner], set[int]] = {}
        """By kind of lock, inode and owner: cells that were locked when the client was buried; 0 for a whole lock."""

    def _open(self) -> MetaService:
        engine = open_engine(self.url)
        self.engines.append(engine)
        return MetaService.open(engine, self.clock, background=False, cache_s=0.0, heartbeat_s=1e9)

    def _ino(self, pick: int) -> int:
        inos = sorted(self.nodes)
        return inos[pick % len(inos)]

    def _file(self, pick: int) -> int:
        inos = sorted(ino for ino, node in self.nodes.items() if not node.is_dir)
        return inos[pick % len(inos)]

    def _dir(self, pick: int) -> int:
        inos = sorted(ino for ino, node in self.nodes.items() if node.is_dir)
        return inos[pick % len(inos)]

    def _client(self, pick: int) -> tuple[MetaService, int]:
        self.clock.advance(0.001)
        return self.services[pick % 2], self.numbers[pick % 2]

    def _has_files(self) -> bool:
        return any(not node.is_dir for node in self.nodes.values())

    @rule(client=PICK, pick=PICK, who=CALLERS, mode=MODES, is_dir=st.booleans())
    def create(self, client: int, pick: int, who: Caller, mode: int, *, is_dir: bool) -> None:
        meta, _ = self._client(client)
        above = self._dir(pick)
        gids = {who.gid, *who.gids}
        self.made += 1
        name = b"%d" % self.made
        allowed = model.may(self.nodes[above], who.uid, gids, 3)
        mode &= 0o5777  # setgid has tests of its own
        make = meta.mkdir if is_dir else meta.create
        try:
            ino, attr = make(who, above, name, mode)
        except Denied:
            assert not allowed
            return
        assert allowed
        node = model.born(self.nodes[above], who.uid, who.gid, mode, who.umask, is_dir=is_dir)
        self.nodes[ino] = node
        assert attr.mode == node.mode
        if above == ROOT and not is_dir:
            self.names[name] = ino

    @precondition(lambda self: self._has_files())
    @rule(client=PICK, pick=PICK)
    def link(self, client: int, pick: int) -> None:
        meta, _ = self._client(client)
        ino = self._file(pick)
        self.made += 1
        name = b"l%d" % self.made
        meta.link(SUPER, ino, ROOT, name)
        self.names[name] = ino
        self.nodes[ino].names += 1

    @precondition(lambda self: self.names)
    @rule(client=PICK, pick=PICK)
    def unlink(self, client: int, pick: int) -> None:
        meta, _ = self._client(client)
        name = sorted(self.names)[pick % len(self.names)]
        ino = self.names.pop(name)
        meta.unlink(SUPER, ROOT, name)
        node = self.nodes[ino]
        node.names -= 1
        assert meta.shown(ino, meta.getattr(ino)).nlink == node.names
        if not node.names:
            del self.nodes[ino]
            self._let_go(ino, node)

    def _let_go(self, ino: int, node: Node) -> None:
        """Locks of a file that lies in the trash: programs close it."""
        for number, meta in zip(self.numbers, self.services, strict=True):
            for owner in [one for one in node.whole if one[0] == number]:
                meta.flock(ino, owner[1], LockKind.UNLOCK)
            for owner in [one for one in node.ranges if one[0] == number]:
                meta.release_locks(ino, owner[1])

    @rule(client=PICK, pick=PICK, mode=MODES)
    def chmod(self, client: int, pick: int, mode: int) -> None:
        meta, _ = self._client(client)
        ino = self._ino(pick)
        assert meta.setattr(SUPER, ino, AttrChange(mode=mode)).mode == mode
        model.chmod(self.nodes[ino], mode)

    @rule(client=PICK, pick=PICK, acl=st.one_of(st.none(), acls()))
    def setfacl(self, client: int, pick: int, acl: Acl | None) -> None:
        meta, _ = self._client(client)
        ino = self._ino(pick)
        node = self.nodes[ino]
        if acl is not None:
            meta.setxattr(SUPER, ino, ACCESS, acl.wire())
        elif node.access is None:
            with pytest.raises(NoAttribute):
                meta.removexattr(SUPER, ino, ACCESS)
        else:
            meta.removexattr(SUPER, ino, ACCESS)
        model.set_access(node, acl)
        assert meta.getattr(ino).mode == node.mode

    @rule(client=PICK, pick=PICK, acl=st.one_of(st.none(), acls()))
    def setfacl_default(self, client: int, pick: int, acl: Acl | None) -> None:
        meta, _ = self._client(client)
        ino = self._dir(pick)
        node = self.nodes[ino]
        if acl is not None:
            meta.setxattr(SUPER, ino, DEFAULT, acl.wire())
        elif node.default is not None:
            meta.removexattr(SUPER, ino, DEFAULT)
        node.default = None if acl is None else acl.copy()

    @rule(client=PICK, pick=PICK, who=CALLERS, mask=st.integers(1, 7))
    def access(self, client: int, pick: int, who: Caller, mask: int) -> None:
        meta, _ = self._client(client)
        ino = self._ino(pick)
        if model.may(self.nodes[ino], who.uid, {who.gid, *who.gids}, mask):
            meta.access(who, ino, mask)
        else:
            with pytest.raises(Denied):
                meta.access(who, ino, mask)

    @precondition(lambda self: self._has_files())
    @rule(client=PICK, pick=PICK, owner=OWNERS, kind=KINDS)
    def flock(self, client: int, pick: int, owner: int, kind: LockKind) -> None:
        meta, number = self._client(client)
        ino = self._file(pick)
        if self._is_told(("flock", ino, (number, owner)), kind, lambda: meta.flock(ino, owner, kind)):
            return
        assert meta.flock(ino, owner, kind) is model.flock(self.nodes[ino], (number, owner), kind)

    @precondition(lambda self: self._has_files())
    @rule(client=PICK, pick=PICK, owner=OWNERS, kind=KINDS, start=STARTS, end=ENDS)
    def setlk(self, client: int, pick: int, owner: int, kind: LockKind, start: int, end: int) -> None:
        meta, number = self._client(client)
        ino, pid = self._file(pick), owner % 1000
        end = max(start, end)
        asks = partial(meta.setlk, ino, owner, kind, start, end, pid)
        if self._is_told(("plock", ino, (number, owner)), kind, asks, range(start, min(end, BYTES) + 1)):
            return
        done = meta.setlk(ino, owner, kind, start, end, pid)
        assert done is model.setlk(self.nodes[ino], (number, owner), kind, start, end, pid)

    @precondition(lambda self: self._has_files())
    @rule(client=PICK, pick=PICK, owner=OWNERS, kind=KINDS, start=STARTS, end=ENDS)
    def getlk(self, client: int, pick: int, owner: int, kind: LockKind, start: int, end: int) -> None:
        meta, number = self._client(client)
        ino = self._file(pick)
        end = max(start, end)
        asks = partial(meta.getlk, ino, owner, kind, start, end)
        if self._is_told(("plock", ino, (number, owner)), LockKind.READ, asks):
            return
        found = meta.getlk(ino, owner, kind, start, end)
        first = model.clash(self.nodes[ino], (number, owner), kind, start, end)
        assert (found is None) == (first is None)
        if found is not None and first is not None:
            assert found.start <= max(first, start) <= found.end
            assert LockKind.WRITE in {kind, found.kind}

    @precondition(lambda self: self._has_files())
    @rule(client=PICK, pick=PICK, owner=OWNERS)
    def close_file(self, client: int, pick: int, owner: int) -> None:
        meta, number = self._client(client)
        ino = self._file(pick)
        asks = partial(meta.release_locks, ino, owner)
        if self._is_told(("plock", ino, (number, owner)), LockKind.UNLOCK, asks):
            return
        asks()
        self.nodes[ino].ranges.pop((number, owner), None)

    def _is_told(
        self, claim: tuple[str, int, Owner], kind: LockKind, asks: Callable[[], object], cells: Iterable[int] = EVERY
    ) -> bool:
        """Whether an owner lost its lock: then all it asks is refused, and what it unlocks is not lost any more."""
        if claim not in self.lost:
            return False
        with pytest.raises(Stale):
            asks()
        if kind == LockKind.UNLOCK:
            self.lost[claim].difference_update(cells)
            if not self.lost[claim]:
                del self.lost[claim]
        return True

    @rule(client=PICK)
    def buried_alive(self, client: int) -> None:
        """A client is suspended until the other one has buried it, and wakes up."""
        at = client % 2
        slow, other, number = self.services[at], self.services[1 - at], self.numbers[at]
        assert slow.sid is not None
        other.end_session(slow.sid)
        slow.beat()
        for ino, node in self.nodes.items():
            for who in node.whole:
                if who[0] == number:
                    self.lost["flock", ino, who] = {0}
            for who, cells in node.ranges.items():
                if who[0] == number:
                    self.lost["plock", ino, who] = {at for at, held in enumerate(cells) if held is not None}
            model.forget(node, number)

    @rule(client=PICK, killed=st.booleans())
    def end(self, client: int, *, killed: bool) -> None:
        """A client goes, or dies and is buried by the other one; another comes."""
        at = client % 2
        gone, other = self.services[at], self.services[1 - at]
        if killed:
            assert gone.sid is not None
            other.engine.put_session(Session(gone.sid, 5, b""))
            other.engine.claim_job("lastCleanupSessions", 1, 0)
            other.end_session(gone.sid)
            self.dead.append(gone)
        else:
            gone.close()
        for node in self.nodes.values():
            model.forget(node, self.numbers[at])
        self.born += 1
        self.services[at], self.numbers[at] = self._open(), self.born

    @rule(client=PICK, pick=PICK)
    def look(self, client: int, pick: int) -> None:
        meta, _ = self._client(client)
        self._compare(meta, self._ino(pick))

    def _compare(self, meta: MetaService, ino: int) -> None:
        node, attr = self.nodes[ino], meta.getattr(ino)
        assert attr.mode == node.mode
        if ino != ROOT:
            assert (attr.uid, attr.gid) == (node.uid, node.gid)
        rules = {ACCESS: node.access, DEFAULT: node.default}
        wanted = {name: rule.wire() for name, rule in rules.items() if rule is not None}
        assert {name: meta.getxattr(ino, name) for name in meta.listxattr(ino) if name in NAMES} == wanted
        if node.is_dir:
            return
        assert meta.shown(ino, attr).nlink == node.names
        with meta.engine.view() as view:
            whole, ranges = view.flocks(ino), view.plocks(ino)
        numbers = {service.sid: number for service, number in zip(self.services, self.numbers, strict=True)}
        assert {(numbers[one.sid], one.owner): int(kind) for one, kind in whole.items()} == node.whole
        seen: dict[Owner, list[tuple[int, int] | None]] = {}
        for one, held in ranges.items():
            cells = seen[numbers[one.sid], one.owner] = [None] * (BYTES + 1)
            for kind, pid, start, end in held:
                cells[start : min(end, BYTES) + 1] = [(int(kind), pid)] * (min(end, BYTES) + 1 - start)
        assert seen == node.ranges

    def teardown(self) -> None:
        """Everything once more, the audit, and nothing left by who is gone."""
        try:
            for ino in self.nodes:
                self._compare(self.services[0], ino)
            for service in self.dead:
                service.engine.close()
        finally:
            for service in self.services:
                service.close()
        engine = open_engine(self.url)
        try:
            assert check_engine(engine, stats=not self.dead) == []
            assert engine.sessions() == []
            assert "locks" not in engine.used_features()
            rules = list(engine.acls().values())
            assert len(rules) == len(set(rules)), "no rule is stored twice where clients take turns"
        finally:
            engine.close()


CASES = [kind for kind in META_ENGINES if kind not in REDIS_GROUPS]
"""Groups of Redis servers answer as one does; their locks are in the contract suite."""


@pytest.mark.parametrize("kind", CASES)
def test_histories_of_clients(kind: str, request: pytest.FixtureRequest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_url = fresh_urls(kind, request, Path(folder))
        machine: Any = type("Machine", (Clients,), {"make_url": staticmethod(make_url)})
        share = settings().max_examples if kind == "memory" else max(settings().max_examples // 4, 5)
        run_state_machine_as_test(machine, settings=settings(max_examples=share, stateful_step_count=30))
