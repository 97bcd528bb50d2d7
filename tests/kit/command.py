"""The command line for tests: in this process for speed, or as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from fscore.cli.main import build


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    def ok(self) -> Result:
        """Itself, if it succeeded."""
        assert self.code == 0, self.err or self.out
        return self


class Fscore:
    """`fscore` in this process; `user` is who acts."""

    def __init__(self, user: str = "ann") -> None:
        self.user = user

    def __call__(self, *arguments: object, input_text: str | None = None) -> Result:
        given = [str(argument) for argument in arguments]
        done = CliRunner().invoke(
            build(given[:1]), given, prog_name="fscore", input=input_text, env={"FSCORE_USER": self.user}
        )
        unexpected = done.exception is not None and not isinstance(done.exception, SystemExit)
        if unexpected:
            assert done.exception is not None
            raise done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    def json(self, *arguments: object) -> Any:
        """The report of a command that succeeds."""
        return json.loads(self(*arguments, "--json").ok().out)

    def refused(self, code: int, *arguments: object) -> str:
        """The one line of a command that fails with this exit code."""
        done = self(*arguments)
        assert done.code == code, (done.out, done.err)
        (line,) = done.err.strip().splitlines()
        assert line.startswith("fscore: ")
        return line.removeprefix("fscore: ")

    def by(self, user: str) -> Fscore:
        """The same command in the hands of somebody else."""
        return Fscore(user)


def run_fscore(*arguments: object, **env: str) -> subprocess.CompletedProcess[bytes]:
    """The installed command in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "fscore.cli.main", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=os.environ | env,
        timeout=120,
    )


@pytest.fixture
def fscore() -> Fscore:
    """The command line, as ann."""
    return Fscore()


@pytest.fixture
def cli_volume(fscore: Fscore, tmp_path: Path) -> str:
    """The META-URL of a fresh volume on SQLite and local files, made by `fscore format`."""
    url = f"sqlite3://{tmp_path / 'meta.db'}"
    fscore("format", url, "cli-volume", "--bucket", tmp_path / "blocks", "--trash-days", "0").ok()
    return url
