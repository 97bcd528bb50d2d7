"""Warm-up of files: whole where they are kept whole, their blocks where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from fscore.blocks.store import BlockStore, Extent, WarmReport
from fscore.domain.attr import Attr
from fscore.domain.errors import NotFound
from fscore.domain.geometry import chunk_count
from fscore.meta.service import MetaService
from fscore.runtime.progress import Progress
from fscore.vfs.whole import WholeFiles

_CHUNKS_AT_ONCE = 256


def warm(
    meta: MetaService, blocks: BlockStore, wholes: WholeFiles, inos: Iterable[int], progress: Progress
) -> WarmReport:
    """Bring every byte of these files into the cache. What cannot be read is counted, what vanished is left out.

    SettingError without a cache that could keep a block.
    """
    cached = fetched = failed = 0
    others: list[tuple[int, Attr]] = []
    waiting: list[tuple[int, Attr]] = []
    for ino in inos:
        try:
            attr = meta.getattr(ino)
        except NotFound:
            continue
        (waiting if wholes.wants(attr) else others).append((ino, attr))
    task = progress.start("warm whole files", sum(attr.length for _, attr in waiting), "B") if waiting else 0
    for ino, attr in waiting:
        with suppress(NotFound):
            there = attr.length if wholes.holds(ino, attr) else blocks.cached_bytes(extents(meta, ino, attr))
            if wholes.warm(ino, attr):
                cached += min(there, attr.length)
                fetched += max(attr.length - there, 0)
            else:
                others.append((ino, attr))
        progress.advance(task, attr.length)
    if waiting:
        progress.finish(task)
    if others or not waiting:
        rest = blocks.warm((extent for ino, attr in others for extent in extents(meta, ino, attr)), progress)
        cached, fetched, failed = cached + rest.cached, fetched + rest.fetched, failed + rest.failed
    return WarmReport(cached=cached, fetched=fetched, failed=failed)


def extents(meta: MetaService, ino: int, attr: Attr) -> Iterator[Extent]:
    """What readers of a file ask the blocks for; nothing more once it vanished."""
    count = chunk_count(attr.length)
    for first in range(0, count, _CHUNKS_AT_ONCE):
        try:
            views = list(meta.read_many(ino, range(first, min(first + _CHUNKS_AT_ONCE, count))))
        except NotFound:
            return
        for _, view in views:
            for piece in view:
                if piece.id:
                    yield piece.id, piece.size, piece.off, piece.length
