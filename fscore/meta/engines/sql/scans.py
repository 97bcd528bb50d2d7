"""Pages of a directory, and many nodes at once."""

from __future__ import annotations

from collections.abc import Sequence

from fscore.domain.attr import Attr, Entry
from fscore.meta.engines.sql.connections import Link
from fscore.meta.engines.sql.rows import KINDS, attr_of
from fscore.meta.engines.sql.statements import NODES, Statements


def dir_page(sql: Statements, parent: int, after: bytes, count: int, link: Link, *, attrs: bool) -> list[Entry]:
    """Up to `count` entries whose names follow `after`; a node that is missing gives an entry without attributes."""
    args = (parent, after, count)
    if not attrs:
        return [Entry(name, ino, KINDS[kind]) for name, ino, kind in link.all(sql.page_edges, args)]
    return [
        Entry(row[0], row[1], KINDS[row[2]], None if row[3] is None else attr_of(row[3:]))
        for row in link.all(sql.page_entries, args)
    ]


def nodes(sql: Statements, inos: Sequence[int], link: Link) -> list[Attr | None]:
    """The attributes of each node, None for one that is missing."""
    found: dict[int, Attr] = {}
    for start in range(0, len(inos), NODES):
        part = inos[start : start + NODES]
        args = (*part, *(part[0],) * (NODES - len(part)))
        found.update((row[0], attr_of(row[1:])) for row in link.all(sql.get_nodes, args))
    return [found.get(ino) for ino in inos]
