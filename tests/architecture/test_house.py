"""What stands around the code: scripts, decisions, changelog, the licence, and what an installed package offers."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_bash_and_executable(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_ci_calls_make_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert [line.split()[-1] for line in lines] == ["lint", "test"]


def test_every_decision_is_listed_and_numbered() -> None:
    home = ROOT / "fscore/decisions"
    decisions = sorted(path for path in home.glob("*.md") if path.name != "README.md")
    index = (home / "README.md").read_text()
    for number, path in enumerate(decisions, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number:03}-")
        assert text.startswith(f"# {number:03} ")
        assert f"({path.name})" in index
        note = re.search(r"^\*Superseded.*", text, re.MULTILINE)
        later = set(re.findall(r"\b\d{3}\b", note[0] if note else ""))
        row = next(line for line in index.splitlines() if f"({path.name})" in line)
        assert bool(note) == bool(later), "who is superseded says by what"
        assert set(re.findall(r"\b\d{3}\b", row.partition("|")[2].partition("|")[2])) == later, "and so does the index"
        assert all(int(one) in range(number + 1, len(decisions) + 1) for one in later)


def test_the_changelog_has_lines_for_whats_unreleased() -> None:
    text = (ROOT / "fscore/CHANGELOG.md").read_text()
    unreleased = text.partition("## Unreleased")[2].partition("\n## ")[0]
    assert re.findall(r"^- .+", unreleased, re.MULTILINE)


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("console_scripts", "fscore"),
        ("fsspec.specs", "fscore"),
        ("apache_airflow_provider", "provider_info"),
        ("airflow.plugins", "fscore"),
    ],
)
def test_an_installed_package_offers(group: str, name: str) -> None:
    (point,) = (point for point in entry_points(group=group, name=name) if point.value.startswith("fscore"))
    assert callable(point.load())
