"""The error tree as a user meets it: one line on stderr and an exit code (0 done, 1 refused or failed, 2 wrong use)."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import typer
from typer.exceptions import Abort, Exit, TyperException

from fscore.domain.errors import HubError, SettingError, StoreError

P = ParamSpec("P")
R = TypeVar("R")

FAILED: Final = 1
WRONG_USE: Final = 2
INTERRUPTED: Final = 130


class WrongUse(SettingError):
    """Arguments that do not fit together; exit code 2."""


def exit_code(error: BaseException) -> int:
    """What the shell is told."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return WRONG_USE if isinstance(error, SettingError) else FAILED


def describe(error: BaseException) -> str:
    """One line that says what happened and, where the error knows, what to do."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror[0].lower() + error.strerror[1:]
        if error.filename is not None:
            text = f"{_text(error.filename)}: {text}"
        if error.filename2 is not None:
            text = f"{text} ({_text(error.filename2)})"
    else:
        text = str(error) or type(error).__name__
    if not isinstance(error, (OSError, StoreError, SettingError, HubError)):
        text = f"unexpected {type(error).__name__}: {text} (FSCORE_DEBUG=1 shows where)"
    return " ".join(text.split())


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """The command with every error of fscore and of the local system turned into its line and exit code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            # The reader has gone (`fscore cat ... | head`): say nothing, also not while the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(FAILED) from None
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, (Exit, Abort, TyperException)) or os.environ.get("FSCORE_DEBUG"):
                raise
            typer.echo(f"fscore: {describe(error)}", err=True)
            raise Exit(exit_code(error)) from None

    return run


def _text(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes)) else str(path)
