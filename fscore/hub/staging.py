"""Where an upload is written before anybody sees it, and how it becomes a draft or a version: by one rename.

    <staging>/<id>/parts/    files and the pool under way; names of chance, so that two uploads of one thing coexist
    <staging>/<id>/files/    complete files under their own names

The id follows from the content's digest, so a file that lies under its own name is complete and right, and an
interrupted upload continues where it stopped.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import xxhash

from fscore.domain.errors import Exists, HubError, NotFound
from fscore.files.compose import Data, Piece, Range
from fscore.files.filesystem import Filesystem
from fscore.hub import names
from fscore.hub.formats.api import Source
from fscore.hub.plan import FilePlan, New, PushPlan, Shared
from fscore.hub.scan import STEP, changed
from fscore.runtime.buffer import Buffer
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool

ABANDONED_S: Final = 7 * 86_400
"""An upload that nobody went on with for so long is not waited for any more."""

_WORKERS: Final = 4


def staging_id(team: str, model: str, digest: str, what: str = "") -> str:
    """The id of the upload of this content into this model."""
    return hashlib.sha256(f"{team}/{model}\n{digest}\n{what}".encode()).hexdigest()[:16]


class Staging:
    """One upload under way."""

    def __init__(self, files: Filesystem, team: str, model: str, upload_id: str) -> None:
        self._fs = files
        self.top = names.staging_dir(team, model, upload_id)
        self.files = f"{self.top}/files"
        self.pool = f"{self.top}/pool"
        self._parts = f"{self.top}/parts"

    def begin(self, *, resume: bool = True) -> None:
        """Make the directories; without `resume` what an earlier attempt left is thrown away."""
        if not resume:
            self.remove()
        self._fs.mkdir(self.files, parents=True, exist_ok=True)
        self._fs.mkdir(self._parts, parents=True, exist_ok=True)

    def exists(self) -> bool:
        """Whether an attempt left anything here."""
        return self._fs.exists(self.top)

    def missing(self, wanted: Sequence[tuple[str, int]]) -> set[str]:
        """Which of these (path, size) are not complete here yet."""
        return {path for path, size in wanted if not self._complete(f"{self.files}/{path}", size)}

    def write(self, plan: PushPlan, source: Source, progress: Progress | None = None) -> int:
        """Write what the plan lists and what is not here yet; returns the bytes that travelled."""
        progress = progress or NoProgress()
        todo = self.missing([(file.path, file.size) for file in plan.files])
        files = [file for file in plan.files if file.path in todo]
        pooled = plan.pool if any(self._uses_pool(file) for file in files) else ()
        for directory in sorted({file.path.rpartition("/")[0] for file in files} - {""}):
            self._fs.mkdir(f"{self.files}/{directory}", parents=True, exist_ok=True)
        total = sum(new.length for new in pooled) + sum(file.bytes_new for file in files)
        task = progress.start("upload", total, "B")

        def advance(count: int) -> None:
            progress.advance(task, count)

        def one(file: FilePlan) -> int:
            self.compose(file.path, [_piece(piece, source, advance) for piece in file.pieces])
            return file.bytes_new

        try:
            moved = 0
            if pooled and not self._complete(self.pool, sum(new.length for new in pooled)):
                moved += self._place(self.pool, [_piece(new, source, advance) for new in pooled])
            with Pool("hub-upload", _WORKERS) as pool:
                return moved + sum(pool.map_bounded(one, files))
        finally:
            progress.finish(task)

    def compose(self, path: str, pieces: Sequence[Piece]) -> int:
        """Put one file in place, whole; returns the bytes that were new."""
        return self._place(f"{self.files}/{path}", pieces)

    def put(self, path: str, data: bytes) -> None:
        """Put a small file in place, whole, unless the same is there; another one is replaced."""
        target = f"{self.files}/{path}"
        if self._fs.exists(target) and self._fs.read_bytes(target) == data:
            return
        self._fs.mkdir(target.rpartition("/")[0], parents=True, exist_ok=True)
        part = f"{self._parts}/{secrets.token_hex(8)}"
        self._fs.write_atomic(part, data, replace=False)
        try:
            self._fs.rename(part, target, replace=False)
        except Exists:
            if self._fs.read_bytes(target) != data:
                self._fs.rename(part, target)

    def prune(self, wanted: Collection[str]) -> None:
        """Remove whatever lies among the files but is none of these nor a record (what a killed writer left)."""
        for here, _, others in self._fs.walk(self.files):
            for found in others:
                known = here == f"{self.files}/{names.AUDIT}" or found.path.removeprefix(f"{self.files}/") in wanted
                if not known:
                    self._fs.unlink(found.path, skip_trash=True)

    def finish(self, target: str, frozen: Sequence[str]) -> None:
        """Freeze the files named and the directories they lie in, then move all to `target` by one rename.

        Raises Exists when something lies there already (somebody else finished the same upload).
        """
        freeze(self._fs, self.files, frozen)
        self._fs.mkdir(target.rpartition("/")[0], parents=True, exist_ok=True)
        self._fs.rename(self.files, target, replace=False)

    def remove(self) -> None:
        """Throw away what is here."""
        remove_tree(self._fs, self.top)

    def _place(self, target: str, pieces: Sequence[Piece]) -> int:
        part = f"{self._parts}/{secrets.token_hex(8)}"
        report = self._fs.compose(part, pieces)
        try:
            self._fs.rename(part, target, replace=False)
        except Exists:
            self._fs.unlink(part, skip_trash=True)
        return report.bytes_new

    def _complete(self, path: str, size: int) -> bool:
        try:
            found = self._fs.stat(path, follow=False)
        except NotFound:
            return False
        if not found.is_file or found.size != size:
            raise HubError(f"{path} is not what was staged there", hint="push again without resume", kind="conflict")
        return True

    def _uses_pool(self, file: FilePlan) -> bool:
        return any(isinstance(piece, Shared) and piece.path == self.pool for piece in file.pieces)


def freeze(files: Filesystem, top: str, paths: Sequence[str]) -> None:
    """Make these files and the directories between them and `top` immutable.

    `top` itself stays free to be moved, and the directory of records free to take the result of a later validation.
    """
    directories: set[str] = set()
    for path in paths:
        files.set_immutable(f"{top}/{path}", True)
        parent = path.rpartition("/")[0]
        while parent:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    for directory in sorted(directories - {names.AUDIT}, key=lambda name: -name.count("/")):
        files.set_immutable(f"{top}/{directory}", True)


def thaw(files: Filesystem, path: str) -> None:
    """Take the immutable flag off a tree, from the top down."""
    files.set_immutable(path, False, recursive=True)


def abandoned(files: Filesystem, now_ns: int) -> Iterator[str]:
    """Uploads that ended in the middle, and in which nothing was written for a week."""
    before_ns = now_ns - ABANDONED_S * 1_000_000_000
    try:
        teams = list(files.scandir(names.staging_root()))
    except NotFound:
        return
    for model in (model for team in teams if team.is_dir for model in files.scandir(team.path) if model.is_dir):
        for upload in list(files.scandir(model.path)):
            inside = (stat for _, dirs, rest in files.walk(upload.path) for stat in (*dirs, *rest))
            newest = max((max(stat.attr.mtime_ns, stat.attr.ctime_ns) for stat in inside), default=0)
            if max(newest, upload.attr.ctime_ns) < before_ns:
                yield upload.path


def remove_tree(files: Filesystem, path: str) -> None:
    """Remove a frozen or unfrozen tree at once, past the trash; nothing there is fine."""
    try:
        thaw(files, path)
        files.rmtree(path, skip_trash=True)
    except NotFound:
        return


def _piece(piece: Shared | New, source: Source, advance: Callable[[int], None]) -> Piece:
    if isinstance(piece, Shared):
        return Range(piece.path, piece.offset, piece.length)
    return Data(chunks=lambda: _checked(piece, source, advance), length=piece.length)


def _checked(new: New, source: Source, advance: Callable[[int], None]) -> Iterator[Buffer]:
    """The bytes of a new piece, each segment checked against what the scan saw."""
    reader = source.open(new.file)
    try:
        for segment in new.segments:
            fast = xxhash.xxh3_128()
            for offset in range(segment.offset, segment.end, STEP):
                want = min(STEP, segment.end - offset)
                chunk = reader.pread(offset, want)
                if len(chunk) != want:
                    raise changed(new.file)
                fast.update(chunk)
                yield chunk
                advance(want)
            if segment.xxh3 and fast.hexdigest() != segment.xxh3:
                raise changed(new.file)
    finally:
        reader.close()
