"""`fscore umount`: take a mount away, and wait until everything is in the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.output import note

EXAMPLES: Final = """fscore umount /mnt/models

fscore umount /mnt/models --lazy"""


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The mountpoint.", show_default=False)],
    *,
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Also when it is in use: gone from the tree now, served until closed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also when it is in use or dead: programs that use it get errors.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Unmount a volume.

    Everything that was written is committed first; when that fails the mount stays. Returns when the mount's process
    has ended.
    """
    from fscore.mount.leave import leave

    report = leave(directory, lazy=lazy, force=force)
    if not quiet:
        note(f"fscore: {report}")
