"""What a check of a volume found. Empty `problems` means sound."""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One finding: a stable word for its kind, where it is, and what is wrong there."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.detail}"


class FsckReport(msgspec.Struct, frozen=True):
    """`problems` are lies or losses; `leaks` cost space and nothing else; `notes` are drifts that the format allows."""

    problems: list[Problem]
    leaks: list[Problem]
    notes: list[Problem]
    counts: dict[str, int]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class Findings:
    """Collects while the checks run."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.leaks: list[Problem] = []
        self.notes: list[Problem] = []
        self.counts: dict[str, int] = {}

    def problem(self, kind: str, where: str, detail: str) -> None:
        """Something that must not be."""
        self.problems.append(Problem(kind, where, detail))

    def leak(self, kind: str, where: str, detail: str) -> None:
        """Something that nobody needs any more."""
        self.leaks.append(Problem(kind, where, detail))

    def note(self, kind: str, where: str, detail: str) -> None:
        """Something that differs and may."""
        self.notes.append(Problem(kind, where, detail))

    def report(self) -> FsckReport:
        """What was found."""
        return FsckReport(self.problems, self.leaks, self.notes, dict(sorted(self.counts.items())))
