"""The tables, as PostgreSQL and MySQL would make them, have the columns that the official client makes there."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from fscore.meta.engines.sql.tables import Tables
from tests.kit.golden import HOME

POSTGRES = {"BIGSERIAL": "bigint", "SERIAL": "integer", "VARCHAR(255)": "character varying(255)"}
MYSQL = {"BIGINT": "bigint(20)", "INTEGER": "int(11)"}


def official(name: str) -> dict[str, dict[str, str]]:
    """Table to column to type, from a dump of the schema."""
    text = (HOME / "ddl" / name).read_text()
    found: dict[str, dict[str, str]] = {}
    for table, body in re.findall(r"CREATE TABLE (?:public\.)?[`\"]?(\w+)[`\"]? \((.*?)\n\)", text, re.DOTALL):
        columns = {}
        for line in body.strip().splitlines():
            match = re.match(r"\s*[`\"]?(\w+)[`\"]? ((?:character varying|\w+)(?:\(\d+\))?)", line)
            if match and match[1] not in {"PRIMARY", "UNIQUE", "KEY", "CONSTRAINT"}:
                columns[match[1]] = match[2].lower()
        found[table] = columns
    return found


@pytest.mark.parametrize(
    ("name", "url", "spelling"),
    [("postgres.sql", "postgresql://", POSTGRES), ("mysql.sql", "mysql://", MYSQL)],
)
def test_columns(name: str, url: str, spelling: dict[str, str]) -> None:
    dialect = sa.make_url(url).get_dialect()()
    wanted = official(name)
    assert len(wanted) == 21
    made = {}
    for table in Tables().metadata.sorted_tables:
        columns = {}
        for column in table.columns:
            kind = str(sa.schema.CreateColumn(column).compile(dialect=dialect)).split()[1]
            columns[column.name] = spelling.get(kind, kind.lower())
        made[table.name] = columns
    assert made == wanted


def test_indexes_have_the_names_that_the_official_client_keeps() -> None:
    indexes = {str(index.name) for table in Tables().metadata.sorted_tables for index in table.indexes}
    text = (HOME / "ddl" / "postgres.sql").read_text()
    assert indexes == set(re.findall(r"CREATE (?:UNIQUE )?INDEX \"(\w+)\"", text))
