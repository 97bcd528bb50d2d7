"""The statements that `optimistic` needs beside those of every engine: reads that lock, and what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from fscore.meta.engines.sql.rows import NODE_COLUMNS
from fscore.meta.engines.sql.statements import Statements


class GuardStatements:
    """Locking reads by the plain read that they repeat, and which inode a read is about."""

    def __init__(self, sql: Statements) -> None:
        shared, exclusive = sql.dialect.shared, sql.dialect.exclusive
        self.shared_node: Final = sql.get_node + shared
        self.exclusive_node: Final = sql.get_node + exclusive
        self.shared_edge: Final = sql.get_edge + shared
        self.exclusive_edge: Final = sql.get_edge + exclusive
        quotas = (sql.quotas.directory.get, sql.quotas.owner.get)
        self.locking: Final[Mapping[str, str]] = {text: text + exclusive for text in (sql.get_chunk, *quotas)}
        self.of_inode: Final = frozenset(
            {sql.get_node, sql.get_chunk, sql.get_symlink, sql.get_xattr, sql.get_xattrs, sql.get_parents}
        )
        self.of_directory: Final = frozenset({sql.any_edge, sql.all_edges})
        self.uncompared: Final = frozenset({sql.chunk_indexes, sql.all_counters})
        edge, ref = sql.tables.edge, sql.tables.chunk_ref
        names = ("parent", "name", "inode", "type")
        values = {name: sa.bindparam(f"p_{name}", type_=edge.c[name].type) for name in names}
        self.add_edge: Final = sql.compiled(sql.dialect.insert(edge).values(values), *names)
        here = ref.c.chunkid == sa.bindparam("p_id")
        self.get_slice: Final = sql.compiled(sa.select(ref.c.chunkid).where(here), "id")
        self.lineage: Final = _lineage(sql)
        self.wanted: Final[Mapping[str, str]] = {
            "node": sql.get_node,
            "file": sql.get_node,
            "lineage": self.lineage,
            "edge": sql.get_edge,
            "chunk": sql.get_chunk,
            "xattr": sql.get_xattr,
            "xattrs": sql.get_xattrs,
            "parents": sql.get_parents,
            "symlink": sql.get_symlink,
            "has_entries": sql.any_edge,
            "flocks": sql.locks.get_flocks,
            "plocks": sql.locks.get_plocks,
        }
        """By the name of the reading method whose arguments are the statement's."""


def _lineage(sql: Statements) -> str:
    """A directory and all above it, with their numbers, in no order. UNION ends where a tree goes round in circles."""
    node = sql.tables.node
    columns = [node.c[name] for name in NODE_COLUMNS]
    start = sa.select(*columns).where(node.c.inode == sa.bindparam("p_inode"))
    below = start.cte("below", recursive=True)
    up = sa.select(*columns).join(below, node.c.inode == below.c.parent)
    found = below.union(up)
    return sql.compiled(sa.select(*(found.c[name] for name in NODE_COLUMNS)), "inode")


@functools.cache
def guards(sql: Statements) -> GuardStatements:
    """Those beside a set of statements, compiled once in a process."""
    return GuardStatements(sql)
