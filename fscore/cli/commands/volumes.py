"""`fscore volumes`: the names that stand for META-URLs on this machine."""

from __future__ import annotations

from typing import Final

from fscore.cli import options
from fscore.cli.output import Output, columns

EXAMPLES: Final = "fscore volumes"


def command(*, as_json: options.Json = False) -> None:
    """List the names that stand for META-URLs.

    They are kept in $FSCORE_VOLUMES, or ~/.config/fscore/volumes.toml. Each name is a table with `meta = "META-
    URL"`; passwords in a URL are not printed.
    """
    from fscore.volume import volume_names

    names = volume_names()
    rows = [(name, meta) for name, meta in names.items()]
    Output(as_json=as_json).result(
        names, lambda: columns(rows, ("NAME", "META-URL")) if rows else ["no names are configured"]
    )
