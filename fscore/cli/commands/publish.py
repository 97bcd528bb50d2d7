"""`fscore publish`: a version becomes visible."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.refs import versioned

EXAMPLES: Final = "fscore publish VOLUME nlp/minilm@1 --alias prod"


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    alias: Annotated[str, typer.Option(help="A name that is to point to it.")] = "",
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a version visible to every reader, whole and in one step.

    From then on nobody can change its files. Where the team's policy asks for approval, only an approved version is
    published.
    """
    from fscore.hub.registry import Registry
    from fscore.volume import open_volume

    ref = versioned(model, team)
    with open_volume(volume) as opened:
        info = Registry(opened).publish(ref, user, alias=alias)
    Output(as_json=as_json, quiet=quiet).report(info, lambda: [f"{info.ref} is published: {info.path}"])
