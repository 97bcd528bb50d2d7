"""Is the volume sound? Reads everything, changes nothing.

A problem is a lie or a loss: a block that is missing, a count that would delete data too early, a tree that does not
hang together. A leak costs space until gc; a note is a drift that the format allows (volume-format.md 2.5, 2.9, 2.10).
"""

from __future__ import annotations

from fscore.admin.fsck_data import DataCheck
from fscore.admin.fsck_tree import TreeCheck
from fscore.admin.report import Findings, FsckReport, Problem
from fscore.runtime.progress import NoProgress, Progress
from fscore.volume import Volume

__all__ = ["FsckReport", "Problem", "fsck"]


def fsck(volume: Volume, *, objects: bool = True, progress: Progress | None = None) -> FsckReport:
    """Check a volume that nobody writes meanwhile; without `objects` the store is not asked."""
    progress = progress or NoProgress()
    if not volume.options.read_only:
        volume.sync()
    engine = volume.meta.engine
    findings = Findings()
    task = progress.start("check", 2, "steps")
    tree = TreeCheck(engine, volume.setting, findings)
    tree.run()
    progress.advance(task, 1)
    DataCheck(engine, volume.blocks, volume.setting, findings).run(tree.nodes, objects=objects)
    progress.advance(task, 1)
    progress.finish(task)
    return findings.report()
