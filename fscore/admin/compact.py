"""Compact the files below a path: chunks of several slices become chunks of one, which read faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec

from fscore.domain.errors import NotFound
from fscore.domain.geometry import chunk_count
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool
from fscore.volume import Volume

BATCH: Final = 1024
"""Chunk indexes asked about at once."""


class CompactReport(msgspec.Struct, frozen=True):
    """What there was and what was done: slice records before and after, bytes of new slices.

    `immutable` are files left alone, because what they share with others would be copied.
    """

    files: int
    chunks: int
    compacted: int
    records_before: int
    records_after: int
    bytes_written: int
    immutable: int


def compact(volume: Volume, path: str = "/", *, threads: int = 4, progress: Progress | None = None) -> CompactReport:
    """Compact every chunk below `path` that has more than one slice record; what vanished is left out."""
    told = progress or NoProgress()
    task = told.start(f"compact {path}", None, "chunks")
    files = immutable = chunks = compacted = before = after = written = 0
    top = volume.files.stat(path)
    below = volume.files.walk(path) if top.is_dir else ()
    found = [top] if top.is_file else (stat for _, _, others in below for stat in others if stat.is_file)

    def work(chunk: tuple[int, int]) -> tuple[int, int, int]:
        records = bytes_written = 0
        with suppress(NotFound):
            records = len(volume.meta.records(*chunk))
            bytes_written = volume.vfs.compact(*chunk) if records > 1 else 0
            return records, len(volume.meta.records(*chunk)), bytes_written
        return records, 0, bytes_written

    with Pool("compact-path", threads) as pool:
        for stat in found:
            try:
                is_immutable = volume.meta.getattr(stat.ino).immutable
            except NotFound:
                continue
            files += 1
            if is_immutable:
                immutable += 1
                continue
            for one, two, more in pool.map_bounded(work, _chunks(volume, stat.ino, stat.size)):
                chunks += 1
                compacted += two < one
                before, after, written = before + one, after + two, written + more
                told.advance(task, 1)
    told.finish(task)
    return CompactReport(files, chunks, compacted, before, after, written, immutable)


def _chunks(volume: Volume, ino: int, length: int) -> Iterator[tuple[int, int]]:
    stop = chunk_count(length)
    for first in range(0, stop, BATCH):
        try:
            found = volume.meta.chunk_indexes(ino, first, min(first + BATCH, stop))
        except NotFound:
            return
        yield from ((ino, index) for index in found)
