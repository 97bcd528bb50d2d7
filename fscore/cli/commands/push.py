"""`fscore push`: a local directory becomes a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output, fields
from fscore.cli.progress import shown
from fscore.cli.refs import named

EXAMPLES: Final = """fscore push VOLUME ./minilm nlp/minilm --purpose "search in the help centre"

fscore push VOLUME ./llama-ft llm/llama --base llm/llama@1 --alias candidate"""


def command(
    volume: options.Volume,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="The model's files, as they are to lie in the version.")
    ],
    model: options.Model,
    *,
    alias: Annotated[str, typer.Option(help="A name for this version, moved when it is published: prod.")] = "",
    purpose: Annotated[str, typer.Option(help="What it is for; kept in the manifest.")] = "",
    base: Annotated[str, typer.Option(metavar="MODEL", help="The version or model it came from.")] = "",
    description: Annotated[str, typer.Option(help="What people should know.")] = "",
    license_: Annotated[str, typer.Option("--license", metavar="SPDX", help="Its licence: apache-2.0.")] = "",
    validate: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Check tensors, files and config first.")
    ] = True,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept pickle files; they are never opened.")
    ] = False,
    dry_run: options.DryRun = False,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Bring a model into the volume as a new version, not yet visible to readers.

    Files and tensors that the team already has are shared, not sent again. An interrupted push goes on where it stopped.
    `fscore publish` makes the version visible.
    """
    from fscore.hub.push import push
    from fscore.volume import open_volume

    ref = named(model, team)
    if not Path(directory).is_dir():
        raise WrongUse(f"{directory} is no directory on this machine")
    with open_volume(volume, read_only=dry_run) as opened, shown(progress, quiet=quiet) as bars:
        report = push(opened, directory, ref)
    pairs = [("version", report.path)]
    Output(as_json=as_json, quiet=quiet).report(report, lambda: fields(pairs))
