"""Constructs of SQLAlchemy Core to SQL texts for one dialect, with their parameters in a known order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from fscore.meta.engines.sql.dialects import Dialect
    from fscore.meta.engines.sql.tables import Tables


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
