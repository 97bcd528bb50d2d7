"""`fscore pull`: a version, or one rank of it, to this machine."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.progress import shown
from fscore.cli.refs import named
from fscore.cli.texts import pulled

EXAMPLES: Final = """fscore pull VOLUME nlp/minilm@1 ./minilm

fscore pull VOLUME llm/llama:prod ./rank --rank tp0-pp1"""


def command(
    volume: options.Volume,
    model: options.Model,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where the files go; made if it is missing.")],
    *,
    rank: Annotated[str, typer.Option(metavar="tpX-ppY", help="Only this rank of a split version.")] = "",
    layout: Annotated[
        str, typer.Option(metavar="tpN-ppN", help="This split, whole; or to tell two splits apart.")
    ] = "",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare every file with the manifest's SHA-256.")
    ] = True,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Copy a version to this machine, checked against its manifest.

    An interrupted pull goes on where it stopped; files that are already there and right are not read again.
    """
    from fscore.hub.pull import pull
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened, shown(progress, quiet=quiet) as bars:
        report = pull(opened, named(model, team), directory, rank=rank, layout=layout, verify=verify, progress=bars)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: pulled(report))
