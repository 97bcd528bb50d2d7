"""Quotas as this client knows them: loaded every heartbeat, kept up with its own changes, which are flushed every few
seconds (volume-format.md 2.10).

Rule 1  what is used is what was stored at the last load, and what this client has changed and not flushed since.
Rule 2  a directory's quota that somebody deleted is not made again; a user's or group's record is, without limits.
Rule 3  trees that are not linked yet, and the trash, are below no directory's quota.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from fscore.domain.attr import Kind, space_of
from fscore.domain.errors import FsError, OverQuota, StoreError
from fscore.domain.ids import ROOT, TRASH, in_trash
from fscore.domain.quota import Load, Quota, QuotaKey, QuotaKind
from fscore.domain.setting import Setting
from fscore.meta.engine import MetaEngine
from fscore.meta.records import StatFs
from fscore.meta.txn import MetaTxn
from fscore.runtime import log
from fscore.runtime.clock import Clock

BATCH: Final = 256
"""Records changed in one transaction of a flush."""
DEEPEST: Final = 4096
"""Directories climbed before a loop is suspected."""
_NONE: Final = Load()
ROOTS: Final = frozenset({ROOT, TRASH})
_log = log.get(__name__)


class Quotas:
    """Answers from memory; `above` gives a directory and those above it (0: gone). Thread-safe.

    Which quotas lie above a directory is remembered for `believe_s`, and until this client itself moves a directory.
    """

    def __init__(
        self, engine: MetaEngine, above: Callable[[int], Sequence[int]], clock: Clock, believe_s: float
    ) -> None:
        self._engine = engine
        self._above = above
        self._clock = clock
        self._believe_s = believe_s
        self._chains: dict[int, tuple[QuotaKey, ...]] = {}
        self._believed_until = 0.0
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._stored: dict[QuotaKey, Quota] = {}
        self._pending: dict[QuotaKey, Load] = {}
        self._unplaced: dict[int, Load] = {}
        self._directories: frozenset[int] = frozenset()
        self._apart: frozenset[int] = frozenset()
        self._owners = False

    @property
    def any(self) -> bool:
        """Whether anything is limited or counted: directories, or the volume's users and groups."""
        return self._owners or bool(self._directories)

    def reload(self, setting: Setting) -> None:
        """Load what is stored; what is not flushed yet stays on top of it."""
        kinds = [QuotaKind.DIRECTORY] if setting.dir_stats else []
        if setting.user_group_quota:
            kinds += [QuotaKind.USER, QuotaKind.GROUP]
        with self._flushing:
            stored = self._engine.load_quotas(*kinds) if kinds else {}
            with self._lock:
                self._stored = stored
                self._owners = setting.user_group_quota
                self._directories = frozenset(key.number for key in stored if key.kind is QuotaKind.DIRECTORY)
                self._pending = {key: load for key, load in self._pending.items() if self._counts(key)}
                self._chains = {}

    def _counts(self, key: QuotaKey) -> bool:
        return key in self._stored if key.kind is QuotaKind.DIRECTORY else self._owners

    def get(self, key: QuotaKey) -> Quota | None:
        """A quota as this client sees it."""
        with self._lock:
            return self._seen(key)

    def _seen(self, key: QuotaKey) -> Quota | None:
        stored = self._stored.get(key)
        load = self._pending.get(key, _NONE)
        return None if stored is None else stored.grown(*load)

    def moved(self) -> None:
        """This client has moved something: directories may lie below other quotas now."""
        self._chains = {}

    def over(self, ino: int) -> tuple[QuotaKey, ...]:
        """The quotas that a directory counts into, its own included, the nearest first."""
        if not self._directories:
            return ()
        now = self._clock.monotonic()
        if now >= self._believed_until:
            self._chains, self._believed_until = {}, now + self._believe_s
        chains = self._chains
        found = chains.get(ino)
        if found is None:
            found = chains[ino] = self._climb(ino)
        return found

    def _climb(self, ino: int) -> tuple[QuotaKey, ...]:
        found: list[QuotaKey] = []
        for above in self._above(ino):
            if not above or in_trash(above) or above in self._apart:
                return ()
            if above in self._directories:
                found.append(QuotaKey(QuotaKind.DIRECTORY, above))
        return tuple(found)

    def check_owner(self, uid: int, gid: int, space: int, inodes: int) -> None:
        """See `ops.work.Limits`."""
        if self._owners:
            self._check((QuotaKey(QuotaKind.USER, uid), QuotaKey(QuotaKind.GROUP, gid)), space, inodes)

    def check_directory(self, parent: int, space: int, inodes: int, source: int = 0) -> None:
        """See `ops.work.Limits`."""
        if space <= 0 and inodes <= 0:
            return
        old = set(self.over(source)) if source else ()
        self._check([key for key in self.over(parent) if key not in old], space, inodes)

    def check_entries(self, parents: Mapping[int, int], space: int, inodes: int) -> None:
        """See `ops.work.Limits`."""
        counts: dict[QuotaKey, int] = {}
        for parent, count in parents.items():
            for key in self.over(parent):
                counts[key] = counts.get(key, 0) + count
        for key, count in counts.items():
            self._check((key,), count * space, count * inodes)

    def crosses(self, source: int, target: int) -> bool:
        """See `ops.work.Limits`."""
        return source != target and bool(self._directories) and self.over(source) != self.over(target)

    def _check(self, keys: Iterable[QuotaKey], space: int, inodes: int) -> None:
        with self._lock:
            for key in keys:
                quota = self._stored.get(key)
                if quota is None or (quota.max_space <= 0 and quota.max_inodes <= 0):
                    continue
                pending = self._pending.get(key)
                if not (quota if pending is None else quota.grown(*pending)).allows(space, inodes):
                    raise OverQuota(f"the quota of {_name(key)}")

    def add(self, loads: Iterable[tuple[int, int, int]], owned: Iterable[tuple[int, int, int, int]]) -> None:
        """Count changes that were committed: (directory, space, inodes) and (uid, gid, space, inodes).

        They are done, so nothing is raised: where a directory lies that cannot be asked now, the next flush asks.
        """
        sums: dict[int, Load] = {}
        for ino, space, inodes in loads:
            sums[ino] = sums.get(ino, _NONE).plus(space, inodes)
        changes: list[tuple[QuotaKey, Load]] = []
        for ino, load in sums.items():
            if any(load):
                changes += self._placed(ino, load)
        if self._owners:
            for uid, gid, space, inodes in owned:
                load = Load(space, inodes)
                changes += ((QuotaKey(QuotaKind.USER, uid), load), (QuotaKey(QuotaKind.GROUP, gid), load))
        with self._lock:
            for key, (space, inodes) in changes:
                load = self._pending.get(key, _NONE)
                self._pending[key] = Load(load.space + space, load.inodes + inodes)

    def _placed(self, ino: int, load: Load) -> list[tuple[QuotaKey, Load]]:
        try:
            return [(key, load) for key in self.over(ino)]
        except (FsError, StoreError) as error:
            _log.warning("the quotas above inode %d are not known now, they are charged later: %s", ino, error)
            with self._lock:
                self._unplaced[ino] = self._unplaced.get(ino, _NONE).plus(*load)
            return []

    def flush(self) -> None:
        """Store what is pending; what cannot be stored stays pending."""
        if self._unplaced:
            with self._lock:
                unplaced, self._unplaced = self._unplaced, {}
            self.add([(ino, *load) for ino, load in unplaced.items()], ())
        if not self._pending:
            return
        with self._flushing:
            with self._lock:
                pending = [(key, load) for key, load in self._pending.items() if any(load)]
            pending.sort(key=lambda item: (item[0].number, item[0].kind.value))  # rows are locked in one order
            for start in range(0, len(pending), BATCH):
                part = dict(pending[start : start + BATCH])
                self._engine.transact(partial(_store, part))
                self._stored_now(part)

    def _stored_now(self, part: dict[QuotaKey, Load]) -> None:
        with self._lock:
            for key, load in part.items():
                stored = self._stored.get(key, Quota() if key.kind is not QuotaKind.DIRECTORY else None)
                if stored is not None:
                    self._stored[key] = stored.grown(*load)
                left = self._pending[key].plus(-load.space, -load.inodes)
                if any(left):
                    self._pending[key] = left
                else:
                    del self._pending[key]

    def narrowed(self, whole: StatFs, ino: int) -> StatFs:
        """The totals of a volume as they show below a directory: the nearest quota's usage, the tightest room."""
        quotas = [quota for quota in map(self.get, self.over(ino)) if quota is not None]
        if not quotas:
            return whole
        rooms = [max(quota.max_space - quota.used_space, 0) for quota in quotas if quota.max_space > 0]
        free = [max(quota.max_inodes - quota.used_inodes, 0) for quota in quotas if quota.max_inodes > 0]
        used, avail = max(quotas[0].used_space, 0), min(whole.avail, *rooms, whole.avail)
        inodes = max(quotas[0].used_inodes, 0)
        return StatFs(used + avail, avail, used, inodes, min(whole.inodes_free, *free, whole.inodes_free))

    @contextmanager
    def apart(self, root: int) -> Iterator[None]:
        """While this runs, the tree below `root` is not linked yet: what happens in it counts into no directory."""
        with self._lock:
            self._apart |= {root}
            self._chains = {}
        try:
            yield
        finally:
            with self._lock:
                self._apart -= {root}
                self._chains = {}

    def weigh(self, ino: int) -> Load:
        """What lies below a directory: what its own quota says, else counted."""
        quota = self.get(QuotaKey(QuotaKind.DIRECTORY, ino))
        return weigh(self._engine, ino) if quota is None else Load(quota.used_space, quota.used_inodes)


