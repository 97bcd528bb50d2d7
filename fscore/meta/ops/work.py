"""One run of an operation: the transaction, who asks and when, and what the run changed.

An operation is a function `op(work, ...)`. The engine may run it several times; each run gets a fresh `Work`, and only
what the committed run collected reaches the service: new attributes and entries for its cache, changes of directory
statistics, and the change of usage.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fscore.domain.attr import Attr, Kind, space_of
from fscore.domain.caller import Caller
from fscore.domain.errors import NoSpace
from fscore.domain.ids import TRASH
from fscore.meta.records import Edge
from fscore.meta.txn import MetaTxn

NANO: Final = 1_000_000_000


class Rules(NamedTuple):
    """What the volume and this client prescribe to every operation of a moment.

    `room_space` and `room_inodes` are what capacity and inode limit leave, None without a limit. `skip_dir_ns` is the
    age below which a directory's mtime is not written again (volume-format.md 2.16). `sid` is the own session.
    """

    dir_stats: bool = True
    skip_dir_ns: int = 100_000_000
    room_space: int | None = None
    room_inodes: int | None = None
    sid: int | None = None


class Work:
    """Passed as first argument to every operation; see the module."""

    __slots__ = ("edges", "inodes", "nodes", "now_ns", "queued", "rules", "space", "stats", "txn", "who")

    def __init__(self, txn: MetaTxn, who: Caller, now_ns: int, rules: Rules) -> None:
        self.txn = txn
        self.who = who
        self.now_ns = now_ns
        self.rules = rules
        self.nodes: dict[int, Attr | None] = {}
        self.edges: dict[tuple[int, bytes], Edge | None] = {}
        self.stats: list[tuple[int, int, int, int]] = []
        self.queued: list[tuple[int, int]] = []
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

    def charge(self, space: int, inodes: int) -> None:
        """Charge the volume for nodes or bytes (volume-format.md 2.5)."""
        if space or inodes:
            self.txn.add_usage(space, inodes)
            self.space += space
            self.inodes += inodes

    def need(self, space: int, inodes: int) -> None:
        """NoSpace when the volume's limits leave no room for this. Call before the first intent."""
        rules = self.rules
        if inodes > 0 and rules.room_inodes is not None and inodes > rules.room_inodes:
            raise NoSpace("the volume's inode limit is reached")
        if space > 0 and rules.room_space is not None and space > rules.room_space:
            raise NoSpace("the volume's capacity is reached")

    def stat_entry(self, parent: int, kind: Kind, length: int, sign: int) -> None:
        """Count an entry into (+1) or out of (-1) its directory's statistics; one charge per entry."""
        if self.rules.dir_stats and parent != TRASH:
            size = length if kind == Kind.FILE else 0
            self.stats.append((parent, sign * size, sign * space_of(kind, length), sign))

    def stat_growth(self, parents: dict[int, int], length: int, space: int) -> None:
        """Count a file's growth into the statistics of each directory that has entries for it."""
        if self.rules.dir_stats and (length or space):
            self.stats.extend((parent, count * length, count * space, 0) for parent, count in parents.items())
