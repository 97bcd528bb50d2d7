"""`fscore rm`: remove files and trees."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from fscore.cli import options
from fscore.cli.errors import WrongUse
from fscore.cli.output import human, note, write
from fscore.cli.paths import inside
from fscore.cli.progress import shown
from fscore.domain.errors import Invalid, IsADir, NotFound

EXAMPLES: Final = """fscore rm VOLUME /data/old.bin

fscore rm VOLUME -r --dry-run /data/raw"""


def command(
    volume: options.Volume,
    targets: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Paths inside the volume.", show_default=False)
    ],
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Directories with all that is in them.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="No error for what does not exist.")] = False,
    skip_trash: Annotated[
        bool, typer.Option("--skip-trash", help="Free the space now instead of keeping it in the trash.")
    ] = False,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    progress: options.ShowProgress = None,
    quiet: options.Quiet = False,
) -> None:
    """Remove files, and with -r directories.

    Removed files stay in the volume's trash for the days that were set at format, unless --skip-trash. A directory
    asks first; without a terminal it needs --yes.
    """
    from fscore.volume import open_volume

    with open_volume(volume, read_only=dry_run) as opened, shown(progress, quiet=quiet) as bars:
        files = opened.files
        for path in map(inside, targets):
            try:
                found = files.stat(path, follow=False)
            except NotFound:
                if force:
                    continue
                raise
            if not found.is_dir:
                if dry_run:
                    write(f"would remove {path} ({human(found.size)})")
                else:
                    files.unlink(path, skip_trash=skip_trash)
                continue
            if path == "/":
                raise Invalid("the root of a volume stays; name what is in it", path)
            if not recursive:
                raise IsADir("add -r to remove it with all that is in it", path)
            if dry_run:
                count = sum(len(dirs) + len(regular) for _, dirs, regular in files.walk(path)) + 1
                write(f"would remove {path} and all that is in it ({count} entries)")
            elif yes or asked(path):
                files.rmtree(path, skip_trash=skip_trash, progress=bars)
            else:
                note(f"kept {path}")
                raise typer.Exit(1)


def asked(path: str) -> bool:
    """The user's answer; without a terminal there is nobody to ask."""
    if not sys.stdin.isatty():
        raise WrongUse(f"{path} is a directory: --yes removes it without asking")
    return typer.confirm(f"remove {path} and all that is in it?", err=True)
