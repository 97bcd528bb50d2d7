"""The obvious model of what clients share beside the tree: locks as arrays of bytes, ACLs by the formulas of acl(5).

Written from the manual pages, with no line in common with fscore.domain.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

BYTES = 16
"""Bytes of a file that ranges may lock; one cell more stands for all that follow."""

Owner = tuple[int, int]
"""(client, number)."""
READ, WRITE, UNLOCK = 0, 1, 2
NOBODY = 0xFFFFFFFF


@dataclass
class Acl:
    """Permission bits; `mask` is None where nobody is named and none was set."""

    owner: int
    group: int
    other: int
    mask: int | None = None
    users: dict[int, int] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)

    @property
    def minimal(self) -> bool:
        """Whether a mode says as much."""
        return self.mask is None

    def copy(self) -> Acl:
        """One that can be changed."""
        return Acl(self.owner, self.group, self.other, self.mask, dict(self.users), dict(self.groups))

    def wire(self) -> bytes:
        """As getxattr shows it."""
        entries = [(1, self.owner, NOBODY)]
        entries += [(2, bits, who) for who, bits in self.users.items()]
        entries += [(4, self.group, NOBODY)]
        entries += [(8, bits, who) for who, bits in self.groups.items()]
        entries += [(16, self.mask, NOBODY)] if self.mask is not None else []
        entries += [(32, self.other, NOBODY)]
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@dataclass
class Node:
    """A file or directory: who owns it, what its mode and rules say, how many names it has."""

    is_dir: bool
    uid: int
    gid: int
    mode: int
    access: Acl | None = None
    default: Acl | None = None
    names: int = 1
    whole: dict[Owner, int] = field(default_factory=dict)
    ranges: dict[Owner, list[tuple[int, int] | None]] = field(default_factory=dict)


def born(above: Node, uid: int, gid: int, mode: int, umask: int, *, is_dir: bool) -> Node:
    """A new node below a directory."""
    if above.default is None:
        return Node(is_dir, uid, gid, mode & ~umask)
    default = above.default.copy() if is_dir else None
    rule = above.default.copy()
    if rule.minimal:
        bits = rule.owner << 6 | rule.group << 3 | rule.other
        return Node(is_dir, uid, gid, mode & (0o7000 | bits), default=default)
    assert rule.mask is not None
    rule.owner &= mode >> 6
    rule.mask &= mode >> 3
    rule.other &= mode
    made = rule.owner << 6 | rule.mask << 3 | rule.other
    return Node(is_dir, uid, gid, made | mode & 0o7000, access=rule, default=default)


def chmod(node: Node, mode: int) -> None:
    """The mode, and the entries of the rule that it shows."""
    node.mode = mode
    if node.access is not None:
        node.access.owner, node.access.mask, node.access.other = mode >> 6 & 7, mode >> 3 & 7, mode & 7


def set_access(node: Node, rule: Acl | None) -> None:
    """A rule that says no more than a mode becomes one; taken away, the mode stays."""
    if rule is None:
        node.access = None
        return
    group = rule.group if rule.mask is None else rule.mask
    node.mode = node.mode & 0o7000 | rule.owner << 6 | group << 3 | rule.other
    node.access = None if rule.minimal else rule.copy()


def may(node: Node, uid: int, gids: set[int], wanted: int) -> bool:
    """acl(5), access check; a mask of nothing leaves the plain mode, as Linux has it."""
    if uid == 0:
        return True
    rule = node.access
    if rule is None or not node.mode & 0o070:
        bits = node.mode >> 6 if uid == node.uid else node.mode >> 3 if node.gid in gids else node.mode
        return bits & wanted == wanted
    assert rule.mask is not None
    if uid == node.uid:
        return rule.owner & wanted == wanted
    if uid in rule.users:
        return rule.users[uid] & rule.mask & wanted == wanted
    mine = [rule.group] if node.gid in gids else []
    mine += [bits for gid, bits in rule.groups.items() if gid in gids]
    if mine:
        return any(bits & rule.mask & wanted == wanted for bits in mine)
    return rule.other & wanted == wanted


def flock(node: Node, owner: Owner, kind: int) -> bool:
    """As flock(2): who changes a lock gives up the old one first."""
    others = [held for who, held in node.whole.items() if who != owner]
    free = kind == UNLOCK or (not others if kind == WRITE else WRITE not in others)
    if free and kind != UNLOCK:
        node.whole[owner] = kind
    else:
        node.whole.pop(owner, None)
    return free


def clash(node: Node, owner: Owner, kind: int, start: int, end: int) -> int | None:
    """The first byte that another owner has in a way that excludes this; None when there is none."""
    if kind == UNLOCK:
        return None
    for at in range(start, min(end, BYTES) + 1):
        for who, cells in node.ranges.items():
            cell = cells[at]
            if who != owner and cell is not None and WRITE in {kind, cell[0]}:
                return at
    return None


def setlk(node: Node, owner: Owner, kind: int, start: int, end: int, pid: int) -> bool:
    """As fcntl(2)."""
    if clash(node, owner, kind, start, end) is not None:
        return False
    cells = node.ranges.setdefault(owner, [None] * (BYTES + 1))
    for at in range(start, min(end, BYTES) + 1):
        cells[at] = None if kind == UNLOCK else (kind, pid)
    if not any(cells):
        del node.ranges[owner]
    return True


def forget(node: Node, client: int) -> None:
    """A client is gone."""
    for held in (node.whole, node.ranges):
        for owner in [one for one in held if one[0] == client]:
            del held[owner]
