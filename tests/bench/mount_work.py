"""What the mount bench does to a directory: each function takes one, works there as a program would, gives a figure."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
PATTERN: Final = random.Random(7).randbytes(8 * MIB + 4096)
SETTLE_S: Final = 1.2
"""Longer than entries and attributes are believed, so that a stat asks again."""

PACKAGES: Final = ("numpy", "numpy.libs", "pandas", "scipy", "scipy.libs", "dateutil", "tzdata", "six.py")


@contextmanager
def seconds() -> Iterator[Callable[[], float]]:
    """How long the body has taken so far, and at the end."""
    start = time.perf_counter()
    end: list[float] = []
    yield lambda: (end[0] if end else time.perf_counter()) - start
    end.append(time.perf_counter())


def names(base: Path, count: int) -> dict[str, float]:
    """Operations a second on the names of `count` empty files, one thread: create, stat, rename, unlink."""
    folder = base / "names"
    folder.mkdir()
    paths = [f"{folder}/file-{number:06}" for number in range(count)]
    rates: dict[str, float] = {}
    with seconds() as took:
        for path in paths:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    rates["create"] = count / took()
    time.sleep(SETTLE_S)
    with seconds() as took:
        for path in paths:
            os.stat(path)  # noqa: PTH116  the plain call is what is timed
    rates["stat"] = count / took()
    with seconds() as took:
        for path in paths:
            os.rename(path, path + "-renamed")  # noqa: PTH104
    rates["rename"] = count / took()
    with seconds() as took:
        for path in paths:
            os.unlink(path + "-renamed")  # noqa: PTH108
    rates["unlink"] = count / took()
    folder.rmdir()
    return rates


def fill_folder(base: Path, count: int) -> None:
    """The directory that `listing` reads, made once."""
    folder = base / "listed"
    if not folder.exists():
        folder.mkdir()
        for number in range(count):
            os.close(os.open(f"{folder}/entry-{number:06}", os.O_CREAT | os.O_WRONLY, 0o644))


def listing(base: Path) -> dict[str, float]:
    """Entries a second of a listing, and of one with the attributes of every entry."""
    time.sleep(SETTLE_S)
    with seconds() as took:
        count = sum(1 for _ in os.scandir(base / "listed"))
    rates = {"readdir": count / took()}
    time.sleep(SETTLE_S)
    with seconds() as took:
        sizes = sum(entry.stat(follow_symlinks=False).st_nlink for entry in os.scandir(base / "listed"))
    rates["readdir + stat"] = sizes / took()
    return rates


def make_tree(place: Path, files: int) -> Path:
    """A tree of small files on a local disk, the same every time."""
    top, rng = place / "small-files", random.Random(11)
    for number in range(files):
        folder = top / f"d{number % 37}" / f"e{number % 11}"
        folder.mkdir(parents=True, exist_ok=True)
        start = rng.randrange(MIB)
        (folder / f"f{number}").write_bytes(PATTERN[start : start + int(rng.lognormvariate(7.6, 1.2))])
    return top


def copy_tree(base: Path, tree: Path) -> dict[str, float]:
    """Files a second of `cp -r` of a local tree onto the mount."""
    count = sum(len(found) for _, _, found in os.walk(tree))
    with seconds() as took:
        subprocess.run(["cp", "-r", str(tree), str(base / "copied")], check=True)
    rate = count / took()
    shutil.rmtree(base / "copied")
    return {"cp -r small files": rate}


def write_file(path: Path, mib: int) -> dict[str, float]:
    """MB/s of writing one file in requests of 1 MiB until close has returned."""
    path.unlink(missing_ok=True)
    view = memoryview(PATTERN)
    with seconds() as took, path.open("wb", buffering=0) as file:
        for number in range(mib):
            at = number * 4096 % (7 * MIB)
            file.write(view[at : at + MIB])
    return {"write": mib * MIB / took() / 1e6}


def read_file(path: Path, request: int) -> float:
    """MB/s of reading one file from end to end with read(2)."""
    buffer = bytearray(request)
    total = 0
    with seconds() as took, path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total / took() / 1e6


def map_file(path: Path) -> float:
    """MB/s of copying one file out of a private mapping of it."""
    target = bytearray(4 * MIB)
    with seconds() as took, path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        total = len(mapped)
        with memoryview(mapped) as view:
            for at in range(0, total, len(target)):
                piece = view[at : at + len(target)]
                target[: len(piece)] = piece
                piece.release()
    return total / took() / 1e6


def reads(path: Path, forget: Callable[[Path], None]) -> dict[str, float]:
    """The three ways through a file that is warm already; `forget` comes before each."""
    found: dict[str, float] = {}
    for request, name in ((128 << 10, "read 128 KiB"), (MIB, "read 1 MiB")):
        forget(path)
        found[name] = read_file(path, request)
    forget(path)
    return found | {"mmap": map_file(path)}


def random_reads(path: Path, count: int, seed: int) -> dict[str, float]:
    """Microseconds of a read of 4 KiB at a random place, the median."""
    rng, size = random.Random(seed), path.stat().st_size
    took: list[float] = []
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(count):
            at = rng.randrange(size // 4096) * 4096
            start = time.perf_counter()
            os.pread(file.fileno(), 4096, at)
            took.append(time.perf_counter() - start)
    return {"random 4 KiB p50": statistics.median(took) * 1e6}


def check_file(path: Path, mib: int) -> None:
    """The bytes that write_file wrote are there. ValueError if not."""
    with path.open("rb", buffering=0) as file:
        for number in range(0, mib, 13):
            at = number * 4096 % (7 * MIB)
            if os.pread(file.fileno(), MIB, number * MIB) != PATTERN[at : at + MIB]:
                raise ValueError(f"{path}: wrong bytes in MiB {number}")


def fill_packages(base: Path) -> None:
    """Copies of pandas, scipy and what they need, made once."""
    target = base / "packages"
    if not target.exists():
        import pandas as pd

        source = Path(pd.__file__).parent.parent
        target.mkdir()
        for name in PACKAGES:
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("tests"))
            elif (source / name).exists():
                shutil.copyfile(source / name, target / name)


def import_packages(base: Path) -> dict[str, float]:
    """Seconds until a fresh interpreter has imported pandas and scipy from the mount."""
    code = f"import sys; sys.path.insert(0, {str(base / 'packages')!r}); import pandas, scipy; print(pandas.__file__)"
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    with seconds() as took:
        done = subprocess.run(
            [sys._base_executable, "-S", "-c", code],  # type: ignore[attr-defined]  # the interpreter beneath a venv
            capture_output=True,
            text=True,
            check=True,
            env=env,
        )
    if not done.stdout.startswith(str(base)):
        raise ValueError(f"pandas came from {done.stdout}")
    return {"import pandas, scipy": took()}


def forget_pages(path: Path) -> None:
    """Drop what the kernel holds of this file itself, not of what lies below the mount."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
