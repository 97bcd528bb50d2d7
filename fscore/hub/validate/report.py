"""The verdict of a validation, in values that a manifest can keep."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One check: a stable name, whether it must hold (critical) or should (warning), and what failed."""

    name: str
    severity: str
    success: bool
    detail: str = ""


class ValidationResult(msgspec.Struct, frozen=True):
    """All checks of one model. `digest` covers the checks and the counts, not when or where it ran.

    `gx` is what Great Expectations said, by table, for whoever wants the numbers behind.
    """

    success: bool
    checks: list[Check]
    counts: dict[str, int]
    digest: str
    gx: dict[str, Any]

    @property
    def failed(self) -> list[Check]:
        """The checks that did not hold, critical ones first."""
        return sorted((check for check in self.checks if not check.success), key=lambda check: check.severity)

    def lines(self) -> list[str]:
        """One line a check, for people."""
        width = max((len(check.name) for check in self.checks), default=0)
        marks = {(True, "critical"): "ok  ", (True, "warning"): "ok  ", (False, "warning"): "warn"}
        return [
            f"{marks.get((check.success, check.severity), 'FAIL')} {check.name:<{width}}  {check.detail}".rstrip()
            for check in self.checks
        ]


def conclude(checks: list[Check], counts: dict[str, int], gx: dict[str, Any]) -> ValidationResult:
    """Sum up: a model passes when every critical check holds."""
    success = all(check.success for check in checks if check.severity == "critical")
    body = msgspec.json.encode({"checks": checks, "counts": counts, "success": success}, order="deterministic")
    return ValidationResult(success, checks, counts, f"sha256:{hashlib.sha256(body).hexdigest()}", gx)
