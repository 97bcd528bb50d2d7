"""Clones of files and trees: new nodes, shared slices (volume-format.md 2.12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fscore.domain.attr import Attr, Entry, Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import NotPermitted
from fscore.domain.geometry import chunk_count
from fscore.domain.ids import in_trash
from fscore.meta.ops import clone
from fscore.meta.ops.check import check_name
from fscore.meta.ops.clone import Twin
from fscore.meta.service.data import Data

BATCH: Final = 128
"""Entries cloned in one transaction, fewer when they have many chunks."""


class Clones(Data):
    """Clones share every slice with their source and live on their own from then on."""

    def clone(self, who: Caller, src_ino: int, parent: int, name: bytes, *, preserve: bool = False) -> tuple[int, Attr]:
        """Clone a file, or a directory with all below it, as `name` in `parent`.

        With `preserve` owner, mode, times and flags stay; else they become those of a new node of the caller. A tree
        appears at once, when it is complete; a failure leaves a detached tree for gc.
        """
        check_name(parent, name)
        if in_trash(parent):
            raise NotPermitted("nothing is created in the trash")
        source = self._node(src_ino, fresh=True)
        twin = Twin(src_ino, self._inodes.take(), name, source.kind, source.length)
        if source.kind != Kind.DIRECTORY:
            return twin.ino, self._run(who, lambda work: clone.clone_file(work, twin, parent, preserve=preserve))
        self._run(who, lambda work: clone.clone_root(work, twin, parent, preserve=preserve))
        pending = [twin]
        while pending:
            above = pending.pop()
            for batch in self._batches(above.source):
                self._clone_batch(who, above.ino, batch, preserve=preserve)
                pending += [child for child in batch if child.kind == Kind.DIRECTORY]
        attr = self._run(who, lambda work: clone.attach(work, twin.ino, parent, name))
        return twin.ino, attr

    def _clone_batch(self, who: Caller, parent: int, batch: list[Twin], *, preserve: bool) -> None:
        self._run(who, lambda work: clone.clone_children(work, parent, batch, preserve=preserve))

    def _batches(self, ino: int) -> Iterator[list[Twin]]:
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
