"""What the hub tells: one frozen struct a question, with field names that stay."""

from __future__ import annotations

from typing import Any

import msgspec


class PushReport(msgspec.Struct, frozen=True):
    """What a push cost. `deduplicated`: the model had this very version already, nothing was made."""

    team: str
    model: str
    version: int
    ref: str
    path: str
    state: str
    digest: str
    files: int
    tensors: int
    bytes_total: int
    bytes_new: int
    bytes_shared: int
    deduplicated: bool
    seconds: float


class PullReport(msgspec.Struct, frozen=True):
    """What a pull brought. `bytes_kept` were there already, and were verified like the rest."""

    ref: str
    version: int
    digest: str
    rank: str
    files: int
    bytes_total: int
    bytes_fetched: int
    bytes_kept: int
    seconds: float
    path: str
    warnings: tuple[str, ...] = ()


class LayoutReport(msgspec.Struct, frozen=True):
    """What a split cost. `zero_copy` is the share of its bytes that did not move."""

    ref: str
    layout: str
    ranks: tuple[str, ...]
    path: str
    digest: str
    files: int
    bytes_total: int
    bytes_new: int
    bytes_shared: int
    zero_copy: float
    deduplicated: bool
    seconds: float


class WarmReport(msgspec.Struct, frozen=True):
    """How much of a version lies in this machine's cache; `coverage` is 0 to 1."""

    ref: str
    version: int
    rank: str
    files: int
    bytes_total: int
    bytes_cached: int
    bytes_fetched: int
    bytes_failed: int
    coverage: float
    seconds: float


class Decision(msgspec.Struct, frozen=True):
    """An approval or rejection, as it stands in the log."""

    ref: str
    version: int
    digest: str
    decision: str
    by: str
    reason: str
    at: str
    layouts: dict[str, str] = {}


class Request(msgspec.Struct, frozen=True):
    """A version that waits for its decision."""

    ref: str
    version: int
    digest: str
    by: str
    at: str
    approvers: tuple[str, ...] = ()
    layouts: dict[str, str] = {}
    state: str = "pending"


class LayoutInfo(msgspec.Struct, frozen=True):
    """A layout that lies beside its version."""

    name: str
    digest: str
    ranks: tuple[str, ...]
    path: str
    bytes: int


class VersionInfo(msgspec.Struct, frozen=True):
    """One version. `present` is false where its files do not lie in this volume."""

    team: str
    model: str
    version: int
    ref: str
    state: str
    digest: str
    path: str
    present: bool
    created_at: str
    uploader: str
    purpose: str
    description: str
    files: int
    bytes: int
    tensors: int
    aliases: tuple[str, ...] = ()
    layouts: tuple[LayoutInfo, ...] = ()
    approval: Decision | None = None
    request: Request | None = None
    validation: dict[str, Any] = {}
    wanted_alias: str = ""


class ModelInfo(msgspec.Struct, frozen=True):
    """One model; `latest` is its highest visible version, 0 when there is none."""

    team: str
    model: str
    versions: int
    latest: int
    aliases: dict[str, int] = {}
