"""`fscore log`: who did what to a model, and is the record whole?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import Output, columns
from fscore.cli.refs import named

if TYPE_CHECKING:
    from fscore.hub.log import Event

EXAMPLES: Final = """fscore log VOLUME nlp/minilm

fscore log VOLUME nlp/minilm --verify"""


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the hash chain instead; exit code 1 if it is broken.")
    ] = False,
    team: options.Team = "",
    as_json: options.Json = False,
) -> None:
    """Show a model's audit log, or one version's part of it.

    Entries are only ever added, each bound to the one before by its hash.
    """
    from fscore.domain.errors import HubError
    from fscore.hub.registry import Registry
    from fscore.volume import open_volume

    ref = named(model, team)
    out = Output(as_json=as_json)
    with open_volume(volume, read_only=True) as opened:
        registry = Registry(opened)
        events = registry.log(ref)
        if not events:
            raise HubError(f"no such model: {ref.name}", kind="not_found", hint="see `fscore models`")
        problems = registry.verify_log(ref) if verify else []
        number = registry.ledger.numbered(ref).version if ref.version or ref.alias else None
    if verify:
        report = {"events": len(events), "problems": problems}
        out.result(report, lambda: problems or [f"{len(events)} events, the chain is whole"])
        if problems:
            raise typer.Exit(1)
        return
    chosen = [event for event in events if number is None or event.version == number]
    out.result(chosen, lambda: lines(chosen))


def lines(events: list[Event]) -> list[str]:
    """One line an event."""
    rows = [
        (
            event.seq,
            event.ts[:19].replace("T", " "),
            event.actor,
            event.action,
            event.object,
            event.after or "-",
            told(event),
        )
        for event in events
    ]
    return columns(rows, ("SEQ", "AT (UTC)", "BY", "ACTION", "OBJECT", "STATE", ""), right=(0,))


def told(event: Event) -> str:
    """What people want to know of an event's details."""
    return ", ".join(
        f"{key}={event.extra[key]}" for key in ("reason", "alias", "layout", "region") if event.extra.get(key)
    )
