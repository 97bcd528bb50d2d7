"""Fill this machine's cache with a version, a layout or one rank before anybody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.hub.names import Ref
from fscore.hub.pull import Part, select
from fscore.hub.registry import Registry
from fscore.hub.reports import WarmReport
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import Progress

if TYPE_CHECKING:
    from fscore.volume import Volume


def warm(
    volume: Volume,
    ref: str | Ref,
    *,
    rank: str = "",
    layout: str = "",
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> WarmReport:
    """Fetch every block that a reader of this version (or rank) will ask for and this machine lacks."""
    clock = clock or SystemClock()
    began = clock.monotonic()
    registry = Registry(volume, clock)
    part = select(registry.ledger, registry, ref, rank=rank, layout=layout)
    done = volume.files.warm([f"{part.path}/{file.path}" for file in part.files], progress)
    return _report(volume, part, clock.monotonic() - began, done.fetched, done.failed)


def coverage(
    volume: Volume, ref: str | Ref, *, rank: str = "", layout: str = "", clock: Clock | None = None
) -> WarmReport:
    """How much of a version (or rank) this machine's cache holds now; fetches nothing."""
    clock = clock or SystemClock()
    began = clock.monotonic()
    registry = Registry(volume, clock)
    part = select(registry.ledger, registry, ref, rank=rank, layout=layout)
    return _report(volume, part, clock.monotonic() - began, 0, 0)


def _report(volume: Volume, part: Part, seconds: float, fetched: int, failed: int) -> WarmReport:
    """Counts blocks, for that is what a cache holds; a block that several files share counts once.

    All blocks of a file that lies whole in the cache are there.
    """
    blocks: dict[str, int] = {}
    whole: set[str] = set()
    for file in part.files:
        path = f"{part.path}/{file.path}"
        found = {ref.key: ref.size for chunk in volume.files.info(path).chunks for ref in chunk.objects}
        blocks.update(found)
        if volume.files.is_whole(path):
            whole.update(found)
    total = sum(blocks.values())
    there = sum(size for key, size in blocks.items() if key in whole or volume.blocks.cache.contains(key))
    return WarmReport(
        ref=str(part.ref),
        version=part.manifest.version,
        rank=part.rank,
        files=len(part.files),
        bytes_total=total,
        bytes_cached=there,
        bytes_fetched=fetched,
        bytes_failed=failed,
        coverage=round(there / total, 4) if total else 1.0,
        seconds=round(seconds, 3),
    )
