"""Read a source once and hash all of it: MD5 and SHA-256 of files, SHA-256 and XXH3 of every tensor.

One reader a file; MD5 and SHA-256 of the file run on lanes of their own while the reading thread hashes the
tensors, for MD5 alone takes as long as all the rest together (models.md 3.4).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Final

import msgspec
import xxhash

from fscore.domain.digest import FileDigest
from fscore.domain.errors import HubError
from fscore.hub.formats.api import RandomReader, Source, TensorEntry
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool

STEP: Final = 4 << 20
_INLINE: Final = 1 << 20
"""Below this the hand-over to a lane costs more than it saves."""


class Segment(msgspec.Struct, frozen=True):
    """A byte range of a file: one tensor, or what lies between tensors (then `tensor` is empty)."""

    offset: int
    length: int
    sha256: str = ""
    xxh3: str = ""
    tensor: str = ""

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + self.length


class HashedFile(msgspec.Struct, frozen=True):
    """A file, what it is, and its segments, which cover it exactly and in order."""

    path: str
    digest: FileDigest
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.digest.size


def hash_source(
    source: Source,
    tensors: Iterable[TensorEntry],
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> list[HashedFile]:
    """Every file of the source, hashed, in path order. Raises HubError when a file changes meanwhile."""
    progress = progress or NoProgress()
    files = source.files()
    cuts = cut_points(files, tensors)
    task = progress.start("hash", sum(size for _, size in files), "B")
    width = workers or max(2, min(4, os.cpu_count() or 2))

    def one(entry: tuple[str, int]) -> HashedFile:
        path, size = entry
        reader = source.open(path)
        try:
            if reader.size != size:
                raise changed(path)
            return _hash_file(reader, path, cuts[path], lanes, lambda n: progress.advance(task, n))
        finally:
            reader.close()

    try:
        with Pool("hub-lane", 2 * width) as lanes, Pool("hub-scan", width) as pool:
            return list(pool.map_bounded(one, files))
    finally:
        progress.finish(task)


def sha256_files(source: Source, *, progress: Progress | None = None, workers: int | None = None) -> dict[str, str]:
    """SHA-256 of every file of a source, by path: for layouts, whose bytes are known under other names."""
    progress = progress or NoProgress()
    files = source.files()
    task = progress.start("verify", sum(size for _, size in files), "B")

    def one(entry: tuple[str, int]) -> tuple[str, str]:
        path, size = entry
        proof = hashlib.sha256()
        reader = source.open(path)
        try:
            for offset in range(0, size, STEP):
                chunk = reader.pread(offset, min(STEP, size - offset))
                if len(chunk) != min(STEP, size - offset):
                    raise changed(path)
                proof.update(chunk)
                progress.advance(task, len(chunk))
        finally:
            reader.close()
        return path, proof.hexdigest()

    try:
        with Pool("hub-verify", workers or max(2, min(4, os.cpu_count() or 2))) as pool:
            return dict(pool.map_bounded(one, files))
    finally:
        progress.finish(task)


def changed(path: str) -> HubError:
    """The error of a source that somebody writes to."""
    return HubError(f"{path} changed while it was read", hint="try again when nothing writes to it", kind="conflict")


def cut_points(files: Sequence[tuple[str, int]], tensors: Iterable[TensorEntry]) -> dict[str, list[Segment]]:
    """The segments of every file, not hashed yet. Tensors that overlap an earlier one are left in its gap."""
    found: dict[str, list[Segment]] = {path: [] for path, _ in files}
    sizes = dict(files)
    for tensor in sorted(tensors, key=lambda t: (t.file, t.offset, -t.nbytes)):
        if tensor.file not in found:
            raise HubError(f"tensor {tensor.name} lies in {tensor.file}, which is missing", kind="invalid")
        segments = found[tensor.file]
        position = segments[-1].end if segments else 0
        if tensor.nbytes == 0 or tensor.offset < position or tensor.end > sizes[tensor.file]:
            continue
        if tensor.offset > position:
            segments.append(Segment(position, tensor.offset - position))
        segments.append(Segment(tensor.offset, tensor.nbytes, tensor=tensor.name))
    for path, size in files:
        segments = found[path]
        position = segments[-1].end if segments else 0
        if position < size:
            segments.append(Segment(position, size - position))
    return found


class _SegmentHasher:
    """Takes a file's bytes in order and hashes its segments one after the other."""

    def __init__(self, segments: Sequence[Segment], *, strong: bool) -> None:
        self._segments = segments
        self._strong = strong
        self._done: list[Segment] = []
        self._begin()

    def update(self, chunk: bytes) -> None:
        """The next bytes of the file."""
        view = memoryview(chunk)
        while view:
            part = view[: self._left]
            self._fast.update(part)
            if self._strong:
                self._proof.update(part)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left:
                self._end()

    def finish(self, whole: str) -> tuple[Segment, ...]:
        """The hashed segments; `whole` is the file's SHA-256, which is also that of a lone segment."""
        if not self._strong:
            return tuple(msgspec.structs.replace(segment, sha256=whole) for segment in self._done)
        return tuple(self._done)

    def _begin(self) -> None:
        self._fast = xxhash.xxh3_128()
        self._proof = hashlib.sha256()
        done = len(self._done)
        self._left = self._segments[done].length if done < len(self._segments) else 0

    def _end(self) -> None:
        segment = self._segments[len(self._done)]
        sha256 = self._proof.hexdigest() if self._strong else ""
        self._done.append(msgspec.structs.replace(segment, sha256=sha256, xxh3=self._fast.hexdigest()))
        self._begin()


def _hash_file(
    reader: RandomReader, path: str, cuts: Sequence[Segment], lanes: Pool, advance: Callable[[int], None]
) -> HashedFile:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    parts = _SegmentHasher(cuts, strong=len(cuts) > 1)
    waiting: list[Future[None]] = []
    for offset in range(0, reader.size, STEP):
        want = min(STEP, reader.size - offset)
        chunk = reader.pread(offset, want)
        if len(chunk) != want:
            raise changed(path)
        for future in waiting:
            future.result()
        if reader.size <= _INLINE:
            md5.update(chunk)
            sha256.update(chunk)
        else:
            waiting = [lanes.submit(md5.update, chunk), lanes.submit(sha256.update, chunk)]
        parts.update(chunk)
        advance(want)
    for future in waiting:
        future.result()
    digest = FileDigest(size=reader.size, md5=md5.hexdigest(), sha256=sha256.hexdigest())
    return HashedFile(path, digest, parts.finish(digest.sha256))
