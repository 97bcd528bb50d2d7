"""Constructs of SQLAlchemy Core to SQL texts for one dialect, with their parameters in a known order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from fscore.meta.engines.sql.dialects import Dialect
    from fscore.meta.engines.sql.tables import Tables


ZERO: Final[sa.ColumnElement[int]] = sa.literal_column("0")
ONE: Final[sa.ColumnElement[int]] = sa.literal_column("1")


def p(name: str, kind: sa.types.TypeEngine[Any] | None = None) -> sa.BindParameter[object]:
    """A positional parameter; the name only says in which order it stands."""
    return sa.bindparam("p_" + name, type_=kind)


class Compiler:
    """One dialect and one set of tables."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self.tables = tables
        self.dialect = dialect

    def compiled(self, construct: sa.sql.ClauseElement, *order: str) -> str:
        """The text of a statement, whose parameters must stand in this order."""
        made = construct.compile(dialect=self.dialect.sqlalchemy)
        positions = tuple(name.removeprefix("p_") for name in getattr(made, "positiontup", None) or ())
        if positions != order:
            raise AssertionError(f"parameters {positions} of {made} are not {order}")
        return str(made)

    def page(self, *columns: sa.ColumnElement[Any], where: sa.ColumnElement[bool] | None = None) -> str:
        """A page of a scan: rows whose first column follows the parameter, in its order."""
        key = columns[0]
        query = sa.select(*columns).where(key > p("after")).order_by(key).limit(p("n")).offset(ZERO)
        return self.compiled(query if where is None else query.where(where), "after", "n")
