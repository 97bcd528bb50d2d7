"""Changes of entries: create, link, unlink, rename; and attributes, which move no data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from fscore.domain.attr import Attr, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import Exists, Invalid, NotPermitted
from fscore.domain.ids import ROOT, TRASH, in_trash
from fscore.domain.quota import Load
from fscore.meta.ops import change, create, remove, rename
from fscore.meta.ops.change import AttrChange
from fscore.meta.ops.check import check_name, check_victim_name
from fscore.meta.ops.remove import UNMADE, HourMissing, Removal, Removed
from fscore.meta.ops.rename import Place, RenameFlag, WeightMissing
from fscore.meta.ops.work import NANO, Work
from fscore.meta.records import Counter
from fscore.meta.service.lookups import Lookups

T = TypeVar("T")

HOUR_S: Final = 3600
HOUR_MODE: Final = 0o555
_ROOT: Final = Caller(uid=0, gid=0, umask=0)


class Names(Lookups):
    """One transaction each, and in the usual case one round trip."""

    def mknod(
        self, who: Caller, parent: int, name: bytes, kind: Kind, mode: int, *, rdev: int = 0, target: bytes = b""
    ) -> tuple[int, Attr]:
        """A new node of any kind; `mode` is subject to the caller's umask."""
        return self._mknod(who, parent, name, kind, mode, rdev=rdev, target=target)

    def create(self, who: Caller, parent: int, name: bytes, mode: int, *, exclusive: bool = True) -> tuple[int, Attr]:
        """A new empty file; without `exclusive` a file that is there already is the answer, unchanged."""
        return self._mknod(who, parent, name, Kind.FILE, mode, exclusive=exclusive)

    def mkdir(self, who: Caller, parent: int, name: bytes, mode: int) -> tuple[int, Attr]:
        """A new directory."""
        return self._mknod(who, parent, name, Kind.DIRECTORY, mode)

    def symlink(self, who: Caller, parent: int, name: bytes, target: bytes) -> tuple[int, Attr]:
        """A new symbolic link."""
        return self._mknod(who, parent, name, Kind.SYMLINK, 0o777, target=target)

    def _mknod(
        self,
        who: Caller,
        parent: int,
        name: bytes,
        kind: Kind,
        mode: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
        exclusive: bool = True,
    ) -> tuple[int, Attr]:
        self._check_writable()
        check_name(parent, name)
        _outside_trash(parent)
        if kind == Kind.SYMLINK:
            create.check_target(target)
        ino = self._inodes.take()
        return self._run(
            who,
            lambda work: create.mknod(
                work, parent, name, ino, kind, mode, rdev=rdev, target=target, exclusive=exclusive
            ),
        )

    def link(self, who: Caller, ino: int, parent: int, name: bytes) -> Attr:
        """Another name for a file."""
        check_name(parent, name)
        _outside_trash(parent)
        return self._run(who, lambda work: create.link(work, ino, parent, name))

    def unlink(self, who: Caller, parent: int, name: bytes, *, skip_trash: bool = False) -> None:
        """Remove an entry that is no directory, into the trash when the volume has one."""
        check_victim_name(parent, name)
        how = self._removal(parent, name, skip_trash=skip_trash)
        self._settle(self._run_removal(who, how, lambda work, how: remove.unlink(work, parent, name, how)))

    def rmdir(self, who: Caller, parent: int, name: bytes, *, skip_trash: bool = False) -> None:
        """Remove an empty directory, into the trash when the volume has one."""
        check_victim_name(parent, name)
        how = self._removal(parent, name, skip_trash=skip_trash)
        self._run_removal(who, how, lambda work, how: remove.rmdir(work, parent, name, how))

    def rename(
        self,
        who: Caller,
        sparent: int,
        sname: bytes,
        dparent: int,
        dname: bytes,
        *,
        flags: RenameFlag = RenameFlag.NONE,
    ) -> tuple[int, Attr]:
        """Move an entry; a target that exists is replaced, refused (NO_REPLACE) or exchanged (EXCHANGE)."""
        check_victim_name(sparent, sname)
        if dname in {b".", b".."}:
            raise Exists(path=dname) if flags & RenameFlag.NO_REPLACE else Invalid("the target is . or ..")
        check_name(dparent, dname)
        how = self._removal(dparent, dname, skip_trash=False)
        source = Place(sparent, sname, self._cache.known_ino(sparent, sname))
        target = Place(dparent, dname, how.hint)
        ancestors = None if flags & RenameFlag.EXCHANGE else self._ancestors(source, target)
        done = self._weighed(
            lambda weights: self._run_removal(
                who, how, lambda work, how: rename.rename(work, source, target, flags, how, ancestors, weights)
            )
        )
        if done.attr.kind == Kind.DIRECTORY or flags & RenameFlag.EXCHANGE:
            self._quotas.moved()
        if done.replaced is not None:
            self._settle(done.replaced)
        return done.ino, done.attr

    def _weighed(self, move: Callable[[Mapping[int, Load]], T]) -> T:
        """Run a rename; what lies below a directory is counted only when it goes from one quota to another."""
        weights: dict[int, Load] = {}
        while True:
            try:
                return move(weights)
            except WeightMissing as missing:
                weights[missing.ino] = self._quotas.weigh(missing.ino)

    def restore(self, who: Caller, hour: int, name: bytes) -> int:
        """Put an entry of an hour directory back where its name says it was; Exists when something is there."""
        parts = name.split(b"-", 2)
        if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit():
            raise Invalid("the name does not tell where it was", name)
        flags = RenameFlag.NO_REPLACE | RenameFlag.RESTORE
        return self.rename(who, hour, name, int(parts[0]), parts[2], flags=flags)[0]

    def setattr(self, who: Caller, ino: int, change_: AttrChange) -> Attr:
        """Change mode, owner, times or flags; ctime moves when something did."""
        return self._run(who, lambda work: change.setattr(work, ino, change_))

    def _removal(self, parent: int, name: bytes, *, skip_trash: bool) -> Removal:
        self._check_writable()
        hint = self._cache.known_ino(parent, name)
        trash = 0
        if self.setting.trash_days > 0 and not skip_trash and not in_trash(parent):
            hour, made = self._hour
            trash = made if hour == self._now_hour() else UNMADE
        return Removal(trash, hint, self._opened.is_open if self._session is not None else _never)

    def _run_removal(self, who: Caller, how: Removal, operation: Callable[[Work, Removal], T]) -> T:
        """Run what may put something into the trash; the hour directory is made only when something really goes."""
        try:
            return self._run(who, lambda work: operation(work, how))
        except HourMissing:
            made = how._replace(trash=self.trash_hour())
        return self._run(who, lambda work: operation(work, made))

    def _settle(self, removed: Removed) -> None:
        """A file lost its last name while a handle was open here: keep it for the handle, or let it go after all."""
        if removed.sustained and not self._opened.sustain(removed.ino):
            self._destroy_sustained(removed.ino)

    def _destroy_sustained(self, ino: int) -> None:
        if self._session is not None:
            self._destroy_held(self._session.sid, ino)

    def _destroy_held(self, sid: int, ino: int) -> None:
        self._run(_ROOT, lambda work: remove.destroy_sustained(work, sid, ino))

    def _ancestors(self, source: Place, target: Place) -> tuple[int, ...] | None:
        """The ancestors that a directory's new place was last seen to have; None when too little was seen."""
        if source.parent == target.parent:
            return ()
        seen = self._cache.known_node(source.hint)
        if seen is not None and seen.kind != Kind.DIRECTORY:
            return ()
        chain: list[int] = []
        ino = target.parent
        while ino != ROOT and len(chain) < 64:
            attr = self._cache.known_node(ino)
            if seen is None or attr is None or attr.parent in chain:
                return None
            ino = attr.parent
            chain.append(ino)
        return tuple(chain)

    def trash_hour(self) -> int:
        """The trash directory of this UTC hour, made when it is missing (volume-format.md 2.8)."""
        hour = self._now_hour()
        known, ino = self._hour
        if known == hour:
            return ino
        name = f"{dt.datetime.fromtimestamp(hour * HOUR_S, dt.UTC):%Y-%m-%d-%H}".encode()
        with self.engine.view() as view:
            edge = view.edge(TRASH, name)
        ino = self._make_hour(name) if edge is None else edge.ino
        self._hour = (hour, ino)
        return ino

    def _now_hour(self) -> int:
        """This hour, counted from 1970."""
        return self._clock.now_ns() // (HOUR_S * NANO)

    def _make_hour(self, name: bytes) -> int:
        ino = TRASH + self.engine.reserve(Counter.TRASH, 1)[0]
        try:
            self._run(_ROOT, lambda work: create.hour(work, TRASH, name, ino, HOUR_MODE))
        except Exists:
            with self.engine.view() as view:
                edge = view.edge(TRASH, name)
            assert edge is not None
            return edge.ino
        return ino


def _never(_ino: int) -> bool:
    return False


def _outside_trash(parent: int) -> None:
    if in_trash(parent):
        raise NotPermitted("nothing is created in the trash")
