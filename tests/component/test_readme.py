"""Every command and every Python line of the README's tour runs, in order, as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_tour_runs_as_printed(tmp_path: Path) -> None:
    commands, lines = blocks("sh"), blocks("python")
    assert len(commands) >= 8
    assert len(lines) == 2
    for number, block in enumerate(lines):
        (tmp_path / f"block{number}.py").write_text(block)
    script = "\n".join(["set -euo pipefail", *commands, "python ../block0.py", "python ../block1.py"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FSCORE", "AIRFLOW"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.stdout.count("sound") == 2
    assert done.stderr == "", "a tour without warnings"


def test_the_readme_names_every_command() -> None:
    from fscore.cli.main import COMMANDS

    text = README.read_text()
    undocumented = {"stat", "summary", "rm", "mkdir", "mv", "reject", "alias", "validate"}
    missing = [name for names in COMMANDS.values() for name in names if f"fscore {name}" not in text]
    assert set(missing) <= undocumented


def test_what_the_readme_points_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
    for goal in re.findall(r"(?:`|^)make ([a-z]+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{goal}:", (README.parent / "Makefile").read_text(), re.MULTILINE), goal
