"""Reads of the tree: paths, attributes, directories, totals."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fscore.domain.attr import Attr, Entry, Kind, space_of
from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, Invalid, NotADir, NotFound, StoreError, TooLong, TooManyLinks
from fscore.domain.ids import MAX_NAME, ROOT, TRASH
from fscore.meta.ops import change
from fscore.meta.ops.check import EXECUTE, READ, check_access, directory
from fscore.meta.records import DirStat, Edge, StatFs, want_parents
from fscore.meta.service.core import Core
from fscore.runtime import log

MAX_FOLLOWED: Final = 40
UNLIMITED_SPACE: Final = 1 << 50
UNLIMITED_INODES: Final = 10 << 20
TRASH_NAME: Final = b".trash"

logger = log.get(__name__)
_ROOT: Final = Caller.root()
_DOTS: Final = frozenset({b"", b".", b".."})


class Summary(NamedTuple):
    """What lies at and below a node: bytes of files, charged bytes, files and directories (itself included)."""

    length: int
    space: int
    files: int
    dirs: int


class Lookups(Core):
    """Reads; they take no lock and change nothing."""

    def lookup(self, who: Caller, parent: int, name: bytes, *, sure: bool = False) -> tuple[int, Attr]:
        """The node that `name` names in `parent`; `.` and `..` too. NotFound when there is none.

        Who is `sure` that `parent` is a directory spares a trip for a name that is not there.
        """
        self._check_alive()
        just_read = False
        if who.uid != 0:
            just_read = self._cache.node(parent, self._clock.monotonic()) is None
            check = directory(self._node(parent), parent)
            self._check_access(check, who, EXECUTE)
        return self._child(parent, name, (), set(), sure=sure or just_read)

    def resolve(self, who: Caller, path: bytes, *, follow: bool = True, parent: int = ROOT) -> tuple[int, Attr]:
        """The node at `path` below `parent`; links on the way are followed, and one at the end with `follow`."""
        for _ in range(path.count(b"/") + 1):
            epoch = self._cache.epoch
            try:
                return self._resolve(who, path, follow=follow, parent=parent)
            except NotFound:
                if self._cache.epoch == epoch:
                    raise  # else a directory that was believed in is gone, and the one above it may be
        return self._resolve(who, path, follow=follow, parent=parent)

    def _resolve(self, who: Caller, path: bytes, *, follow: bool, parent: int) -> tuple[int, Attr]:
        self._check_alive()
        names = deque(part for part in path.split(b"/") if part not in {b"", b"."})
        must_be_dir = path.endswith((b"/", b"/."))
        ino, attr, followed = parent, self._node(parent), 0
        absent: set[tuple[int, bytes]] = set()
        while names:
            if attr.kind != Kind.DIRECTORY:
                raise NotADir(path=path)
            if who.uid != 0:
                self._check_access(attr, who, EXECUTE)
            name = names.popleft()
            child, found = self._child(ino, name, names, absent)
            if found.kind == Kind.SYMLINK and (names or follow or must_be_dir):
                followed += 1
                if followed > MAX_FOLLOWED:
                    raise TooManyLinks(path=path)
                target = self.readlink(child)
                names.extendleft(reversed([part for part in target.split(b"/") if part not in {b"", b"."}]))
                if target.startswith(b"/"):
                    ino, attr = ROOT, self._node(ROOT)
                continue
            ino, attr = child, found
        if must_be_dir and attr.kind != Kind.DIRECTORY:
            raise NotADir(path=path)
        return ino, attr

    def _child(
        self,
        parent: int,
        name: bytes,
        ahead: Sequence[bytes] | deque[bytes],
        absent: set[tuple[int, bytes]],
        *,
        sure: bool = False,
    ) -> tuple[int, Attr]:
        """A child by name. What comes `ahead` on the path is fetched with it when the engine can.

        What is not there on the way is put into `absent`. `sure` that the parent is a directory: else it is read when
        there is no such child, to tell why.
        """
        now = self._clock.monotonic()
        edge = self._cache.edge(parent, name, now)
        if edge is not None:
            attr = self._cache.node(edge.ino, now)
            if attr is not None:
                return edge.ino, attr
        if name in _DOTS or len(name) > MAX_NAME or (parent == ROOT and name == TRASH_NAME):
            return self._special(parent, name)
        wanted = [name]
        for later in ahead:
            if later in _DOTS or len(later) > MAX_NAME:
                break
            wanted.append(later)
        if (parent, name) in absent:
            raise NotFound(path=name)
        found = self._walk(parent, wanted, now)
        if found and len(found) < len(wanted) and found[-1][1].is_dir and self._walker is not None:
            absent.add((found[-1][0], wanted[len(found)]))
        if not found:
            if not sure:
                directory(self._node(parent, fresh=True), parent)
            raise NotFound(path=name)
        return found[0]

    def _walk(self, parent: int, names: Sequence[bytes], now: float) -> list[tuple[int, Attr]]:
        """Fetch children in turn, as far as the engine goes in one trip; keep them in the cache."""
        epoch = self._cache.epoch
        if self._walker is not None:
            found = self._walker.walk(parent, names)
        else:
            with self.engine.view() as view:
                edge = view.edge(parent, names[0])
                attr = view.node(edge.ino) if edge is not None else None
            found = [(edge.ino, attr)] if edge is not None and attr is not None else []
        for name, (ino, attr) in zip(names, found, strict=False):
            self._cache.learn_edge(parent, name, Edge(attr.kind, ino), attr, now, epoch)
            parent = ino
        return found

    def _special(self, parent: int, name: bytes) -> tuple[int, Attr]:
        if len(name) > MAX_NAME:
            raise TooLong(f"a name of {len(name)} bytes, {MAX_NAME} are allowed")
        if name == b"..":
            above = directory(self._node(parent), parent).parent
            return above, self._node(above)
        if name == TRASH_NAME:
            return TRASH, self._node(TRASH)
        return parent, self._node(parent)

    def _check_access(self, attr: Attr, who: Caller, mask: int) -> None:
        check_access(self._acls, attr, who, mask)

    def getattr(self, ino: int, *, fresh: bool = False) -> Attr:
        """A node's attributes, at most a second old, or as they are now."""
        return self._node(ino, fresh=fresh)

    def access(self, who: Caller, ino: int, mask: int) -> None:
        """Denied unless the caller has every permission of `mask` (as of access(2))."""
        self._check_access(self._node(ino), who, mask)

    def readdir(self, who: Caller, ino: int, *, attrs: bool = True) -> Iterator[Entry]:
        """Entries of a directory, without `.` and `..`; `attr` is None for an entry whose node is missing."""
        attr = directory(self._node(ino), ino)
        self._check_access(attr, who, READ)
        self.touch_atime(ino)
        return self._entries(ino, attrs=attrs)

    def scan(self, who: Caller, ino: int) -> Iterator[tuple[Sequence[Entry], int]]:
        """As readdir without attributes, in the lists that the engine fetches, each with `changes` before its fetch."""
        attr = directory(self._node(ino), ino)
        self._check_access(attr, who, READ)
        self.touch_atime(ino)
        return self._scanned(ino)

    def _scanned(self, ino: int) -> Iterator[tuple[Sequence[Entry], int]]:
        epoch = self._cache.epoch
        for batch in self.engine.scan_dir(ino, attrs=False):
            yield (batch if all(entry.name for entry in batch) else [entry for entry in batch if entry.name]), epoch
            epoch = self._cache.epoch

    def nodes(self, inos: Sequence[int]) -> list[Attr | None]:
        """Attributes of many nodes as they are now, None for one that is missing; one round trip where that can be."""
        self._check_alive()
        if self._nodes_at_once is not None:
            found = self._nodes_at_once.nodes(inos)
        else:
            with self.engine.view() as view:
                found = [view.node(ino) for ino in inos]
        if all(attr is None or 0 < attr.parent < TRASH for attr in found):
            return found
        return self._all_shown(inos, found)

    def shown(self, ino: int, attr: Attr) -> Attr:
        """Attributes as programs see them: names in the trash do not count as links."""
        shown = self._links.shown(ino, attr)
        if shown is None:
            with self.engine.view() as view:
                shown = self._links.learn(ino, attr, view.parents(ino))
        return shown

    def _all_shown(self, inos: Sequence[int], attrs: Sequence[Attr | None]) -> list[Attr | None]:
        """As `shown`, with one round trip for those whose parents have to be read."""
        found = [None if attr is None else self._links.shown(ino, attr) for ino, attr in zip(inos, attrs, strict=True)]
        with self.engine.view() as view:
            lacking = [n for n, (attr, shown) in enumerate(zip(attrs, found, strict=True)) if attr and shown is None]
            view.prefetch(*(want_parents(inos[n]) for n in lacking))
            for n in lacking:
                attr = attrs[n]
                assert attr is not None
                found[n] = self._links.learn(inos[n], attr, view.parents(inos[n]))
        return found

    def touched(self, parent: int, since: int) -> frozenset[bytes] | None:
        """Names in a directory that this client changed after `changes` was `since`; None when that is too long ago."""
        return self._cache.touched(parent, since)

    def _entries(self, ino: int, *, attrs: bool) -> Iterator[Entry]:
        now, epoch = self._clock.monotonic(), self._cache.epoch
        for batch in self.engine.scan_dir(ino, attrs=attrs):
            for entry in batch:
                if not entry.name:
                    continue
                if entry.attr is not None:
                    self._cache.learn_edge(ino, entry.name, Edge(entry.kind, entry.ino), entry.attr, now, epoch)
                yield entry
            now, epoch = self._clock.monotonic(), self._cache.epoch

    def cached_child(self, who: Caller, parent: int, name: bytes) -> tuple[int, Attr] | None:
        """As lookup, from what this process saw a moment ago; None when it would have to ask."""
        self._check_alive()
        now = self._clock.monotonic()
        edge = self._cache.edge(parent, name, now)
        attr = self._cache.node(edge.ino, now) if edge is not None else None
        if edge is None or attr is None or self._links.shown(edge.ino, attr) is None:
            return None
        if who.uid != 0:
            above = self._cache.node(parent, now)
            if above is None or above.access_acl or above.kind != Kind.DIRECTORY:
                return None
            self._check_access(above, who, EXECUTE)
        return edge.ino, attr

    def cached_node(self, ino: int) -> Attr | None:
        """As getattr, from what this process saw a moment ago; None when it would have to ask."""
        self._check_alive()
        attr = self._cache.node(ino, self._clock.monotonic())
        return None if attr is None or self._links.shown(ino, attr) is None else attr

    @property
    def changes(self) -> int:
        """How many changes of its own this client has made and remembers: the same number, nothing changed."""
        return self._cache.epoch

    def changed_since(self, ino: int, changes: int) -> bool:
        """Whether this client changed a node after it counted so many `changes`: what was read then may be old."""
        return self._cache.changed_since(ino, changes)

    def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        self._check_alive()
        with self.engine.view() as view:
            target = view.symlink(ino)
        if target is None:
            if self._node(ino).kind != Kind.SYMLINK:
                raise Invalid(f"inode {ino} is no symbolic link")
            raise NotFound(f"the target of inode {ino}")
        self.touch_atime(ino)
        return target

    def atime_due(self, ino: int) -> bool:
        """Whether reading this inode now would move its access time; may be wrong for what this client has not seen."""
        if not self.keeps_atime:
            return False
        attr = self._cache.known_node(ino)
        strict = self.options.atime_mode == "strictatime"
        return attr is None or change.atime_due(attr, self._clock.now_ns(), strict=strict)

    def touch_atime(self, ino: int) -> None:
        """It was read: move its access time when the client was told to and it is due. Never fails the reader."""
        if not self.atime_due(ino):
            return
        try:
            attr = self._node(ino)
            strict = self.options.atime_mode == "strictatime"
            if attr.parent <= TRASH and change.atime_due(attr, self._clock.now_ns(), strict=strict):
                self._run(_ROOT, lambda work: change.touch_atime(work, ino))
        except (FsError, StoreError) as error:
            logger.debug("the access time of inode %d stays: %s", ino, error)

    def statfs(self, ino: int = ROOT) -> StatFs:
        """Totals of the volume, or what the quotas above a directory leave of them."""
        self._check_alive()
        with self.engine.view() as view:
            usage = view.usage()
        used, inodes = max(usage.space, 0), max(usage.inodes, 0)
        total = self.setting.capacity
        if not total:
            total = UNLIMITED_SPACE
            while total - used < total // 10:
                total <<= 1
        limit = self.setting.inodes or inodes + UNLIMITED_INODES
        shown = StatFs(total, max(total - used, 0), used, inodes, max(limit - inodes, 0))
        return self._quotas.narrowed(shown, ino) if self._quotas.any else shown

    def dir_stat(self, ino: int) -> DirStat | None:
        """Statistics of a directory's direct children as stored, after a flush."""
        self._stats.flush()
        return self.engine.dir_stat(ino)

    def summary(self, who: Caller, ino: int) -> Summary:
        """Count a tree by walking it; a hard link counts wherever it has an entry."""
        attr = self._node(ino, fresh=True)
        if attr.kind != Kind.DIRECTORY:
            return Summary(attr.length if attr.is_file else 0, space_of(attr.kind, attr.length), 1, 0)
        length, space, files, dirs = 0, 4096, 0, 1
        pending = [ino]
        while pending:
            for entry in self.readdir(who, pending.pop()):
                if entry.kind == Kind.DIRECTORY:
                    pending.append(entry.ino)
                    dirs += 1
                    space += 4096
                    continue
                size = entry.attr.length if entry.attr is not None and entry.kind == Kind.FILE else 0
                length += size
                space += space_of(entry.kind, size)
                files += 1
        return Summary(length, space, files, dirs)
