"""Slices in an object store: cut into blocks, coded, cached, fetched in parallel. Way in to `blocks`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from fscore.blocks.budget import Budget
from fscore.blocks.cache.api import BlockCache, NoCache
from fscore.blocks.codec import Plain, codec_for
from fscore.blocks.upload import SliceWriter
from fscore.domain.errors import CorruptError, FsError, NotFound, SettingError, StoreError
from fscore.domain.geometry import block_length, by_block
from fscore.domain.keys import block_key, slice_keys
from fscore.objects.api import ObjectStore, SupportsSync
from fscore.runtime import log
from fscore.runtime.buffer import Buffer
from fscore.runtime.frames import Frames
from fscore.runtime.metrics import Metrics
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.singleflight import SingleFlight
from fscore.runtime.threads import Pool

_RANGE_PART: Final = 4  # a read of less than a quarter of a block may be a range request
_RANGES_BEFORE_WHOLE: Final = 3
_TRAILS: Final = 512
_FRAMES: Final = 48
"""Blocks in memory that is taken again and again: about what a cache in memory holds, and what is under way."""

Extent = tuple[int, int, int, int]
"""Bytes of a slice: (slice id, size of the slice, offset in it, length)."""

logger = log.get(__name__)


class WarmReport(msgspec.Struct, frozen=True):
    """Bytes that were in the cache already, that were fetched into it, and that could not be."""

    cached: int
    fetched: int
    failed: int


class BlockStore:
    """Reads and writes slices. Every method may be called from any thread.

    A read raises NotFound when an object is gone: the caller reads the chunk's list again, for a compaction may have
    replaced the slice. CorruptError when the bytes cannot be what was written.
    """

    def __init__(
        self,
        objects: ObjectStore,
        *,
        block_size: int,
        compression: str = "none",
        hash_prefix: bool = False,
        cache: BlockCache | None = None,
        upload_threads: int = 8,
        fetch_threads: int = 8,
        buffer_bytes: int = 300 << 20,
        prefetch_blocks: int = 16,
        metrics: Metrics | None = None,
        tiers: Mapping[int, ObjectStore] | None = None,
        leaving: threading.Event | None = None,
    ) -> None:
        """`buffer_bytes` bounds what was written and is not stored, wherever it is held.

        `leaving` is set by `hurry`, for whoever tries the stores' calls again.
        """
        self.objects = objects
        self._tiers = tiers or {}
        self._leaving = leaving or threading.Event()
        self.block_size = block_size
        self.cache = cache or NoCache()
        self.metrics = metrics or Metrics()
        self._codec = codec_for(compression)
        self._hash_prefix = hash_prefix
        self._ranged = isinstance(self._codec, Plain) and objects.reads_parts
        self._keeps = self.cache.keeps(block_size)
        self._direct = self._ranged and not self._keeps
        self._uploads = Pool("upload", upload_threads)
        self._fetches = Pool("fetch", fetch_threads)
        self._ahead = Pool("prefetch", max(1, fetch_threads // 2))
        self._ahead_limit = prefetch_blocks
        self._ahead_now: set[str] = set()
        self._ahead_lock = threading.Lock()
        self._frames = Frames(block_size, _FRAMES)
        self._flights: SingleFlight[Buffer] = SingleFlight()
        self.budget: Final = Budget(buffer_bytes, block_size)
        self._trails: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._trails_lock = threading.Lock()

    def new_writer(self, slice_id: int, tier: int = 0) -> SliceWriter:
        """A writer of a slice that nobody has written yet; its blocks go to the storage class of the tier."""
        return SliceWriter(
            slice_id,
            block_size=self.block_size,
            hash_prefix=self._hash_prefix,
            store=partial(self._put, self._tiers.get(tier, self.objects)),
            remove=self._remove,
            pool=self._uploads,
            budget=self.budget,
        )

    def sync(self) -> None:
        """Return when every block that was written survives a power cut, where the store holds that back."""
        for store in (self.objects, *self._tiers.values()):
            if isinstance(store, SupportsSync):
                store.sync()

    def read(self, slice_id: int, size: int, off: int, length: int) -> bytes:
        """`length` bytes from `off` of a slice of `size` bytes; fewer at its end."""
        length = max(0, min(length, size - off))
        parts = list(by_block(off, length, self.block_size))
        if not parts:
            return b""
        if len(parts) == 1:
            index, pos, n = parts[0]
            return self._part(slice_id, size, index, pos, n)
        buffer = bytearray(length)
        self.read_into(slice_id, size, off, memoryview(buffer))
        return bytes(buffer)

    def view(self, slice_id: int, size: int, off: int, length: int) -> Buffer:
        """As read, for one who only looks at the bytes: those of one block are not copied out of it."""
        length = max(0, min(length, size - off))
        parts = list(by_block(off, length, self.block_size))
        if len(parts) != 1:
            return self.read(slice_id, size, off, length)
        index, pos, n = parts[0]
        found = self.cache.peek(self._key(slice_id, size, index), pos, n)
        return found if found is not None else self._part_view(slice_id, size, index, pos, n)

    def read_into(self, slice_id: int, size: int, off: int, buffer: memoryview) -> None:
        """Fill `buffer` from `off` of a slice. Blocks that are not cached are fetched in parallel."""
        if off + len(buffer) > size:
            raise CorruptError(f"slice {slice_id} of {size} bytes was asked for bytes up to {off + len(buffer)}")
        parts: list[tuple[int, int, memoryview]] = []
        start = 0
        for index, pos, n in by_block(off, len(buffer), self.block_size):
            parts.append((index, pos, buffer[start : start + n]))
            start += n
        if len(parts) == 1:
            self._part_into(slice_id, size, *parts[0])
            return
        waiting: list[Future[None]] = []
        inline = []
        for part in parts:
            if self.cache.contains(self._key(slice_id, size, part[0])):
                inline.append(part)
            else:
                waiting.append(self._fetches.submit(self._part_into, slice_id, size, *part))
        error: BaseException | None = None
        try:
            for part in inline:
                self._part_into(slice_id, size, *part)
        except BaseException as failed:  # noqa: BLE001  raised again below
            error = failed
        for future in waiting:
            error = future.exception() or error  # all must have left the buffer before it goes back
        if error is not None:
            raise error

    def load(self, slice_id: int, size: int, off: int, buffer: memoryview) -> None:
        """As read_into, one block after the other and by whole blocks only, which are checked as parts cannot be.

        A block that `buffer` takes whole is not kept in the cache: the caller keeps it.
        """
        start = 0
        for index, pos, n in by_block(off, len(buffer), self.block_size):
            key, whole = self._key(slice_id, size, index), block_length(size, index, self.block_size)
            target = buffer[start : start + n]
            start += n
            if self.cache.get_into(key, pos, target) or (n == whole and self._straight_into(key, target)):
                continue
            block = self._flights.do(key, partial(self._load, key, whole, keep=n < whole))
            target[:] = memoryview(block)[pos : pos + n]

    def peek(self, slice_id: int, size: int, off: int, length: int) -> Buffer | None:
        """As read, from caches that answer without waiting; None when one of the blocks would have to be waited for."""
        if off + length > size:
            return None
        parts: list[Buffer] = []
        for index, pos, n in by_block(off, length, self.block_size):
            part = self.cache.peek(self._key(slice_id, size, index), pos, n)
            if part is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def prefetch(self, slice_id: int, size: int, off: int, length: int) -> None:
        """Bring the blocks of a range into the cache in the background, as far as that is not busy already."""
        length = max(0, min(length, size - off)) if self._keeps else 0
        for index, _, _ in by_block(off, length, self.block_size):
            key = self._key(slice_id, size, index)
            if self.cache.contains(key) or self._flights.flying(key):
                continue
            with self._ahead_lock:
                if key in self._ahead_now or len(self._ahead_now) >= self._ahead_limit:
                    continue
                self._ahead_now.add(key)
            with suppress(RuntimeError):  # closed meanwhile
                self._ahead.submit(self._fetch_ahead, key, block_length(size, index, self.block_size))

    def delete(self, slice_id: int, size: int) -> None:
        """Delete every block of a slice, in parallel; absent ones are fine."""
        keys = slice_keys(slice_id, size, self.block_size, hash_prefix=self._hash_prefix)
        for _ in self._uploads.map_bounded(self._delete, keys):
            pass

    def exists(self, slice_id: int, size: int) -> list[str]:
        """Keys of the blocks of a slice that are missing in the object store."""
        keys = slice_keys(slice_id, size, self.block_size, hash_prefix=self._hash_prefix)
        return [key for key in self._fetches.map_bounded(self._missing, keys) if key]

    def cached_bytes(self, extents: Iterable[Extent]) -> int:
        """How many bytes of the blocks under these extents are in the cache; each block counts once."""
        return sum(length for key, length in self._blocks_of(extents).items() if self.cache.contains(key))

    def warm(self, extents: Iterable[Extent], progress: Progress | None = None) -> WarmReport:
        """Fill the cache with the blocks under these extents. One that cannot be read is counted, not raised.

        SettingError without a cache that could keep a block.
        """
        if not self._keeps:
            raise SettingError("there is no block cache to warm: give the volume a cache directory")
        told = progress or NoProgress()
        wanted = list(self._blocks_of(extents).items())
        cached = fetched = failed = 0
        task = told.start("warm", sum(length for _, length in wanted), "B")
        for length, outcome in self._fetches.map_bounded(self._warm_block, wanted):
            cached += length if outcome == "cached" else 0
            fetched += length if outcome == "fetched" else 0
            failed += length if outcome == "failed" else 0
            told.advance(task, length)
        self.cache.flush()
        told.finish(task)
        return WarmReport(cached=cached, fetched=fetched, failed=failed)

    def evict(self, extents: Iterable[Extent]) -> None:
        """Drop the blocks under these extents from the cache."""
        for key in self._blocks_of(extents):
            self.cache.drop(key)

    def hurry(self) -> None:
        """Whoever uses this is about to go, and has nothing to lose any more: no call is tried again from now on."""
        self._leaving.set()

    def close_stores(self) -> None:
        """Close the object stores, those of storage tiers too; the first error is raised after all were tried."""
        first: Exception | None = None
        for store in (self.objects, *self._tiers.values()):
            try:
                store.close()
            except Exception as error:  # noqa: BLE001  raised below
                first = first or error
        if first is not None:
            raise first

    def close(self) -> None:
        """Wait for what runs, join the threads, close the cache. The object stores stay open."""
        self._ahead.close()
        self._fetches.close()
        self._uploads.close()
        self.cache.close()

    def _key(self, slice_id: int, size: int, index: int) -> str:
        length = block_length(size, index, self.block_size)
        return block_key(slice_id, index, length, hash_prefix=self._hash_prefix)

    def _part(self, slice_id: int, size: int, index: int, pos: int, n: int) -> bytes:
        return bytes(self._part_view(slice_id, size, index, pos, n))

    def _part_view(self, slice_id: int, size: int, index: int, pos: int, n: int) -> Buffer:
        key = self._key(slice_id, size, index)
        found = self.cache.get(key, pos, n)
        if found is not None:
            return found
        whole = block_length(size, index, self.block_size)
        if self._direct or (self._ranged and self._range_pays(key, pos, n, whole)):
            data = self.objects.get(key, pos, n)
            if len(data) != n:
                raise self._corrupt(key, f"it ends before byte {pos + n}")
            self.metrics.add("blocks.range")
            return data
        block = self._fetch(key, whole)
        return block if n == whole else memoryview(block)[pos : pos + n]

    def _part_into(self, slice_id: int, size: int, index: int, pos: int, buffer: memoryview) -> None:
        key = self._key(slice_id, size, index)
        if self.cache.get_into(key, pos, buffer):
            return
        if self._direct:
            if self.objects.get_into(key, buffer, pos) != len(buffer):
                raise self._corrupt(key, f"it ends before byte {pos + len(buffer)}")
            self.metrics.add("blocks.direct.bytes", len(buffer))
            return
        buffer[:] = self._part_view(slice_id, size, index, pos, len(buffer))

    def _range_pays(self, key: str, pos: int, n: int, whole: int) -> bool:
        """Whether to fetch only this part: small, not the block's beginning, and not the next of a sequence."""
        if n * _RANGE_PART > whole:
            return False
        with self._trails_lock:
            end, count = self._trails.pop(key, (0, 0))
            if pos == end or count >= _RANGES_BEFORE_WHOLE:
                return False
            self._trails[key] = (pos + n, count + 1)
            if len(self._trails) > _TRAILS:
                self._trails.popitem(last=False)
        return not self._flights.flying(key)

    def _fetch(self, key: str, whole: int, *, wait: bool = False) -> Buffer:
        return self._flights.do(key, partial(self._load, key, whole, wait=wait))

    def _load(self, key: str, whole: int, *, keep: bool = True, wait: bool = False) -> Buffer:
        found = self.cache.get(key, 0, whole) if self.cache.contains(key) else None
        if found is not None:  # another flight landed since the caller looked
            return found
        with self.metrics.timed("blocks.fetch"):
            try:
                block = self._bring(key, whole)
            except CorruptError as error:
                raise self._corrupt(key, str(error)) from error
        self.metrics.add("blocks.fetch.bytes", whole)
        if keep:
            self.cache.put(key, block, wait=wait)
        return block

    def _straight_into(self, key: str, target: memoryview) -> bool:
        """Fetch a whole block to where it is wanted; False when it does not come so, or somebody is at it."""
        if not isinstance(self._codec, Plain) or self._flights.flying(key):
            return False
        with self.metrics.timed("blocks.fetch"):
            if self.objects.fill(key, target)[0] != len(target):
                return False
        self.metrics.add("blocks.fetch.bytes", len(target))
        return True

    def _bring(self, key: str, whole: int) -> Buffer:
        if whole == self.block_size and isinstance(self._codec, Plain) and self.objects.fills:
            frame = self._frames.take()
            if self.objects.fill(key, frame)[0] == whole:
                return frame.toreadonly()
        return self._codec.decode(self.objects.get(key), whole)

    def _corrupt(self, key: str, why: str) -> CorruptError:
        self.metrics.add("blocks.corrupt")
        return CorruptError(f"object {key!r} in {self.objects.location}: {why}")

    def _fetch_ahead(self, key: str, whole: int) -> None:
        try:
            self._fetch(key, whole)
        except (FsError, StoreError) as error:
            logger.debug("read-ahead of %s: %s", key, error)
        finally:
            with self._ahead_lock:
                self._ahead_now.discard(key)

    def _blocks_of(self, extents: Iterable[Extent]) -> dict[str, int]:
        """Key and length of each block that an extent touches."""
        return {
            self._key(slice_id, size, index): block_length(size, index, self.block_size)
            for slice_id, size, off, length in extents
            for index, _, _ in by_block(off, length, self.block_size)
        }

    def _warm_block(self, block: tuple[str, int]) -> tuple[int, str]:
        key, length = block
        if self.cache.contains(key):
            return length, "cached"
        try:
            self._fetch(key, length, wait=True)
        except (FsError, StoreError) as error:
            logger.warning("warm-up of %s: %s", key, error)
            return length, "failed"
        return length, "fetched"

    def _put(self, objects: ObjectStore, key: str, block: Buffer) -> None:
        with self.metrics.timed("blocks.put"):
            objects.put(key, self._codec.encode(block))
        self.metrics.add("blocks.put.bytes", len(block))

    def _delete(self, key: str) -> None:
        self.cache.drop(key)
        self.objects.delete(key)

    def _remove(self, key: str) -> None:
        try:
            self._delete(key)
        except (FsError, StoreError) as error:
            logger.warning("block %s of an abandoned slice stays until gc: %s", key, error)

    def _missing(self, key: str) -> str:
        try:
            self.objects.head(key)
        except NotFound:
            return key
        return ""
