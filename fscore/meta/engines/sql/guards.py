"""The statements that `optimistic` needs beside those of every engine: reads that lock, and what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from fscore.meta.engines.sql.rows import NODE_COLUMNS
from fscore.meta.engines.sql.statements import Statements

DEEPEST: Final = 8
"""Names that one statement follows; MySQL joins 61 tables at most, and longer paths are rare."""


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
        self.walks: Final = tuple(_walk(sql, depth) for depth in range(1, DEEPEST + 1))
        """By the number of names less one; parameters: the names after the first, the directory, the first name."""
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


def _walk(sql: Statements, depth: int) -> str:
    """The nodes of `depth` names, one below the other, side by side in one row; NULL from where there is none."""
    edges = [sql.tables.edge.alias(f"e{level}") for level in range(depth)]
    nodes = [sql.tables.node.alias(f"n{level}") for level in range(depth)]
    names = [sa.bindparam(f"p_name{level}", type_=sql.tables.edge.c.name.type) for level in range(depth)]
    tables: sa.FromClause = edges[0].outerjoin(nodes[0], nodes[0].c.inode == edges[0].c.inode)
    for level in range(1, depth):
        here = sa.and_(edges[level].c.parent == nodes[level - 1].c.inode, edges[level].c.name == names[level])
        tables = tables.outerjoin(edges[level], here)
        tables = tables.outerjoin(nodes[level], nodes[level].c.inode == edges[level].c.inode)
    columns = [node.c[name].label(f"{name}_{level}") for level, node in enumerate(nodes) for name in NODE_COLUMNS]
    start = sa.and_(edges[0].c.parent == sa.bindparam("p_parent"), edges[0].c.name == names[0])
    order = (*(f"name{level}" for level in range(1, depth)), "parent", "name0")
    return sql.compiled(sa.select(*columns).select_from(tables).where(start), *order)


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
