"""`fscore fsck`: is every record and every block where it must be?"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output

EXAMPLES: Final = "fscore fsck VOLUME && echo sound"


def command(
    volume: options.Volume,
    *,
    objects: Annotated[
        bool, typer.Option("--objects/--no-objects", help="Look for every block in the object storage.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Check that every record and every block is where it must be.

    Changes nothing. Problems are what readers would miss (exit code 1). Leaks take space and harm nobody.

    Run it while nobody writes: records are not all read at one moment. What it finds it looks at a second time, and
    leaves out what is gone by then; what is changing is a note.
    """
    from fscore.admin.fsck import fsck
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        report = fsck(opened, objects=objects)

    def lines() -> list[str]:
        found = [str(problem) for problem in report.problems]
        found += [f"leak, {leak}" for leak in report.leaks]
        found += [f"note, {note}" for note in report.notes]
        counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
        return [*found, f"{'sound' if not report.problems else f'{len(report.problems)} problems'}: {counts}"]

    Output(as_json=as_json).result(report, lines)
    if report.problems:
        raise typer.Exit(1)
