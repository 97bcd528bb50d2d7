"""Extended attributes of nodes, those too that show POSIX ACLs and are stored as rules (volume-format.md 2.11)."""

from __future__ import annotations

from fscore.domain import acl
from fscore.domain.acl import Rule
from fscore.domain.caller import Caller
from fscore.domain.errors import NoAttribute, Unsupported
from fscore.meta.ops import acl as acls
from fscore.meta.ops import change
from fscore.meta.ops.acl import XattrMode
from fscore.meta.records import want_node, want_xattrs
from fscore.meta.service.names import Names


class Attributes(Names):
    """`system.posix_acl_access` and `system.posix_acl_default` take and give the form of the Linux kernel."""

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """The value of one extended attribute; NoAttribute when there is none."""
        self._check_alive()
        if name in acl.NAMES:
            self._check_acls()
            return self._rule(ino, name)
        with self.engine.view() as view:
            value = view.xattr(ino, name)
        if value is None:
            self._node(ino)
            raise NoAttribute(repr(name))
        return value

    def _rule(self, ino: int, name: bytes) -> bytes:
        attr = self._node(ino)
        rule_id = acls.rule_of(attr, name)
        return acls.value(attr, name, self._acls.acl(rule_id) if rule_id else None)

    def listxattr(self, ino: int) -> list[bytes]:
        """Names of the extended attributes, sorted."""
        self._check_alive()
        if not self.setting.enable_acl:
            with self.engine.view() as view:
                names = sorted(view.xattrs(ino))
            if not names:
                self._node(ino)
            return names
        with self.engine.view() as view:
            view.prefetch(want_xattrs(ino), want_node(ino))
            stored, attr = view.xattrs(ino), change.existing(view, ino)
        return sorted([*stored, *(name for name in acl.NAMES if acls.rule_of(attr, name))])

    def setxattr(self, who: Caller, ino: int, name: bytes, value: bytes, *, mode: XattrMode = "set") -> None:
        """Create or replace one extended attribute; `create` and `replace` insist."""
        if name in acl.NAMES:
            self._check_acls()
            rule = Rule.from_xattr(value)
            self._run(who, lambda work: acls.set_rule(work, ino, name, rule, mode))
        else:
            self._run(who, lambda work: change.setxattr(work, ino, name, value, mode))

    def removexattr(self, who: Caller, ino: int, name: bytes) -> None:
        """Remove one extended attribute."""
        if name in acl.NAMES:
            self._run(who, lambda work: acls.set_rule(work, ino, name, None, "replace"))
        else:
            self._run(who, lambda work: change.removexattr(work, ino, name))

    def _check_acls(self) -> None:
        if not self.setting.enable_acl:
            raise Unsupported("the volume was formatted without ACLs")
