"""Quotas and the change log in SQL (volume-format.md 2.15, 3.2): a table for directories, one for users and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.meta.engines.sql.connections import Link

if TYPE_CHECKING:
    from fscore.meta.engines.sql.compiler import Compiler

NUMBERS: Final = ("max_space", "max_inodes", "used_space", "used_inodes")


class QuotaStatements:
    """The statements about quotas; those of users and groups take the kind first."""

    def __init__(self, sql: Compiler) -> None:
        self.directory = QuotaTable(sql, sql.tables.dir_quota, ("inode",))
        self.owner = QuotaTable(sql, sql.tables.user_group_quota, ("qtype", "qkey"))
        owners, stats, log = sql.tables.user_group_quota, sql.tables.dir_stats, sql.tables.change_log
        self.clear_owners = sql.compiled(sa.delete(owners))
        self.clear_dir_stats = sql.compiled(sa.delete(stats))
        entry: sa.BindParameter[str] = sa.bindparam("p_entry", type_=log.c.entry.type)
        self.scan_log = sql.page(log.c.id, log.c.entry)
        self.count_log = sql.compiled(sa.select(sa.func.count()).select_from(log))
        self.trim_log = sql.compiled(sa.delete(log).where(log.c.id <= sa.bindparam("p_id")), "id")
        self.put_log = sql.compiled(sql.dialect.insert(log).values(entry=entry), "entry")

    def of(self, key: QuotaKey) -> tuple[QuotaTable, tuple[int, ...]]:
        """The statements for a quota's table, and the key of its row."""
        if key.kind is QuotaKind.DIRECTORY:
            return self.directory, (key.number,)
        return self.owner, (key.kind.value, key.number)


class QuotaTable:
    """The statements about one of the two tables."""

    def __init__(self, sql: Compiler, table: sa.Table, key: tuple[str, ...]) -> None:
        here = [table.c[name] == sa.bindparam(f"p_{name}") for name in key]
        numbers = [table.c[name] for name in NUMBERS]
        columns = [table.c[name] for name in key]
        names = (*key, *NUMBERS)
        values = {name: sa.bindparam(f"p_{name}", type_=table.c[name].type) for name in names}
        self.get = sql.compiled(sa.select(*numbers).where(*here), *key)
        self.insert = sql.compiled(sql.dialect.insert(table).values(values), *names)
        self.put = sql.compiled(sql.dialect.upsert(sql.dialect.insert(table).values(values), key, NUMBERS), *names)
        grown = ((table.c[name], table.c[name] + sa.bindparam(f"p_{name}")) for name in NUMBERS[2:])
        self.add = sql.compiled(sa.update(table).ordered_values(*grown).where(*here), *NUMBERS[2:], *key)
        self.delete = sql.compiled(sa.delete(table).where(*here), *key)
        self.everything = sql.compiled(sa.select(*columns, *numbers).order_by(*columns))


def load(link: Link, sql: QuotaStatements, kinds: Sequence[QuotaKind]) -> dict[QuotaKey, Quota]:
    """Every quota of these kinds."""
    found: dict[QuotaKey, Quota] = {}
    if QuotaKind.DIRECTORY in kinds:
        for ino, *numbers in link.all(sql.directory.everything):
            found[QuotaKey(QuotaKind.DIRECTORY, ino)] = Quota(*numbers)
    if QuotaKind.USER in kinds or QuotaKind.GROUP in kinds:
        for kind, number, *numbers in link.all(sql.owner.everything):
            if kind in kinds:
                found[QuotaKey(QuotaKind(kind), number)] = Quota(*numbers)
    return found
