"""`fscore compact`: many small slices become few large ones."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, human
from fscore.cli.paths import inside
from fscore.cli.progress import shown

EXAMPLES: Final = "fscore compact VOLUME /logs"


def command(
    volume: options.Volume,
    path: options.Path,
    *,
    threads: Annotated[int, typer.Option(min=1, help="Chunks compacted at the same time.")] = 4,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Rewrite chunks of many slices as chunks of one.

    Reads get faster, and small objects fewer. Immutable files stay as they are: they share their slices with others.
    """
    from fscore.admin.compact import compact
    from fscore.volume import open_volume

    with open_volume(volume) as opened, shown(progress, quiet=quiet) as bars:
        report = compact(opened, inside(path), threads=threads, progress=bars)

    def lines() -> list[str]:
        before, after = report.records_before, report.records_after
        found = f"{report.compacted} of {report.chunks} chunks of {report.files} files compacted: {before} slices"
        left = f", {report.immutable} immutable files left alone" if report.immutable else ""
        return [f"{found} became {after}, {human(report.bytes_written)} written{left}"]

    Output(as_json=as_json, quiet=quiet).report(report, lines)
