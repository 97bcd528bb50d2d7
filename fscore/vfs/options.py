"""What one process asks of its open files."""

from __future__ import annotations

import msgspec

from fscore.vfs.compaction import Thresholds
from fscore.vfs.reader import ATTR_TTL
from fscore.vfs.whole import Policy


class VfsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times seconds."""

    read_only: bool = False
    read_ahead: int = 32 << 20
    read_threads: int = 8
    attr_ttl_s: float = ATTR_TTL
    flush_after_s: float = 5.0
    collect_every_s: float = 10.0
    patience_s: tuple[float, ...] = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)
    """Waits before each further try at a block that is not there."""
    background: bool = True
    """Whether idle files are flushed, chunks compacted and dead slices deleted by threads of their own."""
    compact: Thresholds = Thresholds()
    whole: Policy = "off"
    """Which files are kept whole in the local cache, when there is one that can."""
    scrub_every_s: float = 1800.0
    """One of them is read against its sums so often."""
