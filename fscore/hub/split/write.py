"""Carries a split plan out: on a volume by composition, or as plain bytes for whoever wants to look."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

import msgspec

from fscore.files.compose import Data, Range, Zeros
from fscore.files.compose import Piece as VolumePiece
from fscore.hub.formats.source import VolumeSource
from fscore.hub.split import pieces
from fscore.hub.split.pieces import Fill, Fresh, Made, Readers, Ref
from fscore.hub.split.plan import FilePlan, RankPlan, SplitPlan
from fscore.hub.split.report import SplitReport
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem
    from fscore.hub.formats.api import Source

PART = ".part"


def write_split(
    files: Filesystem,
    source_dir: str,
    target_dir: str,
    plan: SplitPlan,
    progress: Progress | None = None,
    *,
    clock: Clock | None = None,
    workers: int | None = None,
) -> SplitReport:
    """Write every rank's folder below `target_dir`. A file is there whole or not at all; a second call goes on."""
    clock = clock or SystemClock()
    begun = clock.monotonic()
    writer = _Writer(files, source_dir.rstrip("/"), target_dir.rstrip("/"), progress or NoProgress(), plan)
    records = 0
    try:
        with Pool("hub-split", workers or max(2, min(8, plan.grid.tp))) as pool:
            for _, phase in groupby(plan.ranks, key=lambda rank: rank.rank.ep):
                records += sum(pool.map_bounded(writer.write, writer.jobs(list(phase))))
    finally:
        writer.close()
    return msgspec.structs.replace(plan.report, records=records, seconds=clock.monotonic() - begun)


def materialise(file: FilePlan, source: Source, made: dict[str, bytes] | None = None) -> Iterator[bytes | memoryview]:
    """The bytes of a planned file, read from the source; `made` are whole files of earlier ranks by `rank/path`."""
    readers = Readers(source)
    try:
        for piece in file.pieces:
            if isinstance(piece, Ref):
                yield from pieces.copy(piece, readers.get(piece.file))
            elif isinstance(piece, Fill):
                yield from pieces.zeros(piece.length)
            elif isinstance(piece, Made):
                yield memoryview((made or {})[piece.path])[piece.offset : piece.offset + piece.length]
            else:
                yield from pieces.stream(piece, readers)
    finally:
        readers.close()


class _Writer:
    """One plan being written: open source files and progress."""

    def __init__(self, files: Filesystem, source: str, target: str, progress: Progress, plan: SplitPlan) -> None:
        self._files = files
        self._source = source
        self._target = target
        self._progress = progress
        self._readers = Readers(VolumeSource(files, source))
        self._task = progress.start("split", plan.report.bytes_total, "B")

    def jobs(self, ranks: list[RankPlan]) -> Iterator[tuple[str, FilePlan]]:
        """(rank, file) of one phase, the same file of all tensor ranks in a row; makes the folders on the way.

        Tensor ranks gather columns of the same tensors: side by side they find each other's blocks in the cache.
        """
        for _, stage in groupby(ranks, key=lambda rank: rank.rank.pp):
            together = list(stage)
            for rank in together:
                self._make_folders(rank)
            for files in zip_longest(*(rank.files for rank in together)):
                yield from ((rank.name, file) for rank, file in zip(together, files, strict=True) if file is not None)

    def _make_folders(self, rank: RankPlan) -> None:
        folders = {f"{self._target}/{rank.name}"}
        folders |= {f"{self._target}/{rank.name}/{f.path.rpartition('/')[0]}" for f in rank.files if "/" in f.path}
        for folder in sorted(folders):
            self._files.mkdir(folder, parents=True, exist_ok=True)

    def write(self, job: tuple[str, FilePlan]) -> int:
        """Compose one file beside its place, then rename it there; returns its slice records, 0 when it was there."""
        rank, file = job
        path = f"{self._target}/{rank}/{file.path}"
        if self._files.exists(path) and self._files.stat(path).size == file.size:
            self._progress.advance(self._task, file.size)
            return 0
        if self._files.exists(path + PART):
            self._files.unlink(path + PART)
        done = self._files.compose(path + PART, [self._piece(piece) for piece in file.pieces])
        self._files.rename(path + PART, path)
        fresh = sum(piece.length for piece in file.pieces if isinstance(piece, Fresh))
        self._progress.advance(self._task, file.size - fresh)
        return done.records

    def close(self) -> None:
        """Close the source and the progress."""
        self._readers.close()
        self._progress.finish(self._task)

    def _piece(self, piece: pieces.Piece) -> VolumePiece:
        if isinstance(piece, Ref):
            return Range(f"{self._source}/{piece.file}", piece.offset, piece.length)
        if isinstance(piece, Made):
            return Range(f"{self._target}/{piece.path}", piece.offset, piece.length)
        if isinstance(piece, Fill):
            return Zeros(piece.length)
        return Data(lambda: self._stream(piece), piece.length)

    def _stream(self, fresh: Fresh) -> Iterator[bytes | memoryview]:
        for part in pieces.stream(fresh, self._readers):
            yield part
            self._progress.advance(self._task, len(part))
