"""How `fscore` behaves as a program: help, completion, exit codes, and what goes to which stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from fscore.cli.main import COMMANDS
from tests.kit.command import Fscore, run_fscore

NAMES = [name for names in COMMANDS.values() for name in names]


def test_help_names_every_command() -> None:
    done = run_fscore("--help", COLUMNS="120", TERM="dumb")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert all(name in text for name in NAMES)
    assert run_fscore().stdout.split() == run_fscore("--help").stdout.split(), "no arguments: help"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_with_an_example(fscore: Fscore, name: str) -> None:
    text = fscore(name, "--help").ok().out
    assert f"fscore {name}" in text
    assert "Usage" in text


def test_version() -> None:
    from fscore import __version__

    assert run_fscore("--version").stdout.decode() == f"fscore {__version__}\n"


def test_wrong_use_is_exit_code_2() -> None:
    assert run_fscore("nosuch").returncode == 2
    assert run_fscore("ls").returncode == 2
    assert run_fscore("ls", "--nosuch", "memory://x").returncode == 2
    done = run_fscore("pusch", "x")
    assert done.returncode == 2
    assert b"push" in done.stderr, "it says which command may have been meant"


def test_results_go_to_stdout_and_errors_to_stderr(cli_volume: str) -> None:
    good = run_fscore("ls", cli_volume, "/", "--json")
    assert (good.returncode, good.stdout, good.stderr) == (0, b"[]\n", b"")
    bad = run_fscore("ls", cli_volume, "/missing", "--json")
    assert (bad.returncode, bad.stdout) == (1, b"")
    assert bad.stderr == b"fscore: /missing: no such file or directory\n"


def test_a_pipe_gets_progress_only_when_asked(cli_volume: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    assert run_fscore("cp", cli_volume, tmp_path / "a", ":/a").stderr == b""
    asked = run_fscore("cp", cli_volume, tmp_path / "a", ":/b", "--progress").stderr.decode()
    assert asked.splitlines() == ["copying a ...", "copying a: 100 % (1.0 MiB of 1.0 MiB), done"]
    assert run_fscore("cp", cli_volume, tmp_path / "a", ":/c", "--progress", "-q").stderr == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_exist(shell: str) -> None:
    done = run_fscore("--show-completion", shell)
    assert done.returncode == 0
    assert b"_FSCORE_COMPLETE" in done.stdout or b"FSCORE_COMPLETE" in done.stdout


def test_completion_offers_commands_and_volumes(tmp_path: Path) -> None:
    names = tmp_path / "volumes.toml"
    names.write_text('[here]\nmeta = "sqlite3:///x.db"\n[there]\nmeta = "sqlite3:///y.db"\n')
    env = {"_FSCORE_COMPLETE": "complete_bash", "FSCORE_VOLUMES": str(names)}
    commands = run_fscore(COMP_WORDS="fscore pu", COMP_CWORD="1", **env).stdout.split()
    assert commands == [b"push", b"pull", b"publish"]
    volumes = run_fscore(COMP_WORDS="fscore ls h", COMP_CWORD="2", **env).stdout.split()
    assert volumes == [b"here"]


def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by accident\nin two lines")

    monkeypatch.setattr("fscore.volume.open_volume", broken)
    line = Fscore().refused(1, "ls", "memory://any")
    assert line == "unexpected ZeroDivisionError: by accident in two lines (FSCORE_DEBUG=1 shows where)"
