"""`fscore summary`: how much lies below a directory."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, fields, human
from fscore.cli.paths import inside

EXAMPLES: Final = "fscore summary VOLUME /models"


def command(
    volume: options.Volume,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Directory inside the volume.")] = "/",
    *,
    as_json: options.Json = False,
) -> None:
    """Count the files, directories and bytes below a directory."""
    from fscore.admin.summary import summary
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        report = summary(opened, inside(path))
    pairs = [
        ("path", inside(path)),
        ("files", report.files),
        ("directories", report.dirs),
        ("length", f"{report.length} ({human(report.length)})"),
        ("space", f"{report.space} ({human(report.space)})"),
    ]
    Output(as_json=as_json).result(report, lambda: fields(pairs))
