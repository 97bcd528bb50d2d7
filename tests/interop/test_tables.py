"""The official client keeps the tables that we make in a database server, and we those that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fscore
from fscore.admin.format import format_volume
from tests.component.meta.test_sql_tables import mysql_tables, postgres_tables
from tests.interop import official
from tests.kit.engines import SERVERS, SQL_SERVERS

pytestmark = official.NEEDED


def tables(server: Any, kind: str, database: str) -> Any:
    """Columns and indexes, as the server tells them."""
    if kind == "mysql":
        return mysql_tables(server, database)
    with server.client(database) as client:
        return postgres_tables(client)


@pytest.mark.parametrize("ours", [True, False], ids=["made-by-us", "made-by-them"])
@pytest.mark.parametrize("kind", SQL_SERVERS)
def test_a_schema_that_the_other_leaves_alone(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, *, ours: bool
) -> None:
    server, database = request.getfixturevalue(SERVERS[kind]), request.getfixturevalue(f"new_{kind}")
    url = server.url(database)
    if ours:
        format_volume(url, "shared", storage="file", bucket=f"{tmp_path}/blocks/")
    else:
        official.juicefs("format", "--storage", "file", "--bucket", f"{tmp_path}/blocks/", url, "shared")
    before = tables(server, kind, database)
    assert len({column[0] for column in before[0]}) == 21
    with official.mounted(url, tmp_path / "mnt") as mount:
        (mount / "theirs").write_bytes(b"1")
        with fscore.open_volume(url) as volume:
            volume.files.write_bytes("/ours", b"2")
    said = (tmp_path / "mnt.log").read_text()
    assert not [line for line in said.splitlines() if "column" in line or "index" in line or "<ERROR>" in line]
    assert tables(server, kind, database) == before
