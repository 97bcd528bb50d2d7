"""Clones of files and trees: new nodes, shared slices (volume-format.md 2.12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, NotFound, NotPermitted
from fscore.domain.geometry import chunk_count
from fscore.domain.ids import in_trash
from fscore.domain.quota import Load
from fscore.meta.ops import clone, remove
from fscore.meta.ops.check import check_name
from fscore.meta.ops.clone import Twin
from fscore.meta.service.locks import Locks

_ROOT: Final = Caller(uid=0, gid=0)
BATCH: Final = 128
"""Entries cloned in one transaction, fewer when they have many chunks."""


class Clones(Locks):
    """Clones share every slice with their source and live on their own from then on."""

    def clone(self, who: Caller, src_ino: int, parent: int, name: bytes, *, preserve: bool = False) -> tuple[int, Attr]:
        """Clone a file, or a directory with all below it, as `name` in `parent`.

        With `preserve` owner, mode, times and flags stay; else they become those of a new node of the caller. A tree
        appears at once, when it is complete; what a crash leaves is detached, for gc to find.
        """
        check_name(parent, name)
        if in_trash(parent):
            raise NotPermitted("nothing is created in the trash")
        source = self._node(src_ino)  # its kind never changes, its length is only a hint
        twin = Twin(src_ino, self._inodes.take(), name, source.kind, source.length)
        if source.kind != Kind.DIRECTORY:
            return twin.ino, self._run(who, lambda work: clone.clone_file(work, twin, parent, preserve=preserve))
        if self._rules.quotas is not None:
            whole = self._quotas.weigh(src_ino).plus(4096, 1)
            if not preserve:
                self._quotas.check_owner(who.uid, who.gid, *whole)
            self._quotas.check_directory(parent, *whole)
        self._run(who, lambda work: clone.clone_root(work, twin, parent, preserve=preserve))
        with self._quotas.apart(twin.ino):
            try:
                below = self._clone_below(who, twin, preserve=preserve)
                return twin.ino, self._run(who, lambda work: clone.attach(work, twin.ino, parent, name, below))
            except FsError:
                self._discard(twin.ino)
                raise

    def _clone_below(self, who: Caller, top: Twin, *, preserve: bool) -> Load:
        pending, total = [top], Load()
        while pending:
            above = pending.pop()
            for batch in self._twin_batches(above.source):
                total = total.plus(*self._clone_batch(who, above.ino, batch, preserve=preserve))
                pending += [child for child in batch if child.kind == Kind.DIRECTORY]
        return total

    def _discard(self, root: int) -> None:
        """Take a detached tree away again; what is left of it when this client goes is for gc."""
        if self.empty_tree(root):
            self._run(_ROOT, lambda work: clone.discard(work, root))

    def remove_tree(self, parent: int, name: bytes, ino: int) -> bool:
        """Remove a directory with all below it, for good; nobody is asked, and what is flagged goes too.

        False when this client began to leave before it was done.
        """
        if not self.empty_tree(ino):
            return False
        self._purge(parent, name, is_dir=True)
        return True

    def empty_tree(self, ino: int) -> bool:
        """Remove all that is below a directory, as `remove_tree` does."""
        pending = [ino]
        order: list[tuple[int, bytes]] = []
        while pending:
            above = pending.pop()
            for entry in list(self._entries(above, attrs=False)):
                if self._leaving.is_set():
                    return False
                if entry.kind == Kind.DIRECTORY:
                    pending.append(entry.ino)
                    order.append((above, entry.name))
                else:
                    self._purge(above, entry.name, is_dir=False)
        for above, child in reversed(order):
            if self._leaving.is_set():
                return False
            self._purge(above, child, is_dir=True)
        return True

    def _purge(self, parent: int, name: bytes, *, is_dir: bool) -> None:
        try:
            self._run(_ROOT, lambda work: remove.purge(work, parent, name, is_dir=is_dir))
        except NotFound:
            return  # a peer was faster

    def _clone_batch(self, who: Caller, parent: int, batch: list[Twin], *, preserve: bool) -> Load:
        return self._run(who, lambda work: clone.clone_children(work, parent, batch, preserve=preserve))

    def _twin_batches(self, ino: int) -> Iterator[list[Twin]]:
        batch: list[Twin] = []
        weight = 0
        for entries in self.engine.scan_dir(ino, attrs=True):
            for entry in entries:
                if entry.attr is None:
                    continue
                batch.append(self._twin(entry, entry.attr))
                weight += 1 + (chunk_count(entry.attr.length) if entry.kind == Kind.FILE else 0)
                if weight >= BATCH:
                    yield batch
                    batch, weight = [], 0
        if batch:
            yield batch

    def _twin(self, entry: Entry, attr: Attr) -> Twin:
        return Twin(entry.ino, self._inodes.take(), entry.name, entry.kind, attr.length)
