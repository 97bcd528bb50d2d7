"""One run of an operation: the transaction, who asks and when, and what the run changed.

An operation is a function `op(work, ...)`. The engine may run it several times; each run gets a fresh `Work`, and only
what the committed run collected reaches the service: new attributes and entries for its cache, changes of directory
statistics and quotas, and the change of usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from fscore.domain.acl import Rule
from fscore.domain.attr import Attr, Kind, space_of
from fscore.domain.caller import Caller
from fscore.domain.errors import NoSpace, Unsupported
from fscore.domain.ids import TRASH
from fscore.meta.changelog import ChangeLog, Value
from fscore.meta.records import Edge
from fscore.meta.txn import MetaTxn

NANO: Final = 1_000_000_000
_NOWHERE: Final[Mapping[int, int]] = {}


class Limits(Protocol):
    """The quotas of a volume that has any. Asked in a transaction's body, answered from what this client knows."""

    def check_owner(self, uid: int, gid: int, space: int, inodes: int) -> None:
        """OverQuota when the user's or the group's quota leaves no room for this."""

    def check_entries(self, parents: Mapping[int, int], space: int, inodes: int) -> None:
        """OverQuota when a directory has no room for this, counted for each entry below it."""

    def check_directory(self, parent: int, space: int, inodes: int, source: int = 0) -> None:
        """OverQuota when the quota of a directory, or of one above it, leaves no room for this.

        With `source` only those that what comes from below that directory is new to.
        """

    def crosses(self, source: int, target: int) -> bool:
        """Whether the two directories lie below different quotas."""


class RuleMissing(Exception):
    """The transaction would refer to an ACL rule that is not stored: store it, then run again."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.rule = rule


class RuleBook(Protocol):
    """The ACL rules that this client knows of."""

    def find(self, rule: Rule) -> int | None:
        """The number under which an equal rule is stored."""


class Rules(NamedTuple):
    """What the volume and this client prescribe to every operation of a moment.

    `room_space` and `room_inodes` are what capacity and inode limit leave, None without a limit. `skip_dir_ns` is the
    age below which a directory's mtime is not written again (volume-format.md 2.16). `sid` is the own session.
    `quotas` is None when the volume has none, `log` when it keeps no change log, `acls` when it uses no ACLs.
    """

    dir_stats: bool = True
    skip_dir_ns: int = 100_000_000
    room_space: int | None = None
    room_inodes: int | None = None
    sid: int | None = None
    quotas: Limits | None = None
    log: ChangeLog | None = None
    acls: RuleBook | None = None


class Work:
    """Passed as first argument to every operation; see the module."""

    __slots__ = (
        "edges", "inodes", "loads", "nodes", "now_ns", "owned", "queued", "rules", "space", "stats", "txn", "who",
    )  # fmt: skip

    def __init__(self, txn: MetaTxn, who: Caller, now_ns: int, rules: Rules) -> None:
        self.txn = txn
        self.who = who
        self.now_ns = now_ns
        self.rules = rules
        self.nodes: dict[int, Attr | None] = {}
        self.edges: dict[tuple[int, bytes], Edge | None] = {}
        self.stats: list[tuple[int, int, int, int]] = []
        self.queued: list[tuple[int, int]] = []
        self.loads: list[tuple[int, int, int]] = []
        self.owned: list[tuple[int, int, int, int]] = []
        self.space = 0
        self.inodes = 0

    @property
    def now_s(self) -> int:
        """This moment in unix seconds."""
        return self.now_ns // NANO

    def put_node(self, ino: int, attr: Attr) -> None:
        """Store a node, and tell the cache."""
        self.txn.put_node(ino, attr)
        self.nodes[ino] = attr

    def del_node(self, ino: int) -> None:
        """Remove a node, and tell the cache."""
        self.txn.del_node(ino)
        self.nodes[ino] = None

    def put_edge(self, parent: int, name: bytes, edge: Edge) -> None:
        """Store an entry, and tell the cache."""
        self.txn.put_edge(parent, name, edge)
        self.edges[parent, name] = edge

    def del_edge(self, parent: int, name: bytes) -> None:
        """Remove an entry, and tell the cache."""
        self.txn.del_edge(parent, name)
        self.edges[parent, name] = None

    def log(self, operation: str, *values: Value) -> None:
        """Append a line to the change log, if the volume keeps one: the operation as the official client spells it.

        Bytes are escaped; a bool is written with %s.
        """
        if self.rules.log is not None:
            self.txn.put_log(self.rules.log.line(self.now_ns, operation, *values))

    def rule_id(self, rule: Rule) -> int:
        """The number of a stored rule that equals this one. Call before the first intent."""
        if self.rules.acls is None:
            raise Unsupported("the volume was formatted without ACLs")
        found = self.rules.acls.find(rule)
        if found is None:
            raise RuleMissing(rule)
        return found

    def charge(self, space: int, inodes: int, owner: Attr) -> None:
        """Charge the volume, and the owner of a node, for the node or its bytes (volume-format.md 2.5)."""
        if space or inodes:
            self.txn.add_usage(space, inodes)
            self.space += space
            self.inodes += inodes
            if self.rules.quotas is not None:
                self.owned.append((owner.uid, owner.gid, space, inodes))

    def hand_over(self, old: Attr, new: Attr) -> None:
        """A node gets another owner or group: its charge goes along."""
        if self.rules.quotas is not None and (old.uid, old.gid) != (new.uid, new.gid):
            space = space_of(old.kind, old.length)
            self.owned += ((old.uid, old.gid, -space, -1), (new.uid, new.gid, space, 1))

    def need(self, space: int, inodes: int, owner: Attr, parents: Mapping[int, int] = _NOWHERE) -> None:
        """OverQuota or NoSpace when no room is left for this: to the owner, in the volume, below its directories.

        `parents` are directories with the number of entries that this is counted for. Call before the first intent.
        """
        rules = self.rules
        grows = rules.quotas is not None and (space > 0 or inodes > 0)
        if rules.quotas is not None and grows:
            rules.quotas.check_owner(owner.uid, owner.gid, space, inodes)
        if inodes > 0 and rules.room_inodes is not None and inodes > rules.room_inodes:
            raise NoSpace("the volume's inode limit is reached")
        if space > 0 and rules.room_space is not None and space > rules.room_space:
            raise NoSpace("the volume's capacity is reached")
        if rules.quotas is not None and grows:
            rules.quotas.check_entries(parents, space, inodes)

    def stat_entry(self, parent: int, kind: Kind, length: int, sign: int) -> None:
        """Count an entry into (+1) or out of (-1) its directory: one charge per entry, to statistics and quotas."""
        if self.rules.dir_stats and parent != TRASH:
            size = length if kind == Kind.FILE else 0
            space = sign * space_of(kind, length)
            self.stats.append((parent, sign * size, space, sign))
            if self.rules.quotas is not None:
                self.loads.append((parent, space, sign))

    def stat_growth(self, parents: dict[int, int], length: int, space: int) -> None:
        """Count a file's growth into the statistics and quotas of each directory that has entries for it."""
        if self.rules.dir_stats and (length or space):
            self.stats.extend((parent, count * length, count * space, 0) for parent, count in parents.items())
            if self.rules.quotas is not None:
                self.loads.extend((parent, count * space, 0) for parent, count in parents.items())

    def load(self, parent: int, space: int, inodes: int) -> None:
        """Count what lies below a directory that comes (or with negative numbers goes) into the quotas above it."""
        if self.rules.quotas is not None:
            self.loads.append((parent, space, inodes))
