"""`fscore quota`: limits of directories, users and groups."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import Output, columns, human, share
from fscore.cli.paths import inside

if TYPE_CHECKING:
    from fscore.admin.quota import QuotaCheck, QuotaLine, Subject

EXAMPLES: Final = """fscore quota set VOLUME --path /teams/vision --capacity 500 --inodes 100000

fscore quota set VOLUME --uid 1000 --capacity 2T

fscore quota list VOLUME

fscore quota check VOLUME --path /teams/vision --repair"""

HEADER: Final = ("Path/ID", "Size", "Used", "Use%", "Inodes", "IUsed", "IUse%")


class Action(enum.StrEnum):
    """What to do."""

    SET = "set"
    GET = "get"
    LIST = "list"
    DELETE = "delete"
    CHECK = "check"


def command(
    action: Annotated[Action, typer.Argument(metavar="set|get|list|delete|check", show_default=False)],
    volume: options.Volume,
    *,
    path: Annotated[str | None, typer.Option(metavar="PATH", help="Directory inside the volume.")] = None,
    uid: Annotated[int | None, typer.Option(metavar="N", help="User.")] = None,
    gid: Annotated[int | None, typer.Option(metavar="N", help="Group.")] = None,
    capacity: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Limit of space: 500 (GiB), 500G, 2T; 0 takes it away.")
    ] = None,
    inodes: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Limit of files and directories; 0 takes it away.")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make the directory if it is not there.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Set what is used to what was counted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Set, show, delete or check limits of directories, users and groups.

    Whoever uses the volume, with fscore or with the official client, is held to a new limit within its next heartbeat
    (12 seconds). A directory's limit counts all that is below it; a user's or group's all that it owns, the trash too.
    `check` counts anew and exits with 1 when a quota says something else. Repair while nobody writes: clients store
    what they used every three seconds, and what is counted before that counts twice.
    """
    from fscore.admin import quota
    from fscore.admin.format import parse_size

    whose = quota.subject(None if path is None else inside(path), uid, gid)
    out = Output(as_json=as_json)
    if action is Action.LIST:
        lines = quota.list_quotas(volume, whose)
        out.result(lines, lambda: table(lines))
        return
    if action is Action.CHECK:
        checks = quota.check_quotas(volume, whose, repair=repair)
        out.result(checks, lambda: findings(checks, repaired=repair))
        if not repair and not all(check.consistent for check in checks):
            raise typer.Exit(1)
        return
    named = required(whose)
    if action is Action.DELETE:
        quota.delete_quota(volume, named)
        return
    if action is Action.GET:
        line = quota.get_quota(volume, named)
    else:
        if capacity is None and inodes is None:
            raise WrongUse("say --capacity, --inodes or both")
        space = None if capacity is None else parse_size(f"{capacity}G" if capacity.isdecimal() else capacity)
        line = quota.set_quota(volume, named, capacity=space, inodes=inodes, create=create)
    out.result(line, lambda: table([line]))


def required(whose: Subject | None) -> Subject:
    """Whose quota, which must have been said."""
    if whose is None:
        raise WrongUse("say whose quota: --path, --uid or --gid")
    return whose


def table(lines: list[QuotaLine]) -> list[str]:
    """Quotas as rows, in the columns of the official client."""
    rows = [
        (
            line.subject,
            human(line.capacity) if line.capacity else "unlimited",
            human(line.used),
            share(line.used, line.capacity) if line.capacity else "",
            line.inodes or "unlimited",
            line.used_inodes,
            share(line.used_inodes, line.inodes) if line.inodes else "",
        )
        for line in lines
    ]
    return columns(rows, HEADER, right=range(1, len(HEADER))) if rows else ["no quota is set"]


def findings(checks: list[QuotaCheck], *, repaired: bool) -> list[str]:
    """What a check found, one line each."""
    wrong = [check for check in checks if not check.consistent]
    said = [
        f"{check.subject}: recorded {check.recorded.space} bytes and {check.recorded.inodes} inodes, "
        f"counted {check.counted.space} and {check.counted.inodes}{'; repaired' if repaired else ''}"
        for check in wrong
    ]
    return said or [f"{len(checks)} quotas are consistent"]
