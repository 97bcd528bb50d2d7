"""How much is under a path: totals, and the largest children."""

from __future__ import annotations

import msgspec

from fscore.domain.attr import space_of
from fscore.files.stat import Stat
from fscore.runtime.progress import NoProgress, Progress
from fscore.volume import Volume


class TreeSize(msgspec.Struct, frozen=True):
    """Totals of a tree, itself included. `size` is the files' lengths, `space` what the volume is charged.

    `children` are the direct children, largest first, as deep as was asked.
    """

    path: str
    kind: str
    size: int
    space: int
    files: int
    dirs: int
    children: list[TreeSize] = []


def summary(
    volume: Volume, path: str = "/", *, depth: int = 0, top: int = 10, progress: Progress | None = None
) -> TreeSize:
    """Totals below a path, and `depth` levels of its `top` largest children."""
    progress = progress or NoProgress()
    task = progress.start(f"summary {path}", None, "entries")
    try:
        return _measure(volume, volume.files.stat(path, follow=False), depth, top, progress, task)
    finally:
        progress.finish(task)


def _measure(volume: Volume, top_stat: Stat, depth: int, top: int, progress: Progress, task: int) -> TreeSize:
    kind = top_stat.kind.name.lower()
    own = space_of(top_stat.kind, top_stat.size)
    progress.advance(task, 1)
    if not top_stat.is_dir:
        size = top_stat.size if top_stat.is_file else 0
        return TreeSize(top_stat.path, kind, size, own, files=1, dirs=0)
    children = [_measure(volume, stat, depth - 1, top, progress, task) for stat in volume.files.scandir(top_stat.path)]
    shown = sorted(children, key=lambda child: (-child.space, child.path))[:top] if depth > 0 else []
    return TreeSize(
        top_stat.path,
        kind,
        size=sum(child.size for child in children),
        space=own + sum(child.space for child in children),
        files=sum(child.files for child in children),
        dirs=1 + sum(child.dirs for child in children),
        children=shown,
    )
