"""`fscore mv`: rename within a volume."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.paths import inside, landing

EXAMPLES: Final = "fscore mv VOLUME /data/old.bin /data/new.bin"


def command(
    volume: options.Volume,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Path inside the volume.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="New path, or a directory to move into.", show_default=False)
    ],
    *,
    no_replace: Annotated[bool, typer.Option("--no-replace", "-n", help="Refuse if TARGET exists.")] = False,
    exchange: Annotated[bool, typer.Option("--exchange", help="Swap SOURCE and TARGET in one step.")] = False,
) -> None:
    """Rename a file or a directory: one step, no bytes move."""
    from fscore.volume import open_volume

    if no_replace and exchange:
        raise WrongUse("--no-replace and --exchange exclude each other")
    with open_volume(volume) as opened:
        files = opened.files
        new = inside(target) if exchange else landing(files, inside(source), target)
        files.rename(inside(source), new, replace=not no_replace, exchange=exchange)
