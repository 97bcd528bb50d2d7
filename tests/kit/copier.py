"""Copies many files onto a mount and says, one line each, what the system acknowledged; run as a program.

`python copier.py TARGET COUNT SEED JOURNAL`: file number N gets the content that `content(SEED, N)` gives, in one of
the ways of `WAYS`; after the call that acknowledges it, `N` goes to the journal, which lies elsewhere.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Final

WAYS: Final = ("close", "fsync", "rename", "append")
FOLDERS: Final = 20
HELD: Final = 100
_held: list[int] = []


def content(seed: int, number: int) -> bytes:
    """What file `number` holds: mostly small, now and then several blocks."""
    chance = random.Random(seed * 1_000_003 + number)
    size = chance.choice((0, 10, 5_000, 30_000, 300_000)) if number % 50 else 1_500_000
    return chance.randbytes(size)


def way(number: int) -> str:
    """How file `number` is written."""
    return WAYS[number % len(WAYS)]


def place(target: Path, number: int) -> Path:
    """Where file `number` lies."""
    return target / f"d{number % FOLDERS}" / f"f{number}"


def write(target: Path, seed: int, number: int) -> None:
    """Write one file; when this returns, the system has acknowledged it."""
    path, data = place(target, number), content(seed, number)
    how = way(number)
    first = path.with_suffix(".part") if how == "rename" else path
    half = len(data) // 2
    fd = os.open(first, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        _all(fd, data[:half])
        if how == "append":
            os.fsync(fd)
        _all(fd, data[half:])
        if how == "fsync":
            os.fsync(fd)
    finally:
        if how != "fsync":
            os.close(fd)
    if how == "fsync":  # that was the acknowledgement: what the close would do must not be needed
        _held.append(fd)
        if len(_held) > HELD:
            os.close(_held.pop(0))
    if how == "rename":
        first.rename(path)


def _all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def main() -> None:
    """Copy until all is there or the mount is gone."""
    target, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with Path(sys.argv[4]).open("a", buffering=1) as journal:
        for number in range(FOLDERS):
            (target / f"d{number}").mkdir(exist_ok=True)
        for number in range(count):
            write(target, seed, number)
            journal.write(f"{number}\n")


if __name__ == "__main__":
    main()
