"""`fscore validate`: the release checks over a version."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.progress import shown
from fscore.cli.refs import versioned

EXAMPLES: Final = "fscore validate VOLUME nlp/minilm@1"


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept pickle files; nothing in them is executed.")
    ] = False,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Check a version's tensors, files and config.

    The result stays with a draft and is shown by `fscore show`. Nothing is executed. Exit code 1 when a check that
    matters fails.
    """
    from fscore.hub.formats.source import VolumeSource
    from fscore.hub.lifecycle import UNDECIDED
    from fscore.hub.registry import Registry
    from fscore.hub.validate.run import validate
    from fscore.volume import open_volume

    with open_volume(volume) as opened, shown(progress, quiet=quiet) as bars:
        registry = Registry(opened)
        info = registry.show(versioned(model, team), user)
        result = validate(VolumeSource(opened.files, info.path), allow_pickle=allow_pickle, progress=bars)
        if info.state in UNDECIDED:
            registry.record_validation(info.ref, result, user)

    verdict = f"{info.ref}: {'passed' if result.success else 'failed'}"
    Output(as_json=as_json, quiet=quiet).report(result, lambda: [*result.lines(), verdict])
    if not result.success:
        raise typer.Exit(1)
