"""`fscore cat`: bytes of files to stdout."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.paths import inside

EXAMPLES: Final = """fscore cat VOLUME /models/nlp/minilm/1/config.json

fscore cat VOLUME /big.bin --offset 4096 --length 512"""

PIECE: Final = 4 << 20


def command(
    volume: options.Volume,
    targets: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files inside the volume.", show_default=False)
    ],
    *,
    offset: Annotated[int, typer.Option(min=0, help="Begin at this byte.")] = 0,
    length: Annotated[
        int | None, typer.Option(min=0, help="At most this many bytes of each file.", show_default=False)
    ] = None,
) -> None:
    """Write the bytes of files to stdout, as they come."""
    from fscore.volume import open_volume

    stdout = sys.stdout.buffer
    with open_volume(volume, read_only=True) as opened:
        for path in map(inside, targets):
            with opened.files.open(path, "rb") as file:
                file.seek(offset)
                left = length
                while left is None or left > 0:
                    data = file.read(PIECE if left is None else min(PIECE, left))
                    if not data:
                        break
                    stdout.write(data)
                    left = None if left is None else left - len(data)
    stdout.flush()
