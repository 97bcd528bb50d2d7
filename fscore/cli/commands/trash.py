"""`fscore trash`: what lies in the trash, and deleting it for good."""

from __future__ import annotations

import enum
import sys
from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output, columns, human

EXAMPLES: Final = """fscore trash list VOLUME

fscore trash empty VOLUME 2026-03-01-14 --yes

fscore restore VOLUME 2026-03-01-14 --put-back"""


class Action(enum.StrEnum):
    """What to do."""

    LIST = "list"
    EMPTY = "empty"


def command(
    action: Annotated[Action, typer.Argument(metavar="list|empty", show_default=False)],
    volume: options.Volume,
    hours: Annotated[
        list[str] | None, typer.Argument(metavar="[HOUR...]", help="UTC hours, as `list` shows them.")
    ] = None,
    *,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """List the trash by hours, or delete hours of it (without HOUR all) for good.

    `fscore restore` puts things back. Deleting asks first; without a terminal it needs --yes.
    """
    from fscore.admin import trash
    from fscore.volume import open_volume

    out = Output(as_json=as_json)
    if action is Action.LIST:
        with open_volume(volume, read_only=True) as opened:
            found = [hour for hour in trash.list_trash(opened) if not hours or hour.hour in hours]
        rows = [(hour.hour, hour.entries, human(hour.space)) for hour in found]
        out.result(
            found, lambda: columns(rows, ("Hour", "Entries", "Space"), right=(1, 2)) if rows else ["the trash is empty"]
        )
        return
    if not yes and not asked(hours or []):
        raise typer.Exit(1)
    with open_volume(volume) as opened:
        gone = trash.empty(opened, hours or [])
    out.result({"deleted": gone}, lambda: [f"deleted {gone} entries"])


def asked(hours: list[str]) -> bool:
    """The user's answer; without a terminal there is nobody to ask."""
    what = ", ".join(hours) or "the whole trash"
    if not sys.stdin.isatty():
        raise WrongUse(f"{what} would be deleted for good: --yes does it without asking")
    return typer.confirm(f"delete {what} for good?", err=True)
