"""Directories of model files: on this machine, or in a volume. Nothing outside them is read."""

from __future__ import annotations

import os
import re
import stat as modes
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fscore.domain.errors import HubError, NotFound
from fscore.hub.formats.api import RandomReader, UnsafeError, check_relative

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem

SKIPPED = frozenset({".fscore", ".git", ".cache", ".locks", "__pycache__"})
"""Directories that are never part of a model: our records, version control, download state."""

_HF_SNAPSHOT = re.compile(r"^(?P<repo>.*/models--[^/]+)/snapshots/[^/]+$")
_MOST_LINKS = 40


class LocalReader:
    """A local file, read with pread; no shared position, so threads may share it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self._fd)
        if not modes.S_ISREG(found.st_mode):
            self.close()
            raise UnsafeError(f"{path.name} is not a regular file")
        self._size = found.st_size

    @property
    def size(self) -> int:
        """The length when it was opened."""
        return self._size

    def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; one system call unless the kernel cuts it short."""
        length = min(length, self._size - offset)
        if offset < 0 or length <= 0:
            return b""
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        parts, got = [data], len(data)
        while got < length and (more := os.pread(self._fd, length - got, offset + got)):
            parts.append(more)
            got += len(more)
        return b"".join(parts)

    def pread_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer; short only at the end of the file."""
        got = 0
        if not 0 <= offset < self._size:
            return 0
        while got < len(buffer) and (n := os.preadv(self._fd, [buffer[got:]], offset + got)):
            got += n
        return got

    def close(self) -> None:
        """Close the descriptor once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LocalSource:
    """A model directory on this machine. `within` is how far symbolic links may lead.

    By default links stay inside the directory; a snapshot of the Hugging Face cache may point
    into the blobs of its own repository folder, as that layout does. `skip_links` passes over links to directories
    and to nothing instead of refusing them: for a directory where somebody else is at work. `only` goes down into
    that one subdirectory, so that it can be seen with its neighbours' files but without their trees.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, within: str | None = None, skip_links: bool = False, only: str = ""
    ) -> None:
        root = Path(path)
        if not root.is_dir():
            what = "is not a directory" if root.exists() else "does not exist"
            raise HubError(f"model directory {path} {what}", kind="not_found")
        self._root = root.resolve()
        snapshot = _HF_SNAPSHOT.match(str(self._root))
        default = Path(snapshot["repo"]) if snapshot else self._root
        self._within = Path(within).resolve() if within else default
        self._skip_links = skip_links
        self._only = only

    @property
    def location(self) -> str:
        """The directory's absolute path."""
        return str(self._root)

    def files(self) -> list[tuple[str, int]]:
        """Every regular file with its size, sorted by path."""
        return [(rel, size) for rel, size, _ in self.stats()]

    def stats(self) -> list[tuple[str, int, int]]:
        """Every regular file with its size and modification time, sorted by path."""
        found: list[tuple[str, int, int]] = []
        pending = [""]
        while pending:
            below = pending.pop()
            with os.scandir(self._root / below) as entries:
                for entry in entries:
                    rel = f"{below}/{entry.name}" if below else entry.name
                    self._take(entry, rel, found, pending)
        return sorted(found)

    def _take(
        self,
        entry: os.DirEntry[str],
        rel: str,
        found: list[tuple[str, int, int]],
        pending: list[str],
    ) -> None:
        link = entry.is_symlink()
        if link and not self._skip_links:
            self._inside(rel)
        try:
            info = entry.stat()
        except FileNotFoundError:
            if link and not self._skip_links:
                raise UnsafeError(f"{rel} is a link to nothing") from None
            return
        if modes.S_ISDIR(info.st_mode):
            other = self._only and "/" not in rel and rel != self._only
            if other or entry.name in SKIPPED or (link and self._skip_links):
                return
            if link:
                raise UnsafeError(f"{rel} is a link to a directory", hint="copy its files instead")
            pending.append(rel)
        elif modes.S_ISREG(info.st_mode):
            found.append((rel, info.st_size, info.st_mtime_ns))
        else:
            raise UnsafeError(f"{rel} is neither a file nor a directory")

    def open(self, rel: str) -> RandomReader:
        """Open one file for reading at any offset."""
        target = self._inside(check_relative(rel))
        try:
            return LocalReader(target)
        except FileNotFoundError:
            raise HubError(f"{rel} is missing in {self._root}", kind="not_found") from None
        except IsADirectoryError:
            raise UnsafeError(f"{rel} is not a regular file") from None

    def _inside(self, rel: str) -> Path:
        target = (self._root / rel).resolve()
        if not (target.is_relative_to(self._root) or target.is_relative_to(self._within)):
            raise UnsafeError(f"{rel} is a link that leaves the model directory")
        return target


class VolumeSource:
    """A model directory inside a volume."""

    def __init__(self, files: Filesystem, path: str) -> None:
        self._files = files
        self._root = str(PurePosixPath("/") / path).rstrip("/") or "/"
        if not files.is_dir(self._root):
            raise HubError(f"{path} is not a directory of the volume", kind="not_found")

    @property
    def location(self) -> str:
        """The path inside the volume."""
        return self._root

    def files(self) -> list[tuple[str, int]]:
        """Every regular file with its size, sorted by path."""
        return [(rel, size) for rel, size, _ in self.stats()]

    def stats(self) -> list[tuple[str, int, int]]:
        """Every regular file with its size and modification time, sorted by path."""
        found: list[tuple[str, int, int]] = []
        pending = [""]
        while pending:
            below = pending.pop()
            for entry in self._files.scandir(self._full(below)):
                name = entry.path.rsplit("/", 1)[-1]
                rel = f"{below}/{name}" if below else name
                if entry.is_dir:
                    if name not in SKIPPED:
                        pending.append(rel)
                elif entry.is_symlink:
                    target = self._files.stat(self._inside(rel))
                    if not target.is_file:
                        raise UnsafeError(f"{rel} is a link to something that is not a file")
                    found.append((rel, target.size, target.mtime_ns))
                elif entry.is_file:
                    found.append((rel, entry.size, entry.mtime_ns))
                else:
                    raise UnsafeError(f"{rel} is neither a file nor a directory")
        return sorted(found)

    def open(self, rel: str) -> RandomReader:
        """Open one file for reading at any offset."""
        path = self._inside(check_relative(rel))
        try:
            return self._files.open(path, "rb")
        except NotFound:
            raise HubError(f"{rel} is missing in {self._root}", kind="not_found") from None

    def _full(self, rel: str) -> str:
        return f"{self._root.rstrip('/')}/{rel}" if rel else self._root

    def _inside(self, rel: str) -> str:
        """Follow links by hand, so that none leads outside the directory."""
        path = self._full(rel)
        for _ in range(_MOST_LINKS):
            found = self._files.stat(path, follow=False) if self._files.exists(path) else None
            if found is None or not found.is_symlink:
                return path
            target = self._files.readlink(path)
            path = os.path.normpath(PurePosixPath(path).parent / target)
            if not path.startswith(f"{self._root.rstrip('/')}/"):
                raise UnsafeError(f"{rel} is a link that leaves the model directory")
        raise UnsafeError(f"{rel} is a loop of links")
