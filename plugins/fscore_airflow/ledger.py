"""The hub's approval ledger as the gate and its trigger see it: decisions as plain dictionaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fscore.volume import Volume


def read_decision(volume: Volume, ref: str, digest: str) -> dict[str, Any] | None:
    """The first decision about exactly these bytes, or None."""
    from fscore.hub.approval import read
    from fscore_airflow.reports import report

    decision = read(volume, ref)
    if decision is None or (digest and decision.digest != digest):
        return None
    return report(decision)
