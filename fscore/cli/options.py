"""The arguments that commands share: VOLUME first, then paths or a model; `--json` wherever something is reported."""

from __future__ import annotations

import getpass
import os
from typing import Annotated, TypeAlias

import typer


def complete_volume(incomplete: str) -> list[str]:
    """Names from volumes.toml for the shell."""
    from fscore.volume import volume_names

    return [name for name in volume_names() if name.startswith(incomplete)]


def login() -> str:
    """Who is at the keyboard, when $FSCORE_USER does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


Volume: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="VOLUME",
        help="META-URL (sqlite3:///abs/meta.db, redis://host:6379/1) or a name from volumes.toml.",
        autocompletion=complete_volume,
        show_default=False,
    ),
]
Path: TypeAlias = Annotated[str, typer.Argument(metavar="PATH", help="Path inside the volume.", show_default=False)]
Model: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="team/model@version, team/model:alias, or team/model.", show_default=False),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
ShowProgress: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress", help="Progress on stderr; by default on a terminal only.", show_default=False
    ),
]
User: TypeAlias = Annotated[
    str,
    typer.Option(
        "--user",
        envvar="FSCORE_USER",
        metavar="NAME",
        default_factory=login,
        help="Who acts, for the audit log.",
        show_default=False,
    ),
]
Team: TypeAlias = Annotated[
    str,
    typer.Option(
        "--team",
        envvar="FSCORE_TEAM",
        metavar="TEAM",
        help="The team of a MODEL written without one.",
        show_default=False,
    ),
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done, and do nothing.")]
