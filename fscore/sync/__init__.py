"""Bringing versions to other volumes: plan, copy, verify, make visible. The way in is `sync_versions`."""

from __future__ import annotations

from fscore.sync.plan import SyncItem, SyncReport
from fscore.sync.run import sync_versions

__all__ = ["SyncItem", "SyncReport", "sync_versions"]
