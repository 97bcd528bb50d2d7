"""Locks in SQL (volume-format.md 3.2, 3.3): a row for each owner, whose 64-bit number is stored as a signed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fscore.domain.locks import LockKind, Ranges, parse
from fscore.meta.records import LockOwner

if TYPE_CHECKING:
    from fscore.meta.engines.sql.compiler import Compiler

SHARED: Final = ord("R")
EXCLUSIVE: Final = ord("W")
TYPES: Final = {LockKind.READ: SHARED, LockKind.WRITE: EXCLUSIVE}
_SIGN: Final = 1 << 63
KEY: Final = ("inode", "sid", "owner")


class LockStatements:
    """The statements about locks. `hold` locks the file's row: a lock's row may not be there to be locked yet."""

    def __init__(self, sql: Compiler) -> None:
        node, dialect = sql.tables.node, sql.dialect
        whole, ranges = sql.tables.flock, sql.tables.plock
        inode: sa.BindParameter[int] = sa.bindparam("p_inode")
        self.hold = sql.compiled(dialect.for_update(sa.select(node.c.inode).where(node.c.inode == inode)), "inode")
        self.get_flocks, self.del_flock = _reading(sql, whole, whole.c.ltype)
        self.get_plocks, self.del_plock = _reading(sql, ranges, dialect.as_blob(ranges.c.records))
        self.put_flock = _putting(sql, whole, "ltype")
        self.put_plock = _putting(sql, ranges, "records")


def _reading(sql: Compiler, table: sa.Table, value: sa.ColumnElement[object]) -> tuple[str, str]:
    """Select by inode, delete by key."""
    names: list[sa.BindParameter[int]] = [sa.bindparam(f"p_{name}") for name in KEY]
    here = [table.c[name] == parameter for name, parameter in zip(KEY, names, strict=True)]
    query = sa.select(table.c.sid, table.c.owner, value).where(here[0]).order_by(table.c.sid, table.c.owner)
    return sql.compiled(query, "inode"), sql.compiled(sa.delete(table).where(*here), *KEY)


def _putting(sql: Compiler, table: sa.Table, column: str) -> str:
    names = (*KEY, column)
    values = {name: sa.bindparam(f"p_{name}", type_=table.c[name].type) for name in names}
    return sql.compiled(sql.dialect.upsert(sql.dialect.insert(table).values(values), KEY, (column,)), *names)


def key_of(ino: int, owner: LockOwner) -> tuple[int, int, int]:
    """The key of an owner's row."""
    return ino, owner.sid, owner.owner - 2 * _SIGN if owner.owner >= _SIGN else owner.owner


def owner_of(sid: int, owner: int) -> LockOwner:
    """The owner in a row."""
    return LockOwner(sid, owner + 2 * _SIGN if owner < 0 else owner)


def kind_of(ltype: int) -> LockKind:
    """The kind in a row of `flock`."""
    return LockKind.READ if ltype == SHARED else LockKind.WRITE


def ranges_of(blob: bytes) -> Ranges:
    """The ranges in a row of `plock`."""
    return parse(bytes(blob))
