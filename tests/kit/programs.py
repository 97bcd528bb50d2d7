"""Trees for real programs to work on, and the comparison of two of them."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import stat
import sysconfig
from pathlib import Path

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip, and say so, where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def stdlib_sample(place: Path, count: int) -> Path:
    """Copies of the first `count` modules of the standard library, with their folders."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for found in sorted(library.rglob("*.py"))[:count]:
        target = place / found.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(found.read_bytes())
    return place


def many_files(place: Path, count: int, seed: int = 11) -> Path:
    """A tree of `count` files of 0 to 30 kB in folders of fifty, with links and odd names among them."""
    dice = random.Random(seed)
    for number in range(count):
        folder = place / f"{number // 2500:02d}" / f"{number // 50:04d}"
        if number % 50 == 0:
            folder.mkdir(parents=True)
            (folder / "link").symlink_to("../elsewhere")
            (folder / "n\xe4me with\nnewline").write_bytes(b"odd")
        path = folder / f"file-{number}"
        path.write_bytes(dice.randbytes(dice.choice((0, 1, 500, 4096, 30_000))))
        path.chmod(dice.choice((0o600, 0o644, 0o755)))
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number))
        if number % 50 == 49:
            os.link(path, folder / "hard")
    return place


def same_tree(left: Path, right: Path, leave_out: frozenset[str] | set[str] = frozenset()) -> None:
    """Both trees hold the same names, kinds, modes, targets and bytes."""
    assert _listing(left, leave_out) == _listing(right, leave_out)
    for path, (kind, *_) in _listing(left, leave_out).items():
        if stat.S_ISREG(kind):
            assert filecmp.cmp(left / path, right / path, shallow=False), path


def _listing(root: Path, leave_out: frozenset[str] | set[str]) -> dict[Path, tuple[int, int, str]]:
    found: dict[Path, tuple[int, int, str]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in leave_out]
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            target = str(path.readlink()) if path.is_symlink() else ""
            found[path.relative_to(root)] = (status.st_mode, size, target)
    return found
