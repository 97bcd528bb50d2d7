"""ACL rules in SQL (volume-format.md 3.2): a row each, numbered by the database."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fscore.meta.engines.sql.rows import acl_rule

if TYPE_CHECKING:
    from fscore.meta.engines.sql.compiler import Compiler
    from fscore.meta.engines.sql.links import Link

BITS: Final = ("owner", "group", "mask", "other")
NAMED: Final = ("named_users", "named_groups")
COLUMNS: Final = (*BITS, *NAMED)
ENTRY: Final = 6
"""Bytes of a named entry."""


class AclStatements:
    """The statements about rules."""

    def __init__(self, sql: Compiler) -> None:
        table = sql.tables.acl
        columns = [table.c[name] for name in COLUMNS]
        values = {name: sa.bindparam(f"p_{name}", type_=table.c[name].type) for name in COLUMNS}
        self.add = sql.compiled(sa.insert(table).values(values), *COLUMNS)
        above = table.c.id > sa.bindparam("p_after", type_=table.c.id.type)
        self.above = sql.compiled(sa.select(table.c.id, *columns).where(above).order_by(table.c.id), "after")
        same = [table.c[name] == parameter for name, parameter in values.items()]
        self.find = sql.compiled(sa.select(sa.func.max(table.c.id)).where(*same), *COLUMNS)


def add_acl(link: Link, sql: AclStatements, rule: bytes) -> int:
    """Insert a rule. The number is that of the newest row with this very rule: ours, or one as good."""
    row = _row(rule)
    link.run(sql.add, row)
    found = link.one(sql.find, row)
    assert found is not None
    number: int = found[0]
    return number


def acls(link: Link, sql: AclStatements, after: int) -> dict[int, bytes]:
    """Rules above a number in their binary form."""
    return {row[0]: acl_rule(row[1:]) for row in link.all(sql.above, (after,))}


def _row(rule: bytes) -> tuple[object, ...]:
    """The columns of a rule in the bytes of volume-format.md 4.6."""
    bits = struct.unpack_from(">4H", rule)
    (users,) = struct.unpack_from(">I", rule, 8)
    middle = 12 + users * ENTRY
    return (*bits, rule[12:middle], rule[middle + 4 :])
