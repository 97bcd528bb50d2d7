"""Carries a split plan out: on a volume by composition, or as plain bytes for whoever wants to look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

import msgspec

from fscore.domain.errors import NotFound
from fscore.files.compose import ComposeReport, Data, Range, Zeros
from fscore.files.compose import Piece as VolumePiece
from fscore.hub.formats.source import VolumeSource
from fscore.hub.split import pieces
from fscore.hub.split.pieces import Fill, Fresh, Made, Readers, Ref
from fscore.hub.split.plan import FilePlan, RankPlan, SplitPlan
from fscore.hub.split.report import SplitReport
from fscore.hub.split.reuse import Earlier
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
    earlier: Sequence[str] = (),
    clock: Clock | None = None,
    workers: int | None = None,
) -> SplitReport:
    """Write every rank's folder below `target_dir`. A file is there whole or not at all; a second call goes on.

    `earlier` are directories of layouts with the same grid: columns that came out equal there are shared.
    """
    clock = clock or SystemClock()
    begun = clock.monotonic()
    known = Earlier(files, earlier)
    writer = _Writer(files, source_dir.rstrip("/"), target_dir.rstrip("/"), progress or NoProgress(), plan, known)
    records = reused = 0
    try:
        with Pool("hub-split", workers or max(2, min(8, plan.grid.tp))) as pool:
            for _, phase in groupby(plan.ranks, key=lambda rank: rank.rank.ep):
                for done, again in pool.map_bounded(writer.write, writer.jobs(list(phase))):
                    records, reused = records + done, reused + again
    finally:
        writer.close()
        known.close()
    return msgspec.structs.replace(
        plan.report,
        bytes_new=plan.report.bytes_new - reused,
        bytes_shared=plan.report.bytes_shared + reused,
        bytes_reused=reused,
        records=records,
        seconds=clock.monotonic() - begun,
    )


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

    def __init__(
        self, files: Filesystem, source: str, target: str, progress: Progress, plan: SplitPlan, earlier: Earlier
    ) -> None:
        self._files = files
        self._earlier = earlier
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

    def write(self, job: tuple[str, FilePlan]) -> tuple[int, int]:
        """Compose one file beside its place, then rename it there.

        Returns its slice records (0 when it was there) and the gathered bytes that an earlier layout had.
        """
        rank, file = job
        path = f"{self._target}/{rank}/{file.path}"
        if self._files.exists(path) and self._files.stat(path).size == file.size:
            self._progress.advance(self._task, file.size)
            return 0, 0
        resolved = list(self._earlier.resolve(rank, file, self._readers))
        try:
            done = self._compose(path + PART, resolved)
        except NotFound:  # an earlier layout went away meanwhile: do without
            resolved = list(file.pieces)
            done = self._compose(path + PART, resolved)
        self._files.rename(path + PART, path)
        fresh = sum(piece.length for piece in resolved if isinstance(piece, Fresh))
        self._progress.advance(self._task, file.size - fresh)
        return done.records, sum(piece.length for piece in resolved if isinstance(piece, Range))

    def _compose(self, path: str, resolved: Iterable[pieces.Piece | Range]) -> ComposeReport:
        if self._files.exists(path):
            self._files.unlink(path)
        return self._files.compose(path, [self._piece(piece) for piece in resolved])

    def close(self) -> None:
        """Close the source and the progress."""
        self._readers.close()
        self._progress.finish(self._task)

    def _piece(self, piece: pieces.Piece | Range) -> VolumePiece:
        if isinstance(piece, Range):
            return piece
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
