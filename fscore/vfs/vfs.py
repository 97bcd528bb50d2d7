"""The filesystem by inodes and handles: what mounts, gateways and `files` stand on."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from fscore.blocks.cache.whole.cache import WholeCache
from fscore.blocks.cache.whole.file import WholeFile
from fscore.blocks.store import BlockStore, WarmReport
from fscore.domain.attr import Attr
from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle, Exists, FsError, Invalid, IsADir, NotFound, ReadOnly, StoreError
from fscore.domain.geometry import CHUNK
from fscore.meta.service import MetaService
from fscore.runtime.buffer import Buffer
from fscore.runtime.clock import Clock
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool
from fscore.vfs import space
from fscore.vfs.background import Background
from fscore.vfs.collector import Collected
from fscore.vfs.compose import Composed, Composer, InodePiece, SharedPiece
from fscore.vfs.handles import ACCESS, Handle, Handles, OpenFile
from fscore.vfs.options import VfsOptions
from fscore.vfs.readahead import ReadAhead
from fscore.vfs.reader import FileReader
from fscore.vfs.warm import warm
from fscore.vfs.whole import WholeFiles
from fscore.vfs.writer import FileWriter

T = TypeVar("T")


class Vfs:
    """Open files of one volume in this process. Thread-safe."""

    def __init__(
        self,
        meta: MetaService,
        blocks: BlockStore,
        clock: Clock,
        options: VfsOptions,
        whole: WholeCache | None = None,
    ) -> None:
        self.meta: Final = meta
        self.blocks: Final = blocks
        self._clock = clock
        self._options = options
        self._handles = Handles()
        self._pool = Pool("vfs", options.read_threads)
        self.wholes: Final = WholeFiles(meta, blocks, whole, options.whole, self._pool)
        self._behind = Background(meta, blocks, self._pool, clock, options, self._recut)
        self._compactor: Final = self._behind.compactor
        self._behind.start(self.flush_idle, None if whole is None else self.wholes.scrub_next)

    def open(self, who: Caller, ino: int, flags: int) -> int:
        """Open an inode with the flags of open(2); O_TRUNC, O_APPEND and the access mode are heeded."""
        write = flags & ACCESS != os.O_RDONLY
        if write and self._options.read_only:
            raise ReadOnly("this client opened the volume for reading only")
        since = self.meta.changes
        attr = self.meta.open_file(who, ino, write=write, append=bool(flags & os.O_APPEND))
        try:
            _check_holds_bytes(attr)
            if write and flags & os.O_TRUNC and self._length(ino, attr):
                attr = self.truncate(who, ino, 0, checked=True)
            handle = self._add(who, ino, attr, flags, since)
        except BaseException:
            self.meta.close_file(ino)
            raise
        self.meta.touch_atime(ino)
        return handle.fh

    def create(self, who: Caller, parent: int, name: bytes, mode: int, flags: int) -> tuple[int, Attr, int]:
        """Create a file and open it; its mode does not limit this handle. One that exists is opened, without O_EXCL."""
        if self._options.read_only:
            raise ReadOnly("this client opened the volume for reading only")
        try:
            ino, attr = self.meta.create(who, parent, name, mode)
        except Exists:
            if flags & os.O_EXCL:
                raise
            ino, _ = self.meta.lookup(who, parent, name)
            fh = self.open(who, ino, flags)
            return ino, self.getattr(ino), fh
        since = self.meta.changes
        self.meta.hold_file(ino)
        return ino, attr, self._add(who, ino, attr, flags, since).fh

    def read(self, fh: int, offset: int, size: int) -> bytes:
        """Bytes of a range; fewer at the end of the file."""
        return bytes(self.view(fh, offset, size))

    def view(self, fh: int, offset: int, size: int) -> Buffer:
        """As read, for one who only looks at the bytes: they are seldom copied."""
        handle = self._readable(fh, offset, size)
        file = handle.file
        if file.uncommitted(offset, size):
            buffer = bytearray(max(min(size, file.length() - offset), 0))
            count = file.read_into(offset, memoryview(buffer))
            return memoryview(buffer)[:count]
        data = file.reader.view(offset, size)
        self._look_ahead(handle, offset, len(data))
        self.meta.touch_atime(handle.file.ino)
        return data

    def peek(self, fh: int, offset: int, size: int) -> Buffer | None:
        """As read, from what is in memory and fresh, often without a copy; None, at once, when read() would wait."""
        handle = self._handles.get(fh)
        writer = handle.file.writer
        if not handle.readable or offset < 0 or size < 0 or (writer is not None and writer.dirty):
            return None
        if self.meta.keeps_atime and self.meta.atime_due(handle.file.ino):
            return None
        data = handle.file.reader.peek(offset, size)
        if data:
            ahead = handle.ahead.plan(offset, len(data))
            if ahead is not None:
                self._pool.submit(handle.file.reader.prefetch, *ahead)
            self.wholes.was_read(handle)
        return data

    def whole(self, ino: int) -> WholeFile | None:
        """The bytes of an open file as it is now, whole in a local file, if they lie there. Looks on the disk."""
        file = self._handles.file(ino)
        return None if file is None else self.wholes.open(file)

    def read_into(self, fh: int, offset: int, buffer: memoryview) -> int:
        """Fill a buffer from `offset`; returns the bytes read, fewer at the end of the file."""
        handle = self._readable(fh, offset, len(buffer))
        if handle.file.uncommitted(offset, len(buffer)):
            return handle.file.read_into(offset, buffer)
        count = handle.file.reader.read_into(offset, buffer)
        self._look_ahead(handle, offset, count)
        return count

    def write(self, fh: int, offset: int, data: Buffer) -> int:
        """Take bytes at `offset`, or at the end through an append handle. Durable after flush."""
        handle = self._writable(fh)
        if offset < 0:
            raise Invalid(f"offset {offset}")
        writer = self._writer(handle.file)
        if not handle.append:
            return writer.write(offset, data)
        with writer.lock:
            return writer.write(handle.file.length(), data)

    def append_at(self, fh: int) -> int:
        """Where the next write of an append handle begins."""
        return self._handles.get(fh).file.length()

    def length(self, fh: int) -> int:
        """The length of an open file, with what is not committed yet."""
        return self._handles.get(fh).file.length()

    @property
    def opened(self) -> Collection[int]:
        """The inodes that are open here, as they come and go."""
        return self._handles.inodes

    def attr_of(self, fh: int) -> Attr:
        """The attributes of an open file as this process saw them last."""
        return self._handles.get(fh).file.reader.attr

    def refresh(self, ino: int) -> tuple[Attr, bool]:
        """Attributes as they are now, and whether an open file is another one than this process believed."""
        file, since = self._handles.file(ino), self.meta.changes
        old = None if file is None else file.reader.attr
        attr = self.meta.getattr(ino, fresh=True)
        if file is None or old is None:
            return attr, False
        if not file.reader.update(attr, since):
            attr = file.reader.look_again()
        return attr, (old.mtime_ns, old.length) != (attr.mtime_ns, attr.length)

    def flush(self, fh: int) -> None:
        """Make everything written to the handle's file durable and visible."""
        writer = self._handles.get(fh).file.writer
        if writer is not None:
            writer.flush()

    def fsync(self, fh: int) -> None:
        """As flush, and what the metadata engine holds back is on its disk, too."""
        self.flush(fh)
        self.blocks.sync()
        self.meta.flush()

    def release(self, fh: int) -> None:
        """Close a handle. It is gone in any case; raises what writing the file raised."""
        handle = self._handles.get(fh)
        writer = handle.file.writer if handle.writable else None
        try:
            if writer is not None:
                writer.flush()
        finally:
            handle, unused, last = self._handles.remove(fh)
            if last:
                self.wholes.closed(handle.file)
            if unused is not None:  # and with it the error that it keeps
                unused.discard()
            self.meta.close_file(handle.file.ino)

    def getattr(self, ino: int) -> Attr:
        """Attributes, with the length that this process's uncommitted writes give the file."""
        since = self.meta.changes
        return self.overlaid(ino, self.meta.getattr(ino), since)

    def overlaid(self, ino: int, attr: Attr, since: int) -> Attr:
        """`attr` as programs see it: with what this process has not committed yet, without links in the trash.

        It was read when `meta.changes` was `since`. What this process committed after that counts: a length that is
        older than a finished write would have the kernel cut the file off.
        """
        while True:
            file = self._handles.file(ino)
            writer = None if file is None else file.writer
            waiting = None if writer is None else writer.waiting
            if not self.meta.changed_since(ino, since):
                break  # nothing that was waiting before `waiting` was taken is missing in both
            since = self.meta.changes
            try:
                attr = self.meta.getattr(ino)
            except NotFound:
                break  # gone by now; it was there when it was read
        attr = self.meta.shown(ino, attr)
        if waiting is None:
            return attr
        length, wrote_ns = waiting
        length, ctime_ns = max(attr.length, length), max(attr.ctime_ns, wrote_ns)
        return msgspec.structs.replace(attr, length=length, mtime_ns=wrote_ns, ctime_ns=ctime_ns)

    def truncate(self, who: Caller, ino: int, length: int, *, checked: bool = False) -> Attr:
        """Set a file's length; what was written before is committed first. `checked`: a handle carries permission."""
        return self._change(ino, lambda: self.meta.truncate(who, ino, length, checked=checked))

    def truncate_open(self, fh: int, length: int) -> Attr:
        """As truncate, by a handle that may write; the mode of the file does not matter any more."""
        handle = self._writable(fh)
        return self.truncate(handle.who, handle.file.ino, length, checked=True)

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> Attr:
        """fallocate(2) through a handle that may write: 0 extends, 1 keeps the size, 3 punches, 16 and 17 zero."""
        handle = self._writable(fh)
        ino = handle.file.ino
        return self._change(ino, lambda: self.meta.fallocate(handle.who, ino, mode, offset, length, checked=True))

    def seek(self, fh: int, offset: int, whence: int) -> int:
        """Where data (3) or a hole (4) begins at or after `offset`, what this process wrote counted. PastEnd: none."""
        file = self._handles.get(fh).file
        self.settle(file.ino)
        return space.seek(self.meta, file.ino, file.length(), offset, whence)

    def copy_file_range(self, fh_in: int, off_in: int, fh_out: int, off_out: int, length: int) -> int:
        """Share a range of one open file with another, holes too; returns the bytes, clipped to the source's end."""
        source, target = self._handles.get(fh_in), self._writable(fh_out)
        if not source.readable or target.append:
            raise BadHandle("a copy goes from a handle that reads to one that writes and does not append")
        self.settle(source.file.ino)
        ino = target.file.ino
        return self._change(
            ino,
            lambda: self.meta.copy_file_range(target.who, source.file.ino, off_in, ino, off_out, length, checked=True),
        )

    def compose(self, who: Caller, ino: int, pieces: Sequence[InodePiece]) -> Composed:
        """Fill a new, empty file with ranges of others, new bytes and zeros."""
        for source in {piece.ino for piece in pieces if isinstance(piece, SharedPiece)}:
            self.settle(source)
        self._compactor.spare(ino)
        try:
            return Composer(self.meta, self.blocks, who, ino).run(pieces)
        finally:
            file = self._handles.file(ino)
            if file is not None:
                file.reader.invalidate()

    def compact(self, ino: int, index: int) -> int:
        """Compact one chunk now, as far as that goes; returns the bytes written. Immutable files are left alone."""
        self.settle(ino)
        return self._compactor.compact(ino, index)

    def drain(self) -> None:
        """Wait until no compaction is under way: whoever looks at all objects sees none that has no record yet."""
        self._compactor.drain()

    def warm(self, inos: Iterable[int], progress: Progress | None = None) -> WarmReport:
        """Bring every byte of these files into the cache; what cannot be read is counted, not raised."""
        return warm(self.meta, self.blocks, self.wholes, inos, progress or NoProgress())

    def settle(self, ino: int) -> None:
        """Commit what this process has written to an inode, if it has it open."""
        file = self._handles.file(ino)
        writer = None if file is None else file.writer
        if writer is not None:
            writer.flush()

    def changed(self, ino: int) -> None:
        """This process changed an inode's data past the writer: forget what its readers know."""
        file = self._handles.file(ino)
        if file is not None:
            file.reader.invalidate()

    def sync(self) -> None:
        """Commit everything written; the first error is raised after all files were tried."""
        self._each_writer(lambda writer: writer.flush())
        self.blocks.sync()
        self.meta.flush()

    @property
    def buffered(self) -> int:
        """Bytes that open files hold in memory and have not handed to an upload."""
        return self.blocks.budget.held

    @property
    def open_handles(self) -> int:
        """How many handles are open."""
        return len(self._handles.numbers())

    def flush_idle(self, seconds: float) -> None:
        """Commit files that were not written for so long; their errors wait for whoever uses them next."""
        before = self._clock.monotonic() - seconds
        for file in self._handles.files():
            writer = file.writer
            if writer is not None:
                writer.flush_idle(before)

    def collect(self) -> Collected:
        """One round of the deletion pipeline, now."""
        return self._behind.collector.collect()

    def collect_all(self) -> Collected:
        """As collect, and what the whole volume's hourly jobs would do, too."""
        return self._behind.collector.collect_all()

    def close(self) -> None:
        """Commit, close every handle, delete what was removed, join the threads. Raises the first error at the end."""
        self._behind.leave()
        first: Exception | None = None
        steps: list[Callable[[], None]] = [partial(self.release, fh) for fh in self._handles.numbers()]
        for step in (*steps, self.blocks.sync):
            try:
                step()
            except Exception as error:  # noqa: BLE001  everything else ends all the same; raised below
                first = first or error
        self._behind.end()
        self._pool.close()
        self.wholes.close()
        if first is not None:
            raise first

    def _add(self, who: Caller, ino: int, attr: Attr, flags: int, since: int) -> Handle:
        options = self._options

        def make() -> OpenFile:
            reader = FileReader(
                ino, attr, self.meta, self.blocks, self._pool, self._clock, options.patience_s, options.attr_ttl_s
            )
            reader.watch(self._compactor.seen)
            file = OpenFile(ino, reader)
            reader.watch_local(partial(self.wholes.parted, file))
            return file

        handle = self._handles.add(who, ino, make, flags, ReadAhead(options.read_ahead))
        if not handle.file.reader.update(attr, since):
            handle.file.reader.look_again()
        if not handle.writable:
            self.wholes.opened(handle.file)
        return handle

    def _writable(self, fh: int) -> Handle:
        handle = self._handles.get(fh)
        if not handle.writable:
            raise BadHandle("the file is open for reading only")
        return handle

    def _change(self, ino: int, change: Callable[[], T]) -> T:
        """Change a file's records past the writer: what was written before is committed first, readers look again.

        No write of this process comes in between.
        """
        file = self._handles.file(ino)
        if file is None:
            return change()
        try:
            writer = file.writer
            if writer is None:
                result = change()
            else:
                with writer.lock:
                    writer.flush()
                    result = change()
        except BaseException:
            file.reader.invalidate()
            raise
        if isinstance(result, Attr):
            file.reader.committed(result)
        else:
            file.reader.invalidate()
        return result

    def _readable(self, fh: int, offset: int, size: int) -> Handle:
        handle = self._handles.get(fh)
        if not handle.readable:
            raise BadHandle("the file is open for writing only")
        if offset < 0 or size < 0:
            raise Invalid(f"offset {offset}, size {size}")
        return handle

    def _look_ahead(self, handle: Handle, offset: int, count: int) -> None:
        ahead = handle.ahead.plan(offset, count)
        if ahead is not None and count:
            reader = handle.file.reader
            if reader.knows(*ahead):
                reader.prefetch(*ahead)
            else:  # the tree has to be asked: nobody waits for what he may want later
                self._pool.submit(reader.prefetch, *ahead)
        self.wholes.was_read(handle)

    def _writer(self, file: OpenFile) -> FileWriter:
        writer = file.writer
        if writer is not None:
            return writer
        with self._handles.lock:
            writer = file.writer
            if writer is None:
                writer = file.writer = FileWriter(
                    file.ino,
                    self.meta,
                    self.blocks,
                    self._clock,
                    partial(self._committing, file),
                    partial(self._committed, file),
                )
            return writer

    def _committing(self, file: OpenFile, index: int, count: int) -> None:
        if file.reader.attr.length > index * CHUNK:
            self._compactor.make_room(file.ino, index, count)

    def _committed(self, file: OpenFile, attr: Attr, index: int, count: int) -> None:
        fresh = file.reader.attr.length <= index * CHUNK
        file.reader.committed(attr)
        self._compactor.wrote(file.ino, index, count, fresh=fresh)

    def _recut(self, ino: int) -> None:
        file = self._handles.file(ino)
        if file is not None:
            file.reader.compacted()

    def _length(self, ino: int, attr: Attr) -> int:
        file = self._handles.file(ino)
        writer = None if file is None else file.writer
        return attr.length if writer is None else max(attr.length, writer.length)

    def _each_writer(self, fn: Callable[[FileWriter], None]) -> None:
        first: Exception | None = None
        for file in self._handles.files():
            writer = file.writer
            if writer is None:
                continue
            try:
                fn(writer)
            except (FsError, StoreError) as error:
                first = first or error
        if first is not None:
            raise first


def _check_holds_bytes(attr: Attr) -> None:
    if attr.is_dir:
        raise IsADir("a directory holds no bytes")
    if not attr.is_file:
        raise Invalid("neither a regular file nor a link to one")
