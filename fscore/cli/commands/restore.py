"""`fscore restore`: put back what was removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output

if TYPE_CHECKING:
    from fscore.admin.trash import Restored

EXAMPLES: Final = """fscore trash list VOLUME

fscore restore VOLUME 2026-03-01-14

fscore restore VOLUME 2026-03-01-14 --put-back"""


def command(
    volume: options.Volume,
    hours: Annotated[
        list[str], typer.Argument(metavar="HOUR...", help="UTC hours, as `trash list` shows them.", show_default=False)
    ],
    *,
    put_back: Annotated[bool, typer.Option("--put-back", help="Do it, instead of saying what would be done.")] = False,
    as_json: options.Json = False,
) -> None:
    """Put what was removed in these hours back where it was; without --put-back only say what would happen.

    Nothing is replaced: where a name is taken, the entry stays in the trash and is shown as a conflict. Exits with 1
    when something could not be put back.
    """
    from fscore.admin import trash
    from fscore.volume import open_volume

    with open_volume(volume, read_only=not put_back) as opened:
        report = trash.restore(opened, hours, put_back=put_back)
    Output(as_json=as_json).result(report, lambda: lines(report, done=put_back))
    if report.conflicts or report.lost or report.failed:
        raise typer.Exit(1)


def lines(report: Restored, *, done: bool) -> list[str]:
    """What happened to each entry, one line each."""
    word = "restored" if done else "would restore"
    found = [f"{word} {path}" for path in report.restored]
    found += [f"conflict: {path} is there already" for path in report.conflicts]
    found += [f"lost: {text}" for text in report.lost]
    found += [f"failed: {text}" for text in report.failed]
    return found or ["nothing lies there"]
