"""How the hub's reports read on a terminal. Pure: a report in, lines out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.cli.output import columns, fields, human, share

if TYPE_CHECKING:
    from fscore.hub.reports import LayoutReport, PullReport, PushReport, WarmReport
    from fscore.sync.plan import SyncReport


def pushed(report: PushReport) -> list[str]:
    """What a push brought and what it saved."""
    return fields(
        [
            ("version", f"{report.ref} ({report.state})" + (", known before" if report.deduplicated else "")),
            ("digest", report.digest),
            ("path", report.path),
            ("content", f"{human(report.bytes_total)} in {report.files} files, {report.tensors} tensors"),
            ("new", human(report.bytes_new)),
            ("shared", f"{human(report.bytes_shared)} ({share(report.bytes_shared, report.bytes_total)})"),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )


def pulled(report: PullReport) -> list[str]:
    """What a pull brought."""
    rank = f", rank {report.rank}" if report.rank else ""
    kept = f", {human(report.bytes_kept)} were there" if report.bytes_kept else ""
    return fields(
        [
            ("version", f"{report.ref}{rank}"),
            ("digest", report.digest),
            ("path", report.path),
            ("content", f"{human(report.bytes_total)} in {report.files} files"),
            ("fetched", f"{human(report.bytes_fetched)}{kept}"),
            ("seconds", f"{report.seconds:.1f}"),
            *(("warning", warning) for warning in report.warnings),
        ]
    )


def laid_out(report: LayoutReport) -> list[str]:
    """What a split made, and how much of it moved no bytes."""
    return fields(
        [
            ("layout", f"{report.layout} of {report.ref}" + (", known before" if report.deduplicated else "")),
            ("ranks", ", ".join(report.ranks)),
            ("path", report.path),
            ("digest", report.digest),
            ("content", f"{human(report.bytes_total)} in {report.files} files"),
            ("new", human(report.bytes_new)),
            ("zero-copy", f"{human(report.bytes_shared)} ({share(report.bytes_shared, report.bytes_total)})"),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )


def warmed(report: WarmReport) -> list[str]:
    """How much of a version the cache holds now."""
    rank = f", rank {report.rank}" if report.rank else ""
    return fields(
        [
            ("version", f"{report.ref}{rank}"),
            ("coverage", f"{share(report.bytes_cached, report.bytes_total)} of {human(report.bytes_total)}"),
            ("fetched", human(report.bytes_fetched)),
            ("failed", human(report.bytes_failed) if report.bytes_failed else ""),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )


def synced(report: SyncReport) -> list[str]:
    """What a sync brought, one line for each version or layout, and what stands against the rest."""
    rows = [
        (item.action, item.ref, human(item.bytes_moved), human(item.bytes_shared))
        for item in report.items
        if item.action != "kept"
    ]
    lines = columns(rows, ("ACTION", "WHAT", "MOVED", "SHARED"), right=(2, 3)) if rows else []
    lines += [f"withdrawn  {ref}" for ref in report.withdrawn]
    lines += [f"conflict   {conflict}" for conflict in report.conflicts]
    kept = len(report.items) - len(rows)
    summary = f"{report.versions} versions and {report.layouts} layouts new at {report.region}, {kept} were there"
    return [*lines, f"{summary}; {human(report.bytes_moved)} moved in {report.seconds:.1f} s"]
