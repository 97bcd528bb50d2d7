"""Models: named, versioned, deduplicated, split, approved, published. Speaks paths, never inodes.

The way in: `push` and `pull`, `split_version`, `warm`, `Registry` (list, show, publish, aliases), `approval.request`
and `approval.decide`. Pure and worth reading first: `names`, `lifecycle`, `plan`, `history`. On the volume a model is
`/models/<team>/<model>/<N>`; everything that is not visible to readers lies under `/.fscore`.
"""

from __future__ import annotations

from fscore.hub import approval
from fscore.hub.access import Actor
from fscore.hub.index import rebuild_index
from fscore.hub.names import Ref, parse_ref
from fscore.hub.pull import pull
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.split_version import split_version
from fscore.hub.warm import coverage, warm

__all__ = [
    "Actor",
    "Ref",
    "Registry",
    "approval",
    "coverage",
    "parse_ref",
    "pull",
    "push",
    "rebuild_index",
    "split_version",
    "warm",
]
