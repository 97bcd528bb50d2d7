"""What was written to one chunk and is not committed: streams that go up while they grow, and extents in memory.

Rule 1  extents are disjoint and younger than every stream. Bytes that an extent holds are overwritten in it; only
        bytes that no extent holds go elsewhere.
Rule 2  a stream is one slice in the making: its whole blocks are on their way up, its last block may still be changed.
        Bytes go into a stream at its end, or into that last block, if no younger stream has written there.
Rule 3  an extent that has grown to a whole block becomes the youngest stream.
Rule 4  at the end all extents of the chunk go up as one slice, with a record for each run of them that touch.
So the newest bytes win when the streams' records come first, oldest first, and those of the extents after them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Final

from fscore.blocks.upload import SliceWriter
from fscore.domain.geometry import CHUNK
from fscore.domain.slices import SliceRecord

NewWriter = Callable[[], SliceWriter]


class Stream:
    """A slice that grows at its end, from `start` of the chunk on."""

    __slots__ = ("start", "writer")

    def __init__(self, start: int, writer: SliceWriter) -> None:
        self.start = start
        self.writer = writer

    @property
    def end(self) -> int:
        """Position in the chunk after the last byte."""
        return self.start + self.writer.size

    @property
    def held(self) -> int:
        """Position in the chunk from which on the bytes may still be changed."""
        return self.start + self.writer.held_from


class DirtyChunk:
    """Not thread-safe: the file's writer locks."""

    def __init__(self, index: int, block_size: int, new_writer: NewWriter) -> None:
        self.index: Final = index
        self.end = 0
        """Position after the last byte written."""
        self.buffered = 0
        """Bytes in memory that no upload has taken: extents, and the last blocks of streams."""
        self.streams: list[Stream] = []
        self._block = block_size
        self._new_writer = new_writer
        self._starts: list[int] = []
        self._extents: dict[int, bytearray] = {}
        self._packed: SliceWriter | None = None
        self._runs: list[SliceRecord] = []

    @property
    def extents(self) -> int:
        """How many extents there are."""
        return len(self._starts)

    @property
    def full(self) -> bool:
        """Whether a stream has come to the chunk's end."""
        return any(stream.end == CHUNK for stream in self.streams)

    def stream(self, pos: int) -> None:
        """Begin with a stream: what comes before this chunk was one."""
        self.streams.append(Stream(pos, self._new_writer()))

    def write(self, pos: int, data: memoryview) -> None:
        """Take bytes; `data` is copied, or handed to an upload if nobody can change it."""
        end = pos + len(data)
        self.end = max(self.end, end)
        if not self._starts:
            self._take(pos, data)
            return
        at = pos
        while at < end:
            holder, stop = self._look(at, end)
            part = data[at - pos : stop - pos]
            if holder is None:
                self._take(at, part)
            else:
                with memoryview(self._extents[holder]) as held:
                    held[at - holder : stop - holder] = part
            at = stop

    def touches(self, pos: int, end: int) -> bool:
        """Whether anything of [pos, end) was written."""
        return self._streamed(pos, end) or any(True for _ in self._within(pos, end))

    def patches(self, pos: int, end: int) -> bool:
        """Whether what was written of [pos, end) can be given by `patch`: no stream has a part in it."""
        return not self._streamed(pos, end)

    def patch(self, pos: int, target: memoryview) -> None:
        """Put what extents hold of a range over what lies in `target`."""
        end = pos + len(target)
        for start in self._within(pos, end):
            extent = self._extents[start]
            low, high = max(start, pos), min(start + len(extent), end)
            with memoryview(extent) as held:
                target[low - pos : high - pos] = held[low - start : high - start]

    def send(self, *, alone: bool = False) -> list[SliceWriter]:
        """Hand the last bytes to uploads; the writers to finish. Afterwards nothing may be written.

        `alone`: the caller has no other chunk to send, so that a single block is stored on its thread.
        """
        for stream in self.streams:
            stream.writer.seal()
        writers = [stream.writer for stream in self.streams]
        if self._starts:
            writers.append(self._pack(here=alone and not self.streams and self.buffered <= self._block))
        self.buffered = 0
        return writers

    def records(self) -> list[SliceRecord]:
        """What to append to the chunk's list once the writers are finished."""
        records = [
            SliceRecord(stream.start, stream.writer.slice_id, stream.writer.size, 0, stream.writer.size)
            for stream in self.streams
        ]
        return records + self._runs

    def abort(self) -> None:
        """Drop everything and delete what went up."""
        for stream in self.streams:
            stream.writer.abort()
        if self._packed is not None:
            self._packed.abort()

    def release(self) -> None:
        """Forget the writers without touching their objects: somebody may refer to them."""
        self.streams.clear()
        self._packed = None

    def _look(self, at: int, end: int) -> tuple[int | None, int]:
        """The extent that holds `at`, and up to where that is the answer."""
        place = bisect_right(self._starts, at)
        if place:
            start = self._starts[place - 1]
            stop = start + len(self._extents[start])
            if at < stop:
                return start, min(stop, end)
        return None, min(self._starts[place], end) if place < len(self._starts) else end

    def _within(self, pos: int, end: int) -> Iterator[int]:
        """Starts of the extents that hold anything of [pos, end)."""
        for place in range(max(bisect_right(self._starts, pos) - 1, 0), len(self._starts)):
            start = self._starts[place]
            if start >= end:
                return
            if start + len(self._extents[start]) > pos:
                yield start

    def _streamed(self, pos: int, end: int) -> bool:
        return any(stream.start < end and pos < stream.end for stream in self.streams)

    def _take(self, pos: int, data: memoryview) -> None:
        """Bytes that no extent holds."""
        taken = self._into_stream(pos, data)
        if taken < len(data):
            self._into_extent(pos + taken, data[taken:])

    def _into_stream(self, pos: int, data: memoryview) -> int:
        """How many of the bytes a stream took."""
        end = pos + len(data)
        for stream in reversed(self.streams):
            if stream.held <= pos <= stream.end:
                inside = min(stream.end, end) - pos
                if inside:
                    stream.writer.patch(pos - stream.start, data[:inside])
                if inside < len(data):
                    self._grow(stream.writer, data[inside:])
                return len(data)
            if stream.start < end and pos < stream.end:
                return 0  # it wrote there, and cannot any more
        return 0

    def _grow(self, writer: SliceWriter, data: memoryview) -> None:
        held = writer.size - writer.held_from
        writer.write(data, owned=isinstance(data.obj, bytes))
        self.buffered += writer.size - writer.held_from - held

    def _into_extent(self, pos: int, data: memoryview) -> None:
        place = bisect_right(self._starts, pos)
        start = self._starts[place - 1] if place else -1
        extent = self._extents.get(start)
        if extent is None or start + len(extent) != pos:
            if len(data) >= self._block:
                self._begin(pos, data, owned=isinstance(data.obj, bytes))
                return
            self._starts.insert(place, pos)
            self._extents[pos] = bytearray(data)
            self.buffered += len(data)
            return
        room = self._block - len(extent)
        extent += data[:room]
        self.buffered += min(room, len(data))
        if len(extent) < self._block:
            return
        del self._starts[place - 1], self._extents[start]
        self.buffered -= len(extent)
        self._begin(start, memoryview(extent), owned=True)
        if room < len(data):
            self._take(pos + room, data[room:])

    def _begin(self, pos: int, data: memoryview, *, owned: bool) -> None:
        """A new, youngest stream."""
        stream = Stream(pos, self._new_writer())
        self.streams.append(stream)
        stream.writer.write(data, owned=owned)
        self.buffered += stream.writer.size - stream.writer.held_from

    def _pack(self, *, here: bool) -> SliceWriter:
        """All extents as one slice; `_runs` says where their bytes belong."""
        writer = self._packed = self._new_writer()
        if len(self._starts) == 1:
            start = self._starts[0]
            writer.seal(self._extents[start], here=here)
        else:
            for start in self._starts:
                writer.write(self._extents[start])
            writer.seal(here=here)
        off = 0
        for start in self._starts:
            length = len(self._extents[start])
            last = self._runs[-1] if self._runs else None
            if last is not None and last.end == start:
                self._runs[-1] = last._replace(length=last.length + length)
            else:
                self._runs.append(SliceRecord(start, writer.slice_id, writer.size, off, length))
            off += length
        self._starts.clear()
        self._extents.clear()
        return writer
