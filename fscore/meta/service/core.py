"""Runs operations: one transaction each, and afterwards the cache, the statistics and the limits learn of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final, Literal, TypedDict, TypeVar

import msgspec

from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.errors import NotFound, ReadOnly, Stale
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.setting import Setting
from fscore.meta.acls import AclBook
from fscore.meta.cache import CEILING_S, NodeCache
from fscore.meta.changelog import ChangeLog, Value
from fscore.meta.engine import MetaEngine, SupportsNodes, SupportsResolve
from fscore.meta.ids import INODE_BATCH, SLICE_BATCH, Ids
from fscore.meta.links import LinkCounts
from fscore.meta.ops.work import RuleMissing, Rules, Work
from fscore.meta.quotas import DEEPEST, Quotas
from fscore.meta.records import Counter, Usage, want_lineage
from fscore.meta.session import LockClaims, OpenFiles, OwnSession
from fscore.meta.stats import DirStats
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import Clock

T = TypeVar("T")

LEAVE_S: Final = 5.0
"""How long a client that goes still cleans up after its own deletions; the rest is queued, and its peers do it."""

AtimeMode = Literal["noatime", "relatime", "strictatime"]
"""As the mount option of the official client: volume-format.md 2.13."""


class MetaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one process asks of a volume's metadata; never stored."""

    read_only: bool = False
    session: bool = True
    heartbeat_s: float = 12.0
    version: str = ""
    place: str = "fscore"
    cache_s: float = CEILING_S
    skip_dir_mtime_s: float = 0.1
    atime_mode: AtimeMode = "noatime"
    background: bool = True
    metadata_only: bool = False
    """The bytes of files are of no interest: how they are stored does not keep this client out."""
    setting_only: bool = False
    """Only the setting is changed: keys of a newer release are kept, and keep this client out of the tree only."""


class OptionChanges(TypedDict, total=False):
    """Fields of MetaOptions, as keyword arguments of `MetaService.open`."""

    read_only: bool
    session: bool
    heartbeat_s: float
    version: str
    place: str
    cache_s: float
    skip_dir_mtime_s: float
    atime_mode: AtimeMode
    background: bool
    metadata_only: bool
    setting_only: bool


