"""`fscore versions`: a model's versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fscore.cli import options
from fscore.cli.output import Output, columns, human
from fscore.cli.refs import named

if TYPE_CHECKING:
    from fscore.hub.reports import VersionInfo

EXAMPLES: Final = "fscore versions VOLUME nlp/minilm"


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
) -> None:
    """List a model's versions with their state, size and aliases."""
    from fscore.hub.registry import Registry
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        found = Registry(opened).versions(named(model, team), user)
    Output(as_json=as_json).result(found, lambda: lines(found))


def lines(found: list[VersionInfo]) -> list[str]:
    """One line a version."""
    rows = [
        (
            version.version,
            version.state,
            human(version.bytes) if version.present else "-",
            version.tensors,
            version.uploader,
            version.created_at[:19].replace("T", " "),
            ", ".join(version.aliases) or "-",
            ", ".join(layout.name for layout in version.layouts) or "-",
        )
        for version in found
    ]
    return columns(
        rows, ("VERSION", "STATE", "SIZE", "TENSORS", "BY", "AT (UTC)", "ALIASES", "LAYOUTS"), right=(0, 2, 3)
    )
