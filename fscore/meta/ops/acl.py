"""POSIX ACLs of nodes: inheritance, chmod, and the extended attributes that show them (volume-format.md 2.11).

Rule 1  a rule is stored before the transaction that refers to it; what a crash leaves is a rule without a node.
Rule 2  the mode follows the access rule and the rule the mode, in one transaction: whoever looks at the mode alone sees
        at most what the rule grants.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec.structs import replace

from fscore.domain import acl
from fscore.domain.acl import Rule
from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import Denied, Exists, NoAttribute, NotFound, NotPermitted, Unsupported
from fscore.meta.ops.check import check_movable, check_thawed
from fscore.meta.ops.work import Work
from fscore.meta.records import want_node

SGID: Final = 0o2000
SPECIAL: Final = 0o7000

XattrMode = Literal["set", "create", "replace"]


def inherit(work: Work, above: Attr, kind: Kind, mode: int) -> tuple[int, int, int]:
    """Mode, access rule and default rule of a new node. The umask counts only where there is no default rule."""
    if kind == Kind.SYMLINK:
        return mode, 0, 0
    stored = work.txn.acl(above.default_acl) if above.default_acl else None
    if stored is None:
        return mode & ~work.who.umask, 0, 0
    rule = Rule.parse(stored)
    default = above.default_acl if kind == Kind.DIRECTORY else 0
    if rule.is_minimal:
        return mode & (SPECIAL | rule.mode), 0, default
    own = rule.inherited(mode)
    return mode & SPECIAL | own.mode, work.rule_id(own), default


def chmod(work: Work, attr: Attr, mode: int) -> Attr:
    """A node with another mode, and the access rule that says the same."""
    stored = work.txn.acl(attr.access_acl) if attr.access_acl else None
    if stored is None:
        return replace(attr, mode=mode)
    return replace(attr, mode=mode, access_acl=work.rule_id(Rule.parse(stored).with_mode(mode)))


def value(attr: Attr, name: bytes, stored: bytes | None) -> bytes:
    """What a program reads of a node's rule. Raises NoAttribute when it has none."""
    if stored is None:
        raise NoAttribute(repr(name))
    return Rule.parse(stored).filled(attr.mode).to_xattr()


def rule_of(attr: Attr, name: bytes) -> int:
    """The number of the node's rule that this attribute shows."""
    return attr.access_acl if name == acl.ACCESS else attr.default_acl


def set_rule(work: Work, ino: int, name: bytes, rule: Rule | None, mode: XattrMode) -> Attr:
    """Give a node a rule, or (None, or one that says nothing) take it away; the mode follows the access rule."""
    txn = work.txn
    txn.prefetch(want_node(ino))
    attr = txn.node(ino)
    if attr is None:
        raise NotFound(f"inode {ino}")
    _check(work, attr, name, rule, mode)
    changed = attr
    if work.who.uid != 0 and not work.who.in_group(attr.gid):
        changed = replace(changed, mode=changed.mode & ~SGID)
    if rule is None or rule.is_empty:
        changed = _with(changed, name, 0)
    elif name == acl.DEFAULT:
        changed = _with(changed, name, work.rule_id(rule.filled(changed.mode)))
    else:
        whole = rule.filled(changed.mode)
        changed = replace(changed, mode=changed.mode & SPECIAL | whole.mode)
        changed = _with(changed, name, 0 if whole.is_minimal else work.rule_id(whole))
    if changed != attr:
        changed = replace(changed, ctime_ns=work.now_ns)
        work.put_node(ino, changed)
        work.log("SETFACL(%d,%d,%s)", ino, 1 if name == acl.ACCESS else 2, (rule or acl.NOTHING).render())
    return changed


def _with(attr: Attr, name: bytes, rule_id: int) -> Attr:
    return replace(attr, access_acl=rule_id) if name == acl.ACCESS else replace(attr, default_acl=rule_id)


def _check(work: Work, attr: Attr, name: bytes, rule: Rule | None, mode: XattrMode) -> None:
    if work.rules.acls is None:
        raise Unsupported("the volume was formatted without ACLs")
    if attr.kind == Kind.SYMLINK:
        raise Unsupported("a symbolic link has no ACL")
    if work.who.uid not in {0, attr.uid}:
        raise NotPermitted("only the owner changes the ACL")
    check_movable(attr)
    check_thawed(attr)
    if attr.kind != Kind.DIRECTORY and name == acl.DEFAULT and rule is not None:
        raise Denied("only a directory has a default ACL")
    known = rule_of(attr, name) != 0
    if mode == "create" and known:
        raise Exists(f"attribute {name!r}")
    if mode == "replace" and not known:
        raise NoAttribute(repr(name))
