"""`fscore gc`: what nobody needs any more."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, human
from fscore.cli.progress import shown

EXAMPLES: Final = "fscore gc VOLUME, then fscore gc VOLUME --delete"


def command(
    volume: options.Volume,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what was found.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Objects deleted at the same time.")] = 8,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Find objects and records that nobody needs any more.

    Crashes leave them behind. Changes nothing without --delete; what is younger than an hour is left alone, and so are
    uploads of models that somebody may still go on with, for a week.
    """
    import msgspec

    from fscore.admin.gc import gc
    from fscore.domain.caller import Caller
    from fscore.hub import staging
    from fscore.runtime.clock import SystemClock
    from fscore.volume import open_volume

    with open_volume(volume, read_only=not delete) as opened, shown(progress, quiet=quiet) as bars:
        files = opened.as_caller(Caller.root())
        left = list(staging.abandoned(files, SystemClock().now_ns()))
        for path in left if delete else ():
            staging.remove_tree(files, path)
        report = gc(opened, delete=delete, threads=threads, progress=bars)
        report = msgspec.structs.replace(report, abandoned_uploads=len(left))

    def lines() -> list[str]:
        leaked = f"{report.leaked_objects} leaked objects ({human(report.leaked_bytes)})"
        lost = f"{report.lost_nodes} lost nodes, {report.lost_chunks} lost chunk lists"
        rests = f"{report.detached_trees} dead clones, {report.unfinished_files} unfinished files"
        uploads = f"{report.abandoned_uploads} abandoned uploads of models"
        found = [
            f"{report.objects} objects ({human(report.object_bytes)}) of {report.slices} slices",
            f"{'removed' if delete else 'found'}: {leaked}, {lost}, {rests}, {uploads}",
        ]
        if report.skipped_objects:
            found.append(
                f"left alone: {report.skipped_objects} objects ({human(report.skipped_bytes)}) younger than an hour"
            )
        waiting = f"{report.pending_slices} slices, {report.pending_files} files, {report.parked_slices} parked slices"
        return [*found, f"waiting for their deletion: {waiting}"]

    Output(as_json=as_json, quiet=quiet).report(report, lines)
