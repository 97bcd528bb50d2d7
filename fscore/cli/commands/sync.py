"""`fscore sync`: published versions to a volume elsewhere."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.progress import shown
from fscore.cli.refs import named
from fscore.cli.texts import synced

EXAMPLES: Final = """fscore sync VOLUME redis://other-cloud:6379/1

fscore sync VOLUME eu-west nlp/minilm@2 llm/llama"""


def command(
    volume: options.Volume,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The other volume: META-URL or name.", show_default=False)
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Only these; otherwise all that is published.", show_default=False),
    ] = None,
    *,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Bring published versions to another volume.

    Only missing content moves. What arrives is compared with its SHA-256 before it becomes visible. A second run
    moves nothing.
    """
    from fscore.sync.run import sync_versions
    from fscore.volume import open_volume

    refs = [named(model, team) for model in models] if models else None
    with open_volume(volume) as source, open_volume(target) as other, shown(progress, quiet=quiet) as bars:
        report = sync_versions(source, other, refs, actor=user, progress=bars)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: synced(report))
    if report.conflicts:
        raise typer.Exit(1)
