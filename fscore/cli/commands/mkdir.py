"""`fscore mkdir`: make directories."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.paths import inside

EXAMPLES: Final = "fscore mkdir VOLUME -p /data/raw"


def command(
    volume: options.Volume,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Directories to make.", show_default=False)],
    *,
    parents: Annotated[bool, typer.Option("--parents", "-p", help="Parents too; no error if it exists.")] = False,
) -> None:
    """Make directories."""
    from fscore.volume import open_volume

    with open_volume(volume) as opened:
        for path in paths:
            opened.files.mkdir(inside(path), parents=parents, exist_ok=parents)
