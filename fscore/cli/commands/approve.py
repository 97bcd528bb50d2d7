"""`fscore approve`: the decision on a version that waits for it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.refs import versioned

EXAMPLES: Final = 'fscore approve VOLUME nlp/minilm@1 --reason "evaluated on the help centre set"'


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    digest: Annotated[str, typer.Option(help="Refuse if the version is not exactly this one.")] = "",
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say yes to a version that waits for a decision.

    It is published by whoever asked, or by `fscore publish`.

    Nobody decides on a version they brought themselves. The first decision stands, whether it came from here, from
    Airflow's Required Actions or from its REST API.
    """
    from fscore.hub.approval import decide
    from fscore.volume import open_volume

    ref = versioned(model, team)
    with open_volume(volume) as opened:
        report = decide(opened, ref, "approve", by=user, reason=reason, digest=digest)
    Output(as_json=as_json, quiet=quiet).report(
        report, lambda: [f"{report.ref}: approve by {report.by} at {report.at}"]
    )