def weigh(engine: MetaEngine, ino: int) -> Load:
    """Count what lies below a directory: one charge per entry, whatever the links (volume-format.md 2.5)."""
    space = inodes = 0
    pending = [ino]
    while pending:
        for batch in engine.scan_dir(pending.pop(), attrs=True):
            for entry in batch:
                space += space_of(entry.kind, entry.attr.length if entry.attr is not None else 0)
                inodes += 1
                if entry.kind == Kind.DIRECTORY:
                    pending.append(entry.ino)
    return Load(space, inodes)


def weigh_owners(engine: MetaEngine) -> dict[QuotaKey, Load]:
    """Count what each user and group owns: every node once, the two roots excepted (volume-format.md 2.10)."""
    found: dict[QuotaKey, Load] = {}
    for ino, attr in engine.scan_nodes():
        if ino in ROOTS:
            continue
        space = space_of(attr.kind, attr.length)
        for key in (QuotaKey(QuotaKind.USER, attr.uid), QuotaKey(QuotaKind.GROUP, attr.gid)):
            found[key] = found.get(key, _NONE).plus(space, 1)
    return found


def _store(part: dict[QuotaKey, Load], txn: MetaTxn) -> None:
    there = txn.quotas(list(part))
    for key, load in part.items():
        if key in there:
            txn.add_quota(key, *load)
        elif key.kind is not QuotaKind.DIRECTORY:
            txn.put_quota(key, Quota().grown(*load))


def _name(key: QuotaKey) -> str:
    return {
        QuotaKind.DIRECTORY: f"directory inode {key.number}",
        QuotaKind.USER: f"user {key.number}",
        QuotaKind.GROUP: f"group {key.number}",
    }[key.kind]
