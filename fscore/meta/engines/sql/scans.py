"""Pages of a directory."""

from __future__ import annotations

from fscore.domain.attr import Entry
from fscore.meta.engines.sql.connections import Link
from fscore.meta.engines.sql.rows import KINDS, attr_of
from fscore.meta.engines.sql.statements import Statements


def dir_page(sql: Statements, parent: int, after: bytes, count: int, link: Link, *, attrs: bool) -> list[Entry]:
    """Up to `count` entries whose names follow `after`; a node that is missing gives an entry without attributes."""
    args = (parent, after, count)
    if not attrs:
        return [Entry(name, ino, KINDS[kind]) for name, ino, kind in link.all(sql.page_edges, args)]
    return [
        Entry(row[0], row[1], KINDS[row[2]], None if row[3] is None else attr_of(row[3:]))
        for row in link.all(sql.page_entries, args)
    ]
