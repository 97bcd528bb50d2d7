"""What a sync has to do, from what two volumes say they have. Pure.

Rule 1  a version that the target has with the same digest is kept; with another one it is a conflict, never replaced.
Rule 2  a layout is made anew beside its version; one that the target has with the same digest is kept.
Rule 3  what the source revoked and the target still shows is withdrawn there.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fscore.hub.names import Ref


class Holding(msgspec.Struct, frozen=True):
    """A version that a volume shows, with its layouts: digests as the manifests prove them."""

    ref: Ref
    digest: str
    layouts: dict[str, str] = {}


class Step(msgspec.Struct, frozen=True):
    """One thing to do: `what` is "version" or "layout", `action` is "copy", "compose" or "keep"."""

    ref: Ref
    what: str
    action: str
    digest: str
    layout: str = ""


class SyncPlan(msgspec.Struct, frozen=True):
    """Steps in order (a version before its layouts), withdrawals, and what stands against it."""

    steps: tuple[Step, ...] = ()
    withdraw: tuple[Ref, ...] = ()
    conflicts: tuple[str, ...] = ()


class SyncItem(msgspec.Struct, frozen=True):
    """What became of one version or layout: `action` is "copied", "composed" or "kept"."""

    ref: str
    what: str
    action: str
    digest: str
    bytes_moved: int
    bytes_shared: int


class SyncReport(msgspec.Struct, frozen=True):
    """What a sync did. `versions` and `layouts` count what is new at the target."""

    region: str
    versions: int
    layouts: int
    bytes_total: int
    bytes_moved: int
    bytes_shared: int
    seconds: float
    items: tuple[SyncItem, ...] = ()
    withdrawn: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def plan_sync(source: Sequence[Holding], target: Sequence[Holding], revoked: Sequence[Ref] = ()) -> SyncPlan:
    """The plan that brings all of `source` to where `target` is."""
    there = {holding.ref: holding for holding in target}
    steps: list[Step] = []
    conflicts: list[str] = []
    for holding in sorted(source, key=lambda h: (h.ref.name, h.ref.version or 0)):
        found = there.get(holding.ref)
        if found is not None and found.digest != holding.digest:
            conflicts.append(f"{holding.ref} is {found.digest[:19]} at the target and {holding.digest[:19]} here")
            continue
        steps.append(Step(holding.ref, "version", "keep" if found else "copy", holding.digest))
        for layout, digest in sorted(holding.layouts.items()):
            kept = found is not None and found.layouts.get(layout) == digest
            if found is not None and layout in found.layouts and not kept:
                conflicts.append(f"layout {layout} of {holding.ref} is another one at the target")
                continue
            steps.append(Step(holding.ref, "layout", "keep" if kept else "compose", digest, layout))
    return SyncPlan(tuple(steps), tuple(ref for ref in revoked if ref in there), tuple(conflicts))
