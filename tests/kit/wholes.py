"""Whole files over one slice of random bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from fscore.blocks.cache.eviction import Shelf
from fscore.blocks.cache.whole.assembly import Assembly
from fscore.blocks.cache.whole.cache import WholeCache
from fscore.blocks.cache.whole.file import WholeFile
from fscore.blocks.cache.whole.layout import Layout, Part
from fscore.blocks.cache.whole.record import CELL
from fscore.runtime.clock import SystemClock
from fscore.runtime.metrics import Metrics

SLICE = random.Random(5).randbytes(2 * CELL + 4321)
LAYOUT = Layout(len(SLICE), [Part(0, 1, len(SLICE), 0, len(SLICE))])


def load(slice_id: int, size: int, off: int, buffer: memoryview) -> None:
    """The blocks of slice 1."""
    assert (slice_id, size) == (1, len(SLICE))
    buffer[:] = SLICE[off : off + len(buffer)]


def whole_cache(home: Path, *, limit: int = 1 << 30, free_ratio: float = 0.0, **options: Any) -> WholeCache:
    """A cache of whole files with a shelf of its own."""
    metrics = options.setdefault("metrics", Metrics())
    shelf = Shelf(str(home), limit=limit, free_ratio=free_ratio, clock=SystemClock(), metrics=metrics)
    return WholeCache(str(home), shelf, **options)


def opened(cache: WholeCache, seconds: float = 10) -> WholeFile | None:
    """The whole file, as soon as what runs in the background has given it its name."""
    deadline = time.monotonic() + seconds
    while True:
        found = cache.open(LAYOUT)
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def assembled(cache: WholeCache) -> WholeFile:
    """The whole file, filled now."""
    assembly = cache.assemble(LAYOUT, load)
    assert assembly is not None
    assembly.fill_all()
    found = opened(cache)
    assert found is not None
    return found


def content(file: WholeFile | Assembly) -> bytes:
    """All its bytes."""
    return file.read(0, len(SLICE))
