"""Names and locks of whole files on the disk: who may fill one, what lies there, what a dead process left behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fscore.blocks.cache.whole.record import Record, unpack
from fscore.runtime.clock import Clock

FOLDER: Final = "whole/"
BYTES: Final = ".bytes"
SUMS: Final = ".sums"
PART: Final = ".part"

_STALE_TEMP_S: Final = 3600
_TRIES: Final = 3
_TRY_AGAIN_S: Final = 0.005


def name_of(key: str, length: int) -> str:
    """The name of a content, relative to the volume's directory in the cache, without a suffix."""
    return f"{FOLDER}{length}/{key}"


def parse(name: str) -> tuple[str, int]:
    """(key, length) of a name."""
    length, key = name.removeprefix(FOLDER).split("/")
    return key, int(length)


class Folder:
    """The files below `home`. Raises OSError; knows no budget."""

    def __init__(self, home: str, clock: Clock) -> None:
        self._home = home.rstrip("/") + "/"
        self._clock = clock

    def path(self, name: str, suffix: str = "") -> str:
        """Where a file is."""
        return self._home + name + suffix

    def has_length(self, length: int) -> bool:
        """Whether a file of this length was ever here."""
        return os.access(f"{self._home}{FOLDER}{length}", os.F_OK)

    def open(self, name: str) -> int:
        """The bytes of a file, for reading."""
        return os.open(self.path(name, BYTES), os.O_RDONLY | os.O_CLOEXEC)

    def record(self, name: str) -> Record:
        """The proof of a file. FileNotFoundError, or CorruptError when it is none."""
        with open(self.path(name, SUMS), "rb", buffering=0) as file:  # noqa: PTH123
            return unpack(file.read())

    def write_record(self, name: str, record: Record) -> None:
        """Replace the proof of a file that was read again."""
        temporary = self.path(name, f"{SUMS}.{os.getpid()}.tmp")
        with open(temporary, "wb") as file:  # noqa: PTH123
            file.write(record.pack())
        os.rename(temporary, self.path(name, SUMS))  # noqa: PTH104

    def remove(self, name: str) -> bool:
        """Remove a file, the record first; whether it was there."""
        with suppress(OSError):
            os.unlink(self.path(name, SUMS))  # noqa: PTH108
        try:
            os.unlink(self.path(name, BYTES))  # noqa: PTH108
        except OSError:
            return False
        return True

    def claim(self, name: str) -> int | None:
        """An empty file to fill, locked until its descriptor is closed; None if it is whole already or another's."""
        os.makedirs(self.path(name).rsplit("/", 1)[0], exist_ok=True)  # noqa: PTH103
        for _ in range(_TRIES):
            if self._is_whole(name):
                return None
            fd = os.open(self.path(name, PART), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if self._is_ours(fd, name):
                os.ftruncate(fd, 0)
                return fd
            os.close(fd)
            self._clock.sleep(_TRY_AGAIN_S)  # who sweeps holds the lock for a moment
        return None

    def give_up(self, name: str) -> None:
        """Leave nothing of a file that was claimed."""
        with suppress(OSError):
            os.unlink(self.path(name, PART))  # noqa: PTH108
        self.remove(name)

    def walk(self) -> Iterator[tuple[str, set[str]]]:
        """Names, each with the suffixes that are there."""
        for length in _listed(self._home + FOLDER):
            names: dict[str, set[str]] = {}
            for entry in _listed(f"{self._home}{FOLDER}{length}") if length.isdecimal() else ():
                key, dot, suffix = entry.partition(".")
                names.setdefault(f"{FOLDER}{length}/{key}", set()).add(dot + suffix)
            yield from names.items()

    def last_used(self, name: str) -> float:
        """When a file was opened last, about."""
        seen = os.stat(self.path(name, SUMS))  # noqa: PTH116
        return max(seen.st_atime, seen.st_mtime)

    def sweep(self, name: str, found: set[str]) -> None:
        """Remove what nobody fills any more of a name under which `found` lies."""
        for suffix in sorted(found - {SUMS}):
            with suppress(OSError):
                fd = os.open(self.path(name, suffix), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self._sweep(fd, name, suffix)
                finally:
                    os.close(fd)
        if found == {SUMS}:
            with suppress(OSError):
                os.unlink(self.path(name, SUMS))  # noqa: PTH108

    def _sweep(self, fd: int, name: str, suffix: str) -> None:
        if suffix.endswith(".tmp"):
            if self._clock.now_ns() / 1e9 - os.fstat(fd).st_mtime > _STALE_TEMP_S:
                os.unlink(self.path(name, suffix))  # noqa: PTH108
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever fills it has it locked until the record is written
        if suffix == PART or not os.access(self.path(name, SUMS), os.F_OK):
            os.unlink(self.path(name, suffix))  # noqa: PTH108

    def _is_whole(self, name: str) -> bool:
        return os.access(self.path(name, SUMS), os.F_OK) and os.access(self.path(name, BYTES), os.F_OK)

    def _is_ours(self, fd: int, name: str) -> bool:
        """Lock the file that shall be filled. False if another has it, or had it until a moment ago."""
        path = self.path(name, PART)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino != os.fstat(fd).st_ino:  # noqa: PTH116
                return False
        except (BlockingIOError, FileNotFoundError):
            return False
        if self._is_whole(name):
            os.unlink(path)  # noqa: PTH108
            return False
        return True


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
