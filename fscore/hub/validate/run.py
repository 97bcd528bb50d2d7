"""Validate a model: scan it once, build the tables, let the suite judge them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fscore.hub.formats.api import Source
from fscore.hub.formats.detect import ModelScan, scan_model
from fscore.hub.validate.policy import Expectations, for_format
from fscore.hub.validate.report import Check, ValidationResult, conclude
from fscore.hub.validate.scan import TensorStats, scan_tensors
from fscore.hub.validate.suite import CRITICAL, WARNING, run_suite
from fscore.hub.validate.tables import build_tables
from fscore.runtime.progress import Progress


def validate(
    source: Source,
    *,
    expectations: Expectations | None = None,
    allow_pickle: bool = False,
    progress: Progress | None = None,
    scan: ModelScan | None = None,
    stats: Sequence[TensorStats] | None = None,
    workers: int = 4,
) -> ValidationResult:
    """Every check of the release suite. Nothing is unpickled or imported; `scan` and `stats` save a second pass."""
    policy = expectations or Expectations()
    if allow_pickle:
        policy = msgspec.structs.replace(policy, allow_pickle=True)
    scan = scan or scan_model(source)
    policy = for_format(policy, scan.format)
    if stats is None:
        stats = scan_tensors(source, scan.tensors, progress=progress, workers=workers)
    checks, said = run_suite(build_tables(scan, stats, source), policy)
    checks.extend(_files_there(scan, policy))
    counts = {
        "files": len(scan.files),
        "bytes": scan.bytes_total,
        "tensors": len(scan.tensors),
        "parameters": sum(entry.elements for entry in scan.tensors),
        "nan": sum(one.nan for one in stats),
        "inf": sum(one.inf for one in stats),
        "checks": len(checks),
        "failed": sum(not check.success for check in checks),
    }
    return conclude(checks, counts, said)


def _files_there(scan: ModelScan, policy: Expectations) -> list[Check]:
    """`a|b` asks for one of them. These are sets of names, which need no table."""
    paths = {file.path for file in scan.files}
    found = []
    for severity, wanted in ((CRITICAL, policy.required), (WARNING, policy.wanted)):
        lost = [names for names in wanted if not paths & set(names.split("|"))]
        detail = f"missing {', '.join(lost)}" if lost else ""
        name = "files.required" if severity == CRITICAL else "files.wanted"
        found.append(Check(name, severity, success=not lost, detail=detail))
    return found
