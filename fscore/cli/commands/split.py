"""`fscore split`: a layout for tensor and pipeline parallel loaders."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.progress import shown
from fscore.cli.refs import versioned
from fscore.cli.texts import laid_out

EXAMPLES: Final = """fscore split VOLUME llm/llama@1 --tp 2 --pp 2

fscore split VOLUME llm/mixtral@1 --tp 2 --ep 4"""


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    tp: Annotated[int, typer.Option(min=1, help="Tensor parallel ranks.")] = 1,
    pp: Annotated[int, typer.Option(min=1, help="Pipeline parallel stages.")] = 1,
    ep: Annotated[int, typer.Option(min=1, help="Expert parallel ranks (mixtures of experts).")] = 1,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.ShowProgress = None,
) -> None:
    """Cut a version for tensor, pipeline and expert parallel ranks.

    Each rank becomes a folder that transformers and safetensors open. What lies in one piece is shared with the
    version; only tensors cut across their rows take space.
    """
    from fscore.hub.split_version import split_version
    from fscore.volume import open_volume

    with open_volume(volume) as opened, shown(progress, quiet=quiet) as bars:
        report = split_version(opened, versioned(model, team), tp=tp, pp=pp, ep=ep, actor=user, progress=bars)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: laid_out(report))
