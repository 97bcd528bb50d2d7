"""Is the volume sound? Reads everything, changes nothing.

A problem is a lie or a loss: a block that is missing, a count that would delete data too early, a tree that does not
hang together. A leak costs space until gc; a note is a drift that the format allows (volume-format.md 2.5, 2.9, 2.10).

Records are not read at one moment, so clients that write meanwhile look like damage. Whoever finds a problem looks a
second time: what is gone then was somebody's work, what has changed is a note, what stayed the same is a problem.
"""

from __future__ import annotations

from fscore.admin.fsck_data import DataCheck
from fscore.admin.fsck_tree import TreeCheck
from fscore.admin.report import Findings, FsckReport, Problem
from fscore.runtime.progress import NoProgress, Progress
from fscore.volume import Volume

__all__ = ["FsckReport", "Problem", "fsck"]


def fsck(volume: Volume, *, objects: bool = True, progress: Progress | None = None) -> FsckReport:
    """Check a volume, best while nobody writes; without `objects` the store is not asked."""
    progress = progress or NoProgress()
    if not volume.options.read_only:
        volume.sync()
    report = _look(volume, progress, objects=objects)
    return _confirmed(report, _look(volume, progress, objects=objects)) if report.problems else report


def _look(volume: Volume, progress: Progress, *, objects: bool) -> FsckReport:
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


def _confirmed(first: FsckReport, second: FsckReport) -> FsckReport:
    """What both looks found: as it was, a problem; with other numbers, a note, for the volume is being written."""
    before = {(one.kind, one.where): one.detail for one in (*first.problems, *first.leaks, *first.notes)}
    there = [one for one in second.problems if (one.kind, one.where) in before]
    moving = [one for one in there if before[one.kind, one.where] != one.detail]
    notes = [*second.notes, *(Problem(one.kind, one.where, f"{one.detail} (it is changing)") for one in moving)]
    return FsckReport(
        [one for one in there if one not in moving],
        [one for one in second.leaks if (one.kind, one.where) in before],
        notes,
        second.counts,
    )
