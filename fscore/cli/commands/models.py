"""`fscore models`: which models there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, columns

if TYPE_CHECKING:
    from fscore.hub.reports import ModelInfo

EXAMPLES: Final = """fscore models VOLUME

fscore models VOLUME nlp --json"""


def command(
    volume: options.Volume,
    team: Annotated[str | None, typer.Argument(metavar="TEAM", help="Only this team's.", show_default=False)] = None,
    *,
    user: options.User,
    as_json: options.Json = False,
) -> None:
    """List models with their newest version and their aliases."""
    from fscore.hub.registry import Registry
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        found = Registry(opened).models(user, team)
    Output(as_json=as_json).result(found, lambda: lines(found))


def lines(found: list[ModelInfo]) -> list[str]:
    """One line a model."""
    rows = [
        (
            f"{model.team}/{model.model}",
            model.versions,
            model.latest or "-",
            ", ".join(f"{name}={number}" for name, number in sorted(model.aliases.items())) or "-",
        )
        for model in found
    ]
    return columns(rows, ("MODEL", "VERSIONS", "PUBLISHED", "ALIASES"), right=(1, 2)) if rows else ["no models yet"]
