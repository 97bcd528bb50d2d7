"""The command `fscore`: which commands there are, in which group, and how one is started quickly."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final

import typer
from typer.core import TyperGroup

from fscore import __version__
from fscore.cli import helper
from fscore.cli.errors import guarded

COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "Volumes": (
        "format",
        "config",
        "status",
        "quota",
        "trash",
        "restore",
        "fsck",
        "gc",
        "compact",
        "summary",
        "volumes",
        "mount",
        "umount",
    ),
    "Files": ("ls", "cat", "cp", "mv", "rm", "mkdir", "stat", "info"),
    "Models": ("push", "pull", "models", "versions", "show", "alias", "split", "validate"),
    "Releases": ("publish", "approve", "reject", "log", "sync", "warmup"),
}
EPILOG: Final = """Start here: fscore format sqlite3:///tmp/demo.db demo --bucket /tmp/demo-blocks

VOLUME comes first, then what to do with it: fscore ls sqlite3:///tmp/demo.db /

Exit codes: 0 done, 1 refused or failed, 2 wrong use."""


def overview(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False
) -> None:
    """A model repository for large models on a JuiceFS-compatible filesystem."""
    if version:
        typer.echo(f"fscore {__version__}")
        raise typer.Exit


def build(only: Iterable[str] = ()) -> typer.Typer:
    """The application with all commands, or with those named in `only`."""
    wanted = set(only)
    app = typer.Typer(
        name="fscore",
        epilog=EPILOG,
        invoke_without_command=True,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(overview)
    for panel, names in COMMANDS.items():
        for name in names:
            if wanted and name not in wanted:
                continue
            module = import_module(f"fscore.cli.commands.{name}")
            app.command(name, help=prose(module.command), rich_help_panel=panel, epilog=module.EXAMPLES)(
                guarded(module.command)
            )
    return app


def prose(command: Callable[..., None]) -> str:
    """A docstring's paragraphs, each on one line: the terminal decides where it breaks."""
    paragraphs = (command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def mount_options() -> dict[str, bool]:
    """The long options of `fscore mount` without dashes, and whether they take a value."""
    command = typer.main.get_command(build(["mount"]))
    assert isinstance(command, TyperGroup)
    found: dict[str, bool] = {}
    for parameter in command.commands["mount"].params:
        flag = bool(getattr(parameter, "is_flag", False))
        names = [*parameter.opts, *parameter.secondary_opts]
        found |= {name.removeprefix("--"): not flag for name in names if name.startswith("--")}
    return found


def log_to_stderr() -> None:
    """What fscore itself logs, from $FSCORE_LOG up; the chatter of libraries stays out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("fscore: %(message)s"))
    own = logging.getLogger("fscore")
    own.handlers[:] = [handler]
    own.setLevel(os.environ.get("FSCORE_LOG", "warning").upper())
    own.propagate = False
    logging.getLogger().addHandler(logging.NullHandler())


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point. Only the command that is called is imported; help and completion see all."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    if arguments is None and Path(sys.argv[0]).name == helper.NAME:
        translated = helper.translate(given, mount_options())
        if translated is None:
            return
        given = translated
    known = {name for names in COMMANDS.values() for name in names}
    completing = "_FSCORE_COMPLETE" in os.environ
    only = given[:1] if given and given[0] in known and not completing else ()
    build(only)(args=given, prog_name="fscore")


if __name__ == "__main__":
    main()
