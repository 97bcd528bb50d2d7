"""`fscore show`: everything about one version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fscore.cli import options
from fscore.cli.output import Output, fields, human
from fscore.cli.refs import named

if TYPE_CHECKING:
    from fscore.hub.reports import VersionInfo

EXAMPLES: Final = """fscore show VOLUME nlp/minilm@1

fscore show VOLUME nlp/minilm:prod --json"""


def command(
    volume: options.Volume,
    model: options.Model,
    *,
    user: options.User,
    team: options.Team = "",
    as_json: options.Json = False,
) -> None:
    """Show all about a version.

    State, digest, where it lies, files, tensors, layouts, aliases, checks, decision.
    """
    from fscore.hub.registry import Registry
    from fscore.volume import open_volume

    with open_volume(volume, read_only=True) as opened:
        info = Registry(opened).show(named(model, team), user)
    Output(as_json=as_json).result(info, lambda: lines(info))


def lines(info: VersionInfo) -> list[str]:
    """A version as `name  value` lines."""
    asked, decided, checked = info.request, info.approval, info.validation
    layouts = [
        (f"layout {layout.name}", f"{len(layout.ranks)} ranks, {human(layout.bytes)}, {layout.path}")
        for layout in info.layouts
    ]
    return fields(
        [
            ("version", info.ref),
            ("state", info.state),
            ("digest", info.digest),
            ("path", info.path if info.present else "(its files do not lie in this volume)"),
            ("size", f"{human(info.bytes)} in {info.files} files, {info.tensors} tensors" if info.present else ""),
            ("uploaded", f"{info.created_at} by {info.uploader}"),
            ("purpose", info.purpose),
            ("description", info.description),
            ("aliases", ", ".join(info.aliases)),
            ("wanted alias", info.wanted_alias if info.wanted_alias not in info.aliases else ""),
            ("checks", ("passed" if checked.get("success") else "failed") if checked else ""),
            (
                "requested",
                f"{asked.at} by {asked.by}, of {', '.join(asked.approvers) or 'any approver'}" if asked else "",
            ),
            (
                "decision",
                f"{decided.decision} by {decided.by} at {decided.at} {decided.reason}".rstrip() if decided else "",
            ),
            *layouts,
        ]
    )