class Core:
    """What every part of the service stands on."""

    def __init__(self, engine: MetaEngine, clock: Clock, setting: Setting, options: MetaOptions) -> None:
        self.engine: Final = engine
        self._walker: Final = engine if isinstance(engine, SupportsResolve) else None
        self._nodes_at_once: Final = engine if isinstance(engine, SupportsNodes) else None
        self.options: Final = options
        self.setting: Setting = setting
        self._clock = clock
        self._cache = NodeCache(options.cache_s)
        self._stats = DirStats(engine, self._append_log)
        self._quotas = Quotas(engine, self._above, clock, options.cache_s)
        self._inodes = Ids(self._take_numbers, Counter.INODE, INODE_BATCH)
        self._slices = Ids(self._take_numbers, Counter.SLICE, SLICE_BATCH)
        self._opened = OpenFiles()
        self._claims = LockClaims()
        self._unheld: set[int] = set()
        self._renewing = threading.Lock()
        self._acls = AclBook(engine)
        self._links = LinkCounts()
        self._session: OwnSession | None = None
        self._lock = threading.Lock()
        self._leaving = threading.Event()
        self._leave_by = math.inf
        self._stale = ""
        self._usage = Usage(0, 0)
        self._doomed: list[tuple[int, int]] = []
        self._hour: tuple[int, int] = (-1, 0)
        self._overdue = math.inf
        self._limited = False
        self._followers: list[Callable[[Setting], None]] = []
        self._trim_at = 0.0
        self._log = ChangeLog()
        self._rules = Rules()
        self.keeps_atime: Final = options.atime_mode != "noatime" and not options.read_only

    @property
    def sid(self) -> int | None:
        """The number of the own session; None without one."""
        return self._session.sid if self._session is not None else None

    @property
    def read_only(self) -> bool:
        """Whether this client must not write."""
        return self.options.read_only

    def leaving(self) -> None:
        """This client is about to close: end jobs of the whole volume soon, and start none. Idempotent."""
        if not self._leaving.is_set():
            self._leave_by = self._clock.monotonic() + LEAVE_S
            self._leaving.set()

    def follow(self, told: Callable[[Setting], None]) -> None:
        """Call `told` with the setting now, and at every heartbeat with what it is by then."""
        self._followers.append(told)
        told(self.setting)

    def _adopt(self, setting: Setting) -> None:
        """Follow a setting that was loaded, and what the volume holds by now."""
        self.setting = setting
        self._limited = bool(setting.capacity or setting.inodes)
        if self._limited:
            with self.engine.view() as view:
                usage = view.usage()
            with self._lock:
                self._usage = usage
        for told in self._followers:
            told(setting)
        self._quotas.reload(setting)
        self._rules = Rules(
            dir_stats=setting.dir_stats,
            skip_dir_ns=int(self.options.skip_dir_mtime_s * 1e9),
            sid=self.sid,
            quotas=self._quotas if self._quotas.any else None,
            log=self._log if setting.change_log else None,
            acls=self._acls if setting.enable_acl else None,
        )

    def _take_numbers(self, counter: Counter, count: int) -> range:
        """Fresh numbers. Their line comes first: a replica that is ahead has lost nothing."""
        self._append_log("INCR_COUNTER(%s,%d)", counter.value, count)
        return self.engine.reserve(counter, count)

    def _claim_job(self, gate: str, now_s: int, window_s: int) -> bool:
        """See `MetaEngine.claim_job`."""
        won = self.engine.claim_job(gate, now_s, window_s)
        if won:
            self._append_log("SET(%s,%d)", gate, now_s)
        return won

    def _append_log(self, operation: str, *values: Value) -> None:
        """A line about what an engine did outside of a transaction, when the volume keeps a change log."""
        if self._rules.log is not None:
            line = self._log.line(self._clock.now_ns(), operation, *values)
            self.engine.transact(lambda txn: txn.put_log(line))

    def _above(self, ino: int) -> list[int]:
        """A directory and those above it, up to the root or the trash, as this client saw them at most a second ago; 0
        ends it where one is gone. What it has not seen is read in one go.
        """
        self._check_alive()
        chain, now, epoch = [ino], self._clock.monotonic(), self._cache.epoch
        while _leads_on(chain) and (known := self._cache.node(chain[-1], now)) is not None:
            chain.append(known.parent)
        if not _leads_on(chain):
            return chain
        with self.engine.view() as view:
            view.prefetch(want_lineage(chain[-1]))
            while _leads_on(chain):
                attr = view.node(chain[-1])
                if attr is not None:
                    self._cache.learn_node(chain[-1], attr, now, epoch)
                chain.append(attr.parent if attr is not None else 0)
        return chain

    def _check_alive(self) -> None:
        if self._stale:
            raise Stale(self._stale)

    def _check_writable(self) -> None:
        self._check_alive()
        if self.options.read_only:
            raise ReadOnly("this client has opened the volume read-only")

    def _current_rules(self) -> Rules:
        if not self._limited:
            return self._rules
        setting = self.setting
        with self._lock:
            usage = self._usage
        return self._rules._replace(
            room_space=setting.capacity - usage.space if setting.capacity else None,
            room_inodes=setting.inodes - usage.inodes if setting.inodes else None,
        )

    def _run(self, who: Caller, operation: Callable[[Work], T]) -> T:
        """Run an operation in a transaction, and let the rest of this client know what it changed."""
        self._check_writable()
        self._check_in_time()
        now_ns = self._clock.now_ns()
        rules = self._current_rules()
        epoch = self._cache.epoch
        work: Work | None = None

        def body(txn: MetaTxn) -> T:
            nonlocal work
            work = Work(txn, who, now_ns, rules)
            return operation(work)

        result = self._transact(body)
        assert work is not None
        self._absorb(work, epoch)
        return result

    def _transact(self, body: Callable[[MetaTxn], T]) -> T:
        """Run a body; an ACL rule that it wants to refer to is stored first."""
        while True:
            try:
                return self.engine.transact(body)
            except RuleMissing as missing:
                self._acls.add(missing.rule)

    def _check_in_time(self) -> None:
        if self._clock.monotonic() > self._overdue:
            self._catch_up()

    def _catch_up(self) -> None:
        """The heartbeat is so late that peers may have taken this client for dead: register again before writing."""

    def _absorb(self, work: Work, epoch: int) -> None:
        if work.nodes or work.edges:
            self._links.forget(work.nodes)
            self._cache.changed(work.nodes, work.edges, self._clock.monotonic(), epoch)
        if work.stats:
            self._stats.add(work.stats)
        if self._limited and (work.space or work.inodes):
            with self._lock:
                self._usage = Usage(self._usage.space + work.space, self._usage.inodes + work.inodes)
        if work.queued:
            with self._lock:
                self._doomed += work.queued
        if work.loads or work.owned:
            self._quotas.add(work.loads, work.owned)

    def tier_of(self, ino: int) -> int:
        """The tier that new bytes of a file go to; 0 without a question asked when the volume has no other."""
        if len(self.setting.tiers or ()) < 2:
            return 0
        try:
            return self._node(ino).tier
        except NotFound:
            return 0

    def _node(self, ino: int, *, fresh: bool = False) -> Attr:
        """A node's attributes, from the cache unless they must be `fresh`."""
        self._check_alive()
        now = self._clock.monotonic()
        attr = None if fresh else self._cache.node(ino, now)
        if attr is None:
            epoch = self._cache.epoch
            with self.engine.view() as view:
                attr = view.node(ino)
            if attr is None:
                self._cache.forget(ino)
                raise NotFound(f"inode {ino}")
            self._cache.learn_node(ino, attr, now, epoch)
        return attr


def _leads_on(chain: list[int]) -> bool:
    """Whether there may be a directory above the last one."""
    return 0 < chain[-1] < TRASH and chain[-1] != ROOT and len(chain) < DEEPEST
