"""`fscore alias`: a name for a version."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.refs import versioned

EXAMPLES: Final = "fscore alias VOLUME nlp/minilm@2 prod"


def command(
    volume: options.Volume,
    model: options.Model,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="The name: prod, latest.")],
    *,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let a name point to a published version.

    Readers see the old or the new one, nothing between.
    """
    from fscore.hub.registry import Registry
    from fscore.volume import open_volume

    ref = versioned(model, team)
    with open_volume(volume) as opened:
        report = Registry(opened).set_alias(ref, name, user)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: [f"{ref.team}/{ref.model}:{name} is {ref}"])
