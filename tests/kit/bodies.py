"""Bodies of transactions that tests of engines run: like those of the service, without its rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import Exists, NotFound
from fscore.meta.records import Edge, want_edge, want_node
from fscore.meta.txn import MetaTxn

ROOT_ATTR: Final = Attr(Kind.DIRECTORY, 0o777, nlink=2, length=4096, parent=1)
FILE: Final = Attr(Kind.FILE, 0o644, parent=1)


def create(name: bytes, ino: int) -> Callable[[MetaTxn], int]:
    """A body like that of create: two reads, four writes; the root is a nanosecond younger then."""

    def body(txn: MetaTxn) -> int:
        txn.prefetch(want_node(1), want_edge(1, name))
        parent = txn.node(1)
        if parent is None:
            raise NotFound("1")
        if txn.edge(1, name) is not None:
            raise Exists(repr(name))
        txn.put_node(ino, FILE)
        txn.put_edge(1, name, Edge(Kind.FILE, ino))
        txn.put_node(1, msgspec.structs.replace(parent, mtime_ns=parent.mtime_ns + 1))
        txn.add_usage(4096, 1)
        return ino

    return body


def bump(txn: MetaTxn) -> None:
    """One more link of the root."""
    attr = txn.node(1)
    assert attr is not None
    txn.put_node(1, msgspec.structs.replace(attr, nlink=attr.nlink + 1))
