"""What quotas should say, counted from the records alone; shares no code with `meta.quotas`."""

from __future__ import annotations

from collections import defaultdict

from fscore.domain.attr import Kind
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.quota import QuotaKey, QuotaKind
from fscore.meta.engine import MetaEngine


def charge(kind: Kind, length: int) -> int:
    """Bytes that one node or entry is charged (volume-format.md 2.5)."""
    return max(-(-length // 4096), 1) * 4096 if kind == Kind.FILE else 4096


def count_below(engine: MetaEngine, top: int) -> tuple[int, int]:
    """(space, inodes) of all entries below a directory."""
    nodes = dict(engine.scan_nodes())
    children: dict[int, list[int]] = defaultdict(list)
    for parent, _, edge in engine.scan_edges():
        children[parent].append(edge.ino)
    space = inodes = 0
    pending = [top]
    while pending:
        for ino in children[pending.pop()]:
            node = nodes[ino]
            space += charge(node.kind, node.length)
            inodes += 1
            if node.kind == Kind.DIRECTORY:
                pending.append(ino)
    return space, inodes


def count_owned(engine: MetaEngine, kind: QuotaKind, owner: int) -> tuple[int, int]:
    """(space, inodes) of all nodes of a user or group."""
    owned = [
        node
        for ino, node in engine.scan_nodes()
        if ino not in {ROOT, TRASH} and owner == (node.uid if kind is QuotaKind.USER else node.gid)
    ]
    return sum(charge(node.kind, node.length) for node in owned), len(owned)


def check_quotas(engine: MetaEngine) -> list[str]:
    """Every quota record that does not say what a count says, in words."""
    problems = []
    nodes = dict(engine.scan_nodes())
    for key, quota in engine.load_quotas(*QuotaKind).items():
        if key.kind is QuotaKind.DIRECTORY:
            if key.number not in nodes:
                problems.append(f"a quota of directory {key.number}, which is gone")
                continue
            counted = count_below(engine, key.number)
        else:
            counted = count_owned(engine, key.kind, key.number)
        if (quota.used_space, quota.used_inodes) != counted:
            used = (quota.used_space, quota.used_inodes)
            problems.append(f"the quota of {key.kind.name} {key.number} says {used}, counted are {counted}")
    return problems + _missing(engine)


def _missing(engine: MetaEngine) -> list[str]:
    """Owners without a record, in a volume that has any."""
    known = engine.load_quotas(QuotaKind.USER, QuotaKind.GROUP)
    if not known:
        return []
    owners = {
        key
        for ino, node in engine.scan_nodes()
        if ino not in {ROOT, TRASH}
        for key in (QuotaKey(QuotaKind.USER, node.uid), QuotaKey(QuotaKind.GROUP, node.gid))
    }
    return [f"{key.kind.name} {key.number} has no record" for key in sorted(owners - set(known))]
