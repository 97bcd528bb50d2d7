"""A process in the background that says, before its parent goes, whether it came up."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

Tell = Callable[[str], None]
"""Takes one line for whoever started the process."""


class Outcome(NamedTuple):
    """What the child said until it was ready, or ended. `code` is None when it is up, else its exit code."""

    said: list[str]
    code: int | None


def launch(child: Callable[[Tell, Tell], int], log: Path) -> Outcome:
    """Fork; `child(tell, ready)` runs in a session of its own with its output in `log`; its result is the exit code.

    Returns when the child called `ready` (whose line is the last one said) or ended. Call it before threads are made.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _child(child, log, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "r", encoding="utf-8", errors="surrogateescape") as told:
        said, up = _listen(told)
    if up:
        return Outcome(said, None)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if not said:
        said.append(f"the mount ended before it was ready ({f'signal {-code}' if code < 0 else code}): see {log}")
    return Outcome(said, code if code > 0 else 1)


def _listen(told: IO[str]) -> tuple[list[str], bool]:
    said = []
    for line in told:
        kind, text = json.loads(line)
        said.append(text)
        if kind == "ready":
            return said, True
    return said, False


def _child(child: Callable[[Tell, Tell], int], log: Path, write_end: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        _redirect(log)
        with os.fdopen(write_end, "w", encoding="utf-8", errors="surrogateescape") as parent:

            def send(kind: str, text: str) -> None:
                if parent.closed:
                    return
                parent.write(json.dumps([kind, text]) + "\n")
                parent.flush()

            def ready(text: str) -> None:
                send("ready", text)
                parent.close()
                os.chdir("/")  # whatever it was started in can be unmounted

            code = child(lambda text: send("note", text), ready)
    except BaseException:  # noqa: BLE001 - there is nobody above to print it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
