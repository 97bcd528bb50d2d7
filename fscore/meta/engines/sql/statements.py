"""Every statement of the SQL engine, written in SQLAlchemy Core, compiled once for a dialect and then run as text.

A statement is the SQL text; its parameters are positional, in the order of the names given where it is made here
(`compiled` checks that). What differs between databases (upsert, concatenation, casts) is in `dialects.Dialect`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fscore.meta.engines.sql.acls import AclStatements
from fscore.meta.engines.sql.compiler import ONE, ZERO, Compiler, p
from fscore.meta.engines.sql.locks import LockStatements
from fscore.meta.engines.sql.quotas import QuotaStatements
from fscore.meta.engines.sql.rows import NODE_COLUMNS
from fscore.meta.engines.sql.tables import FORMAT, I64, Tables

if TYPE_CHECKING:
    from fscore.meta.engines.sql.dialects import Dialect
    from fscore.meta.engines.sql.links import Link

EDGE_KEY: Final = ("parent", "name")
NODES: Final = 128
"""Nodes that one statement fetches; fewer are asked for by naming one of them again."""


class Statements(Compiler):
    """The statements for one dialect and one set of tables. Attributes are SQL texts, made by groups below."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        super().__init__(tables, dialect)
        self._nodes()
        self._edges()
        self._chunks()
        self._slices()
        self._xattrs()
        self._counters()
        self._clients()
        self._queues()
        self._stats()
        self._scans()
        self.locks = LockStatements(self)
        self.acls = AclStatements(self)
        self.quotas = QuotaStatements(self)
        self.update_node = functools.cache(self._update_node)

    def _insert(self, table: sa.Table, *columns: str, **fixed: object) -> Any:  # noqa: ANN401 - see dialects.Insert
        values: dict[str, object] = {name: p(name, table.c[name].type) for name in columns}
        return self.dialect.insert(table).values({**values, **fixed})

    def _nodes(self) -> None:
        t = self.tables.node
        columns = [t.c[name] for name in NODE_COLUMNS]
        self.get_node = self.compiled(sa.select(*columns[1:]).where(t.c.inode == p("inode")), "inode")
        self.get_nodes = self.compiled(
            sa.select(*columns).where(t.c.inode.in_([p(f"i{number}") for number in range(NODES)])),
            *(f"i{number}" for number in range(NODES)),
        )
        self.add_node = self.compiled(self._insert(t, *NODE_COLUMNS), *NODE_COLUMNS)
        self.del_node = self.compiled(sa.delete(t).where(t.c.inode == p("inode")), "inode")
        self.scan_nodes = self.compiled(
            sa.select(*columns).where(t.c.inode > p("after")).order_by(t.c.inode).limit(p("n")).offset(ZERO),
            "after",
            "n",
        )
        self.seed_node = self.compiled(self.dialect.insert_absent(self._insert(t, *NODE_COLUMNS)), *NODE_COLUMNS)

    def _update_node(self, columns: tuple[str, ...]) -> str:
        """Set these columns (`nlink` is added to) of the node that is the last parameter."""
        t = self.tables.node
        values = {t.c[name]: t.c.nlink + p(name) if name == "nlink" else p(name) for name in columns}
        ordered = sa.update(t).ordered_values(*values.items()).where(t.c.inode == p("where"))
        return self.compiled(ordered, *columns, "where")

    def _edges(self) -> None:
        t, node = self.tables.edge, self.tables.node
        here = sa.and_(t.c.parent == p("parent"), t.c.name == p("name", t.c.name.type))
        self.get_edge = self.compiled(sa.select(t.c.type, t.c.inode).where(here), "parent", "name")
        self.put_edge = self.compiled(
            self.dialect.upsert(self._insert(t, "parent", "name", "inode", "type"), EDGE_KEY, ("inode", "type")),
            "parent", "name", "inode", "type",
        )  # fmt: skip
        self.del_edge = self.compiled(sa.delete(t).where(here), "parent", "name")
        self.any_edge = self.compiled(sa.select(ONE).where(t.c.parent == p("parent")).limit(ONE).offset(ZERO), "parent")
        columns = (t.c.name, t.c.inode, t.c.type)
        self.all_edges = self.compiled(sa.select(*columns).where(t.c.parent == p("parent")), "parent")
        page = sa.and_(t.c.parent == p("parent"), t.c.name > p("after", t.c.name.type))
        self.page_edges = self.compiled(
            sa.select(*columns).where(page).order_by(t.c.name).limit(p("n")).offset(ZERO), "parent", "after", "n"
        )
        attrs = [node.c[name] for name in NODE_COLUMNS[1:]]
        joined = t.outerjoin(node, node.c.inode == t.c.inode)
        self.page_entries = self.compiled(
            sa.select(*columns, *attrs).select_from(joined).where(page).order_by(t.c.name).limit(p("n")).offset(ZERO),
            "parent", "after", "n",
        )  # fmt: skip
        self.get_parents = self.compiled(
            sa.select(t.c.parent, sa.func.count()).where(t.c.inode == p("inode")).group_by(t.c.parent), "inode"
        )

    def _chunks(self) -> None:
        t = self.tables.chunk
        here = sa.and_(t.c.inode == p("inode"), t.c.indx == p("indx"))
        blob = self.dialect.as_blob(t.c.slices)
        self.get_chunk = self.compiled(sa.select(blob).where(here), "inode", "indx")
        grown = self.dialect.as_blob(self.dialect.concat(t.c.slices, self.dialect.excluded("slices", t)))
        self.append = self.compiled(
            self.dialect.upsert_set(self._insert(t, "inode", "indx", "slices"), ("inode", "indx"), {"slices": grown}),
            "inode", "indx", "slices",
        )  # fmt: skip
        more = self.dialect.as_blob(self.dialect.concat(t.c.slices, p("more", t.c.slices.type)))
        self.append_existing = self.compiled(
            sa.update(t).values({t.c.slices: more}).where(here), "more", "inode", "indx"
        )
        whole = p("whole", t.c.slices.type)
        self.set_chunk = self.compiled(sa.update(t).values({t.c.slices: whole}).where(here), "whole", "inode", "indx")
        self.del_chunk = self.compiled(sa.delete(t).where(here), "inode", "indx")
        between = sa.and_(t.c.inode == p("inode"), t.c.indx >= p("first"), t.c.indx < p("stop"))
        self.chunk_indexes = self.compiled(
            sa.select(t.c.indx).where(between).order_by(t.c.indx), "inode", "first", "stop"
        )
        self.scan_chunks = self.page(t.c.id, t.c.inode, t.c.indx, blob)

    def _slices(self) -> None:
        t = self.tables.chunk_ref
        self.new_slice = self.compiled(self._insert(t, "chunkid", "size", refs=ONE), "chunkid", "size")
        here = sa.and_(t.c.chunkid == p("id"), t.c.size == p("size"))
        self.add_refs = self.compiled(
            sa.update(t).values({t.c.refs: t.c.refs + p("count")}).where(here), "count", "id", "size"
        )
        gone = t.c.refs <= ZERO
        self.dead_slices = self.compiled(sa.select(t.c.chunkid, t.c.size).where(gone).limit(p("n")).offset(ZERO), "n")
        self.forget_slice = self.compiled(sa.delete(t).where(here, gone), "id", "size")
        self.scan_refs = self.page(t.c.chunkid, t.c.size, t.c.refs)

    def _xattrs(self) -> None:
        link, t = self.tables.symlink, self.tables.xattr
        self.get_symlink = self.compiled(sa.select(link.c.target).where(link.c.inode == p("inode")), "inode")
        self.put_symlink = self.compiled(
            self.dialect.upsert(self._insert(link, "inode", "target"), ("inode",), ("target",)), "inode", "target"
        )
        self.del_symlink = self.compiled(sa.delete(link).where(link.c.inode == p("inode")), "inode")
        text = self.dialect.as_text(p("name", sa.LargeBinary()))
        here = sa.and_(t.c.inode == p("inode"), t.c.name == text)
        self.get_xattr = self.compiled(sa.select(t.c.value).where(here), "inode", "name")
        self.get_xattrs = self.compiled(sa.select(t.c.name, t.c.value).where(t.c.inode == p("inode")), "inode")
        self.put_xattr = self.compiled(
            self.dialect.upsert(
                self.dialect.insert(t).values(inode=p("inode"), name=text, value=p("value", t.c.value.type)),
                ("inode", "name"),
                ("value",),
            ),
            "inode", "name", "value",
        )  # fmt: skip
        self.del_xattr = self.compiled(sa.delete(t).where(here), "inode", "name")
        self.del_xattrs = self.compiled(sa.delete(t).where(t.c.inode == p("inode")), "inode")
        rule = self.tables.acl
        bits = (rule.c[name] for name in ("owner", "group", "mask", "other", "named_users", "named_groups"))
        self.get_acl = self.compiled(sa.select(*bits).where(rule.c.id == p("id")), "id")

    def _counters(self) -> None:
        t, setting = self.tables.counter, self.tables.setting
        self.get_counter = self.compiled(
            self.dialect.for_update(sa.select(t.c.value).where(t.c.name == p("name"))), "name"
        )
        self.put_counter = self.compiled(
            self.dialect.upsert(self._insert(t, "name", "value"), ("name",), ("value",)), "name", "value"
        )
        total = t.c.value + self.dialect.excluded("value", t)
        self.add_counter = self.compiled(
            self.dialect.upsert_set(self._insert(t, "name", "value"), ("name",), {"value": total}), "name", "value"
        )
        self.all_counters = self.compiled(sa.select(t.c.name, t.c.value))
        row = setting.c.name == sa.literal_column(f"'{FORMAT}'")
        self.get_setting = self.compiled(sa.select(setting.c.value).where(row))
        self.add_setting = self.compiled(self._insert(setting, "value", name=sa.literal_column(f"'{FORMAT}'")), "value")
        self.put_setting = self.compiled(sa.update(setting).values(value=p("text")).where(row), "text")

    def _clients(self) -> None:
        t, held = self.tables.session2, self.tables.sustained
        self.add_session = self.compiled(self._insert(t, "sid", "expire", "info"), "sid", "expire", "info")
        self.keep_session = self.compiled(
            sa.update(t).values({t.c.expire: p("until")}).where(t.c.sid == p("sid")), "until", "sid"
        )
        self.all_sessions = self.compiled(sa.select(t.c.sid, t.c.expire, t.c.info).order_by(t.c.sid))
        self.sustain = self.compiled(self.dialect.insert_absent(self._insert(held, "sid", "inode")), "sid", "inode")
        both = sa.and_(held.c.sid == p("sid"), held.c.inode == p("inode"))
        self.unsustain = self.compiled(sa.delete(held).where(both), "sid", "inode")
        self.get_sustained = self.compiled(
            sa.select(held.c.inode).where(held.c.sid == p("sid")).order_by(held.c.inode), "sid"
        )
        self.all_sustained = self.compiled(sa.select(held.c.sid, held.c.inode).order_by(held.c.sid, held.c.inode))
        self.drop_session = tuple(
            self.compiled(sa.delete(table).where(table.c.sid == p("sid")), "sid")
            for table in (self.tables.flock, self.tables.plock, self.tables.session2)
        )
        old = sa.table(f"{self.tables.prefix}session", sa.column("sid", I64), sa.column("heartbeat", I64))
        self.legacy_sessions = self.compiled(sa.select(old.c.sid, old.c.heartbeat).order_by(old.c.sid))
        self.drop_legacy = self.compiled(sa.delete(old).where(old.c.sid == p("sid")), "sid")

    def _queues(self) -> None:
        t, parked, loose = self.tables.delfile, self.tables.delslices, self.tables.detached_node
        self.put_delfile = self.compiled(
            self.dialect.upsert(self._insert(t, "inode", "length", "expire"), ("inode",), ("length", "expire")),
            "inode", "length", "expire",
        )  # fmt: skip
        query = sa.select(t.c.inode, t.c.length).where(t.c.expire <= p("before"))
        self.delfiles = self.compiled(
            query.order_by(t.c.expire, t.c.inode).limit(p("n")).offset(ZERO),
            "before",
            "n",
        )
        self.forget_delfile = self.compiled(
            sa.delete(t).where(t.c.inode == p("inode"), t.c.length == p("length")), "inode", "length"
        )
        self.all_delfiles = self.compiled(
            sa.select(t.c.inode, t.c.length)
            .where(t.c.inode > p("after"))
            .order_by(t.c.inode)
            .limit(p("n"))
            .offset(ZERO),
            "after",
            "n",
        )
        columns = ("chunkid", "deleted", "slices")
        self.put_delayed = self.compiled(
            self.dialect.upsert(self._insert(parked, *columns), columns[:1], columns[1:]), *columns
        )
        blob = self.dialect.as_blob(parked.c.slices)
        self.delayed = self.compiled(
            sa.select(parked.c.chunkid, parked.c.deleted, blob)
            .where(parked.c.deleted < p("before"))
            .order_by(parked.c.chunkid)
            .limit(p("n")).offset(ZERO),
            "before", "n",
        )  # fmt: skip
        here = sa.and_(parked.c.chunkid == p("id"), parked.c.deleted == p("at"))
        self.get_delayed = self.compiled(self.dialect.for_update(sa.select(blob).where(here)), "id", "at")
        self.forget_delayed = self.compiled(sa.delete(parked).where(here), "id", "at")
        self.all_delayed = self.page(parked.c.chunkid, blob)
        self.detach = self.compiled(
            self.dialect.upsert(self._insert(loose, "inode", "added"), ("inode",), ("added",)), "inode", "added"
        )
        self.attach = self.compiled(sa.delete(loose).where(loose.c.inode == p("inode")), "inode")
        self.all_detached = self.compiled(sa.select(loose.c.inode, loose.c.added).order_by(loose.c.inode))

    def _stats(self) -> None:
        t, quota = self.tables.dir_stats, self.tables.dir_quota
        numbers = ("data_length", "used_space", "used_inodes")
        stored = [t.c[name] for name in numbers]
        self.get_dir_stat = self.compiled(sa.select(*stored).where(t.c.inode == p("inode")), "inode")
        self.put_dir_stat = self.compiled(
            self.dialect.upsert(self._insert(t, "inode", *numbers), ("inode",), numbers), "inode", *numbers
        )
        grown = ((column, column + p(column.name)) for column in stored)
        self.add_dir_stat = self.compiled(
            sa.update(t).ordered_values(*grown).where(t.c.inode == p("inode")), *numbers, "inode"
        )
        self.del_dir_records = tuple(
            self.compiled(sa.delete(table).where(table.c.inode == p("inode")), "inode") for table in (t, quota)
        )
        self.scan_dir_stats = self.page(t.c.inode, *stored)

    def _scans(self) -> None:
        t, node, users = self.tables.edge, self.tables.node, self.tables.user_group_quota
        self.scan_edges = self.page(t.c.id, t.c.parent, t.c.name, t.c.type, t.c.inode)
        loose = sa.func.coalesce(node.c.parent, ZERO) == ZERO
        self.scan_linked = self.page(node.c.inode, where=loose)
        self.features = {
            "acl": self._any(self.tables.acl),
            "dir_quota": self._any(self.tables.dir_quota),
            "user_quota": self._any(users),
            "locks": self._any(self.tables.flock, self.tables.plock),
            "change_log": self._any(self.tables.change_log),
        }

    def _any(self, *tables: sa.Table) -> str:
        return self.compiled(sa.union_all(*(_limited(sa.select(ONE).select_from(table)) for table in tables)))


def _limited(query: sa.Select[Any]) -> sa.Select[Any]:
    inner = query.limit(ONE).offset(ZERO).subquery()
    return sa.select(ONE).select_from(inner)


@functools.cache
def statements(dialect: Dialect, prefix: str) -> Statements:
    """The statements for a dialect and a table prefix, compiled once in a process."""
    return Statements(Tables(prefix), dialect)


def create_all(link: Link, tables: Tables, dialect: Dialect) -> None:
    """Make every missing table and index."""
    known = dialect.indexes(link)
    for table in tables.metadata.sorted_tables:
        link.run(str(sa.schema.CreateTable(table, if_not_exists=True).compile(dialect=dialect.sqlalchemy)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if str(index.name) not in known:
                link.run(str(sa.schema.CreateIndex(index).compile(dialect=dialect.sqlalchemy)))
