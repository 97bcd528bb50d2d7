"""Paths as users write them: a leading colon marks the volume's side; a trailing slash or a directory means "into"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.files import paths

if TYPE_CHECKING:
    from fscore.files.filesystem import Filesystem


def inside(path: str) -> str:
    """The path in the volume: `:/a`, `/a` and `a` are the same."""
    return paths.normal(path.removeprefix(":"))


def is_inside(path: str) -> bool:
    """Whether a colon marks this argument as the volume's side."""
    return path.startswith(":")


def landing(files: Filesystem, source: str, target: str) -> str:
    """Where `source` ends up: in `target` when that is a directory, else as `target`."""
    into = inside(target)
    if target.endswith("/") or files.is_dir(into):
        return paths.normal(f"{into}/{paths.name_of(source)}")
    return into
