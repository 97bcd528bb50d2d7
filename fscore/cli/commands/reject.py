"""`fscore reject`: the decision on a version that waits for it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output
from fscore.cli.refs import versioned

EXAMPLES: Final = 'fscore reject VOLUME nlp/minilm@1 --reason "worse on long questions"'


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.", show_default=False)],
    digest: Annotated[str, typer.Option(help="Refuse if the version is not exactly this one.")] = "",
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say no to a version that waits for a decision.

    Its files are removed; the reason stays in the log.

    Nobody decides on a version they brought themselves. The first decision stands, whether it came from here, from
    Airflow's Required Actions or from its REST API.
    """
    from fscore.hub.approval import decide
    from fscore.volume import open_volume

    ref = versioned(model, team)
    with open_volume(volume) as opened:
        report = decide(opened, ref, "reject", by=user, reason=reason, digest=digest)
    Output(as_json=as_json, quiet=quiet).report(report, lambda: [f"{report.ref}: reject by {report.by} at {report.at}"])
