"""What a client's open files do behind everybody's back, and how that ends: flush, sync, scrub, compact, delete.

Rule 1  a client that goes waits for what is written, never for deletions: those are told first and joined last.
Rule 2  from `end` on the store is asked once and not again: what is left is any other client's to do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from fscore.blocks.store import BlockStore
from fscore.domain.errors import FsError, StoreError
from fscore.meta.service import MetaService
from fscore.runtime.clock import Clock
from fscore.runtime.threads import Pool, Ticker
from fscore.vfs.collector import Collector
from fscore.vfs.compaction import Compactor
from fscore.vfs.options import VfsOptions

SYNC_S: Final = 5.0
"""How often blocks that a `file` store holds back are made durable: as often as ext4 commits by itself."""

FINISH_S: Final = 10.0
"""How long a client that goes spends on deleting the objects of files that it removed."""


class Background:
    """The compactor, the collector and the clocks of one process. `start` once, then `leave` and `end`."""

    def __init__(
        self,
        meta: MetaService,
        blocks: BlockStore,
        pool: Pool,
        clock: Clock,
        options: VfsOptions,
        recut: Callable[[int], None],
    ) -> None:
        self._blocks = blocks
        self._options = options
        self._writes = options.background and not options.read_only
        self.collector: Final = Collector(meta, blocks, pool, clock)
        self.compactor: Final = Compactor(meta, blocks, clock, options.compact, recut, background=self._writes)
        self._tickers: list[Ticker] = []
        self._collecting: list[Ticker] = []

    def start(self, flush_idle: Callable[[float], None], scrub: Callable[[], None] | None) -> None:
        """Begin, where the options want it; without `scrub` there are no whole files."""
        options = self._options
        if options.background and scrub is not None:
            self._tickers.append(Ticker("scrub", options.scrub_every_s, scrub))
        if self._writes:
            self._tickers.append(Ticker("flush", 1.0, lambda: flush_idle(options.flush_after_s)))
            self._tickers.append(Ticker("sync", SYNC_S, self._blocks.sync))
            self._collecting.append(Ticker("collect", options.collect_every_s, self.collector.collect))

    def leave(self) -> None:
        """This client goes: what is under way ends soon, and what it does with open files has ended."""
        self.collector.stop()
        for ticker in self._tickers:
            ticker.stop()

    def end(self) -> None:
        """What was written is safe: join every thread, and delete what was removed as far as that goes at once."""
        self._blocks.hurry()
        self.compactor.close()
        for ticker in self._collecting:
            ticker.stop()
        if not self._options.read_only:
            with suppress(FsError, StoreError):
                self.collector.finish(FINISH_S)
