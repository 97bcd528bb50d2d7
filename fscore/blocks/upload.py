"""One slice being written: cut into blocks from its own start, uploaded in the background while it grows.

Blocks first, slice after: `finish` returns when every block is durable, and only then may a record refer to the slice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from fscore.blocks.budget import Budget
from fscore.domain.errors import FsError, Invalid, StoreError
from fscore.domain.geometry import CHUNK
from fscore.domain.keys import block_key, slice_keys
from fscore.runtime.buffer import Buffer, as_view
from fscore.runtime.threads import Pool


class SliceWriter:
    """Appends bytes to one new slice. For one thread at a time; `abort` and `finish` end it."""

    def __init__(
        self,
        slice_id: int,
        *,
        block_size: int,
        hash_prefix: bool,
        store: Callable[[str, Buffer], None],
        remove: Callable[[str], None],
        pool: Pool,
        budget: Budget,
    ) -> None:
        self.slice_id = slice_id
        self.size = 0
        self._block_size = block_size
        self._hash_prefix = hash_prefix
        self._store = store
        self._remove = remove
        self._pool = pool
        self._budget = budget
        self._buffer: bytearray | None = None
        self._view: memoryview | None = None
        self._filled = 0
        self._index = 0
        self._uploads: list[Future[None]] = []
        self._error: BaseException | None = None
        self._ended = False
        self._here = False

    def write(self, data: Buffer, *, owned: bool = False) -> None:
        """Append `data`; whole blocks go up meanwhile. Raises what an upload raised so far.

        With `owned` the caller will never change `data` again, so that whole blocks of it go up without a copy.
        """
        if self._ended:
            raise Invalid(f"slice {self.slice_id} is finished")
        self._raise_failed()
        view = as_view(data)
        if self.size + len(view) > CHUNK:
            raise Invalid(f"slice {self.slice_id} would outgrow a chunk of {CHUNK} bytes")
        frozen = owned or isinstance(data, bytes)
        pos = 0
        while pos < len(view):
            if frozen and not self._filled and len(view) - pos >= self._block_size:
                part = view[pos : pos + self._block_size]
                self._send(part, None)  # which lets go of `part` as soon as it is stored
                pos += self._block_size
                self.size += self._block_size
                continue
            pos += self._fill(view[pos:])

    @property
    def held_from(self) -> int:
        """Where the bytes begin that have not gone up yet: from there to the end `patch` may change them."""
        return self._index * self._block_size

    def patch(self, off: int, data: Buffer) -> None:
        """Put other bytes in the place of some that were written and are still held."""
        view = as_view(data)
        at = off - self.held_from
        if self._ended or at < 0 or at + len(view) > self._filled:
            raise Invalid(f"slice {self.slice_id} holds no {len(view)} bytes at {off} any more")
        assert self._view is not None  # something is filled
        self._view[at : at + len(view)] = view

    def seal(self, last: Buffer = b"", *, here: bool = False) -> None:
        """Nothing follows: the last block goes up, too, without waiting for it. Then `finish` or `abort`.

        `last` is the last block's bytes, which the caller never changes again; without a copy, if nothing is held.
        `here`: a caller that has nothing else to do until the end stores it on its own thread, which is quicker.
        """
        if self._ended:
            return
        self._here = here
        if self._filled or len(last) > self._block_size:
            self.write(last, owned=True)
            last = b""
        self._ended = True
        if self._filled:
            self._flush()
        elif last:
            view = as_view(last)
            self.size += len(view)
            self._send(view, None)

    def finish(self) -> int:
        """Wait until every block is durable; the slice's size. Raises the first upload's error."""
        self.seal()
        for upload in self._uploads:
            self._await(upload)
        self._raise_failed()
        return self.size

    def abort(self) -> None:
        """End it and delete the blocks that went up; what cannot be deleted is left for gc."""
        self._ended = True
        for upload in self._uploads:
            upload.cancel()
        for upload in self._uploads:
            self._await(upload)
        if self._buffer is not None:
            self._drop_buffer()
        sent = self._index * self._block_size
        for key in slice_keys(self.slice_id, min(self.size, sent), self._block_size, hash_prefix=self._hash_prefix):
            self._remove(key)

    def _fill(self, view: memoryview) -> int:
        if self._view is None:
            self._buffer = self._budget.borrow()
            self._view = memoryview(self._buffer)
        n = min(self._block_size - self._filled, len(view))
        self._view[self._filled : self._filled + n] = view[:n]  # a bytearray would take a copy of the view first
        self._filled += n
        self.size += n
        if self._filled == self._block_size:
            self._flush()
        return n

    def _flush(self) -> None:
        buffer, view, filled = self._buffer, self._view, self._filled
        assert view is not None  # only called when something was filled
        self._buffer, self._view, self._filled = None, None, 0
        self._send(view if filled == len(view) else view[:filled], buffer)

    def _send(self, block: memoryview, buffer: bytearray | None) -> None:
        key = block_key(self.slice_id, self._index, len(block), hash_prefix=self._hash_prefix)
        if self._here:
            self._store_here(key, block, buffer)
            return
        taken = len(block)
        self._budget.take(taken)
        try:
            upload = self._pool.submit(self._store, key, block)
        except BaseException:
            self._budget.give(taken)
            raise
        self._index += 1

        def done(upload: Future[None]) -> None:
            self._await(upload)
            with suppress(BufferError):  # a driver may look at it a moment longer
                block.release()
            if buffer is not None:
                self._budget.hand_back(buffer)
            self._budget.give(taken)

        self._uploads.append(upload)
        upload.add_done_callback(done)

    def _store_here(self, key: str, block: memoryview, buffer: bytearray | None) -> None:
        self._index += 1
        try:
            self._store(key, block)
        except (FsError, StoreError) as error:
            self._error = self._error or error
        finally:
            if buffer is not None:
                self._budget.hand_back(buffer)

    def _drop_buffer(self) -> None:
        assert self._buffer is not None
        self._budget.hand_back(self._buffer)
        self._buffer = self._view = None

    def _await(self, upload: Future[None]) -> None:
        if upload.cancelled():
            return
        error = upload.exception()
        if error is not None and self._error is None:
            self._error = error

    def _raise_failed(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # else it grows by a frame each time
