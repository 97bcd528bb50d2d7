"""A program of its own that locks files as it is told, one line a command, so that it is another owner to the kernel.

Commands: `flock ex|sh|un [wait]`, `lockf ex|sh|un START LENGTH [wait]`. Answers: `ok` or `busy`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH, "un": fcntl.LOCK_UN}


class Locker:
    """The other end of the program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, command: str) -> None:
        """Send a command; its answer is to be read by `answer`."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """Wait for the answer to the last command."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, command: str) -> str:
        """Send a command and wait for its answer."""
        self.tell(command)
        return self.answer()


@contextmanager
def locker(path: Path) -> Iterator[Locker]:
    """A program that has the file open; it ends with the block, and its locks with it."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Locker(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def _obey(command: str, file: int) -> None:
    call, kind, *rest = command.split()
    flags = KINDS[kind] if "wait" in rest or kind == "un" else KINDS[kind] | fcntl.LOCK_NB
    if call == "flock":
        fcntl.flock(file, flags)
    else:
        fcntl.lockf(file, flags, int(rest[1]), int(rest[0]))


def main(path: str) -> None:
    """Obey until there is nothing more to read."""
    file = os.open(path, os.O_RDWR)  # never closed: the mount may be dead by then
    for command in sys.stdin:
        try:
            _obey(command, file)
        except BlockingIOError:
            answer = "busy"
        except OSError as error:
            answer = f"error {error.errno}"
        else:
            answer = "ok"
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
