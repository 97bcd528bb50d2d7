"""Which files are kept whole in the local cache, and when they are filled: where inodes meet `blocks.cache.whole`.

Rule 1  a whole file belongs to a list of slices: a reader uses it as long as it would use its views of the chunks.
Rule 2  a file is filled when somebody reads it in sequence, ahead of him and behind him; or by warm-up.
Rule 3  what the local file cannot give (a full disk, a block that is gone) the block path gives.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Literal, NamedTuple

from fscore.blocks.cache.whole.assembly import Assembly
from fscore.blocks.cache.whole.cache import WholeCache
from fscore.blocks.cache.whole.file import WholeFile
from fscore.blocks.cache.whole.layout import Layout, layout_of
from fscore.blocks.store import BlockStore
from fscore.domain.attr import Attr
from fscore.domain.errors import FsError, StoreError
from fscore.domain.geometry import chunk_count
from fscore.meta.service import MetaService
from fscore.runtime import log
from fscore.runtime.threads import Pool
from fscore.vfs.handles import Handle, OpenFile

Policy = Literal["off", "immutable", "all"]

SMALLEST: Final = 1 << 20
"""Shorter files are not worth two syncs of the disk."""

_TRIGGER: Final = 32 << 20
_TRIGGER_PART: Final = 8
_LAYOUTS: Final = 1024
_CHUNKS_AT_ONCE: Final = 256

logger = log.get(__name__)


class Stamp(NamedTuple):
    """What is another one when a file's bytes are."""

    mtime_ns: int
    ctime_ns: int
    length: int


class WholeFiles:
    """The whole files of one volume in this process. Thread-safe."""

    def __init__(
        self, meta: MetaService, blocks: BlockStore, cache: WholeCache | None, policy: Policy, pool: Pool
    ) -> None:
        self._meta = meta
        self._blocks = blocks
        self._cache = cache
        self._policy: Policy = policy if cache is not None else "off"
        self._pool = pool
        self._layouts: OrderedDict[int, tuple[Stamp, Layout]] = OrderedDict()
        self._lock = threading.Lock()

    def wants(self, attr: Attr) -> bool:
        """Whether this file is kept whole."""
        if self._policy == "off" or attr.length < SMALLEST:
            return False
        return self._policy == "all" or attr.immutable

    def open(self, file: OpenFile) -> WholeFile | None:
        """The file's bytes as they are now, if they lie here whole."""
        attr = file.reader.attr
        if self._cache is None or file.writer is not None or not self.wants(attr):
            return None
        local = file.reader.local
        return local if isinstance(local, WholeFile) else self._open(file.ino, attr)

    def opened(self, file: OpenFile) -> None:
        """A file was opened for reading: read it from the disk if it lies there."""
        attr = file.reader.attr
        if not self.wants(attr) or file.writer is not None or file.reader.local is not None:
            return
        local = self._open(file.ino, attr)
        if local is not None:
            file.reader.use(local, attr)

    def was_read(self, handle: Handle) -> None:
        """A file was read: when that was in sequence for a while, begin to fill it in the background."""
        file = handle.file
        if self._policy == "off":
            return
        file.run = max(file.run, handle.ahead.run)
        if file.tried_whole:
            return
        attr = file.reader.attr
        if handle.ahead.run < min(attr.length // _TRIGGER_PART, _TRIGGER) or not self.wants(attr):
            return
        file.tried_whole = True
        if file.writer is None and file.reader.local is None:
            self._pool.submit(self._begin, file)

    def closed(self, file: OpenFile) -> None:
        """The last handle of a file is gone."""
        with self._lock:
            filling, file.filling = file.filling, None
        if self._cache is not None and filling is not None:
            self._cache.leave(filling, file.run if file.reader.local is filling else 0)

    def parted(self, file: OpenFile) -> None:
        """An open file has other bytes, or slices, by now: what was filled for it is nothing to it any more."""
        with self._lock:
            filling, file.filling = file.filling, None
        if self._cache is not None and filling is not None:
            self._cache.leave(filling, 0, useless=True)

    def warm(self, ino: int, attr: Attr) -> bool:
        """Bring a file whole into the cache; whether it lies there now."""
        if self._cache is None or not self.wants(attr):
            return False
        local = self._join(ino, attr)
        if isinstance(local, Assembly):
            try:
                local.fill_all()
            except (FsError, StoreError) as error:
                logger.warning("warm-up of inode %d: %s", ino, error)
                return False
            finally:
                self._cache.leave(local, 0)
            self._cache.flush()
            return not local.failed
        return local is not None

    def holds(self, ino: int, attr: Attr) -> bool:
        """Whether a file lies here whole."""
        return self.wants(attr) and self._open(ino, attr) is not None

    def scrub_next(self) -> None:
        """Read one whole file against its sums, the next in turn."""
        if self._cache is not None:
            self._cache.scrub_next()

    def close(self) -> None:
        """Give up what is not whole, join the threads."""
        if self._cache is not None:
            self._cache.close()

    def _open(self, ino: int, attr: Attr) -> WholeFile | None:
        if self._cache is None or not self._cache.might_hold(attr.length):
            return None
        return self._cache.open(self._layout(ino, attr))

    def _join(self, ino: int, attr: Attr) -> Assembly | WholeFile | None:
        """Start to fill a file, or join who does; the whole one when it lies here already; None when it cannot be."""
        if self._cache is None:
            return None
        try:
            layout = self._layout(ino, attr)
        except (FsError, StoreError) as error:
            logger.debug("inode %d is not kept whole: %s", ino, error)
            return None
        return self._cache.assemble(layout, self._blocks.load) or self._cache.open(layout)

    def _begin(self, file: OpenFile) -> None:
        attr = file.reader.attr
        local = self._join(file.ino, attr)
        if local is None:
            return
        if isinstance(local, Assembly):
            file.filling = local
        if file.reader.use(local, attr) and file.handles:
            local.prefetch(0, file.run)
        else:
            self.closed(file)

    def _layout(self, ino: int, attr: Attr) -> Layout:
        stamp = Stamp(attr.mtime_ns, attr.ctime_ns, attr.length)
        with self._lock:
            known = self._layouts.get(ino)
            if known is not None and known[0] == stamp:
                self._layouts.move_to_end(ino)
                return known[1]
        count = chunk_count(attr.length)
        layout = layout_of(
            attr.length,
            (
                (index, view)
                for first in range(0, count, _CHUNKS_AT_ONCE)
                for index, view in self._meta.read_many(ino, range(first, min(first + _CHUNKS_AT_ONCE, count)))
            ),
        )
        with self._lock:
            self._layouts[ino] = (stamp, layout)
            if len(self._layouts) > _LAYOUTS:
                self._layouts.popitem(last=False)
        return layout
