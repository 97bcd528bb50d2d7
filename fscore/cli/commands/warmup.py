"""`fscore warmup`: a version's blocks into this machine's cache."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output
from fscore.cli.progress import shown
from fscore.cli.refs import named
from fscore.cli.texts import warmed

EXAMPLES: Final = "fscore warmup VOLUME llm/llama:prod --rank tp0-pp1 --cache-dir /var/cache/fscore"


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    rank: Annotated[str, typer.Option(metavar="tpX-ppY", help="Only this rank of a split version.")] = "",
    layout: Annotated[
        str, typer.Option(metavar="tpN-ppN", help="This split, whole; or to tell two splits apart.")
    ] = "",
    cache_dir: Annotated[
        str | None,
        typer.Option(envvar="FSCORE_CACHE_DIR", metavar="DIR", help="Where the cache lies.", show_default=False),
    ] = None,
    whole: Annotated[
        bool | None,
        typer.Option(
            "--whole/--blocks",
            help="Whole files, which a mount on this cache reads as fast as local ones, or blocks. "
            "[default: what volumes.toml says, else blocks]",
            show_default=False,
        ),
    ] = None,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Fill this machine's cache with a version.

    The first reader then waits for nothing. Reports the coverage.
    """
    from fscore.hub.warm import warm
    from fscore.volume import OptionChanges, open_volume

    changes: OptionChanges = {"read_only": True}
    if cache_dir:
        changes["cache_dir"] = cache_dir
    if whole is not None:
        changes["whole"] = "immutable" if whole else "off"
    with open_volume(volume, **changes) as opened, shown(progress, quiet=quiet) as bars:
        if not opened.options.cache_dir:
            raise WrongUse("there is no cache to fill: name one by --cache-dir, FSCORE_CACHE_DIR or volumes.toml")
        report = warm(opened, named(model, team), rank=rank, layout=layout, progress=bars)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: warmed(report))
    if report.bytes_failed:
        raise typer.Exit(1)
