"""`fscore summary`: how much lies below a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, fields, human
from fscore.cli.paths import inside

if TYPE_CHECKING:
    from fscore.admin.summary import TreeSize

EXAMPLES: Final = "fscore summary VOLUME /models"


def command(
    volume: options.Volume,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Directory inside the volume.")] = "/",
    *,
    depth: Annotated[int, typer.Option(min=0, help="Levels of directories to list too.")] = 0,
    top: Annotated[int, typer.Option(min=1, help="How many of the largest of each level.")] = 10,
    as_json: options.Json = False,
) -> None:
    """Count the files, directories and bytes below a directory."""
    from fscore.admin.summary import summary
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        report = summary(opened, inside(path), depth=depth, top=top)
    pairs = [
        ("path", inside(path)),
        ("files", report.files),
        ("directories", report.dirs),
        ("size", f"{report.size} ({human(report.size)})"),
        ("space", f"{report.space} ({human(report.space)})"),
    ]
    Output(as_json=as_json).result(report, lambda: [*fields(pairs), *tree(report)])


def tree(report: TreeSize, indent: int = 0) -> list[str]:
    """The largest children, below each other."""
    lines: list[str] = []
    for child in report.children:
        lines.append(f"{'  ' * indent}{human(child.space):>12}  {child.path} ({child.files} files)")
        lines += tree(child, indent + 1)
    return lines
