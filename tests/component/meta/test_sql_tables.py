"""The tables on real database servers: the official client's, whatever the database's defaults; old ones, and none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import SettingError, UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import open_engine
from fscore.meta.engines.sql.packets import Channel
from fscore.meta.records import Edge
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.bodies import ROOT_ATTR
from tests.kit.engines import SQL_SERVERS, fresh_url
from tests.kit.golden import HOME
from tests.kit.mariadb import MariadbServer
from tests.kit.postgres import PostgresServer

SETTING = Setting(name="sql", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0)


@pytest.fixture(params=SQL_SERVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on every kind of server."""
    return fresh_url(request.param, request, tmp_path)


def test_a_table_prefix(url: str) -> None:
    engine = open_engine(f"{url}{'&' if '?' in url else '?'}table_prefix=team_a")
    assert engine.load_setting() is None
    engine.init_volume(b"{}", {1: ROOT_ATTR})
    engine.transact(lambda t: t.put_edge(1, b"a", Edge(Kind.FILE, 2)))
    engine.close()
    plain = open_engine(url)
    assert plain.load_setting() is None
    plain.close()


@pytest.mark.parametrize("kind", SQL_SERVERS)
def test_a_volume_of_an_older_client_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    """Without the columns of 1.4 nothing is written, nor read (volume-format.md 3.1: they come at its next mount)."""
    name, drop = request.getfixturevalue(f"new_{kind}"), "ALTER TABLE jfs_node DROP COLUMN tier_id"
    server = request.getfixturevalue("postgres_server" if kind == "postgres" else "mariadb_server")
    engine = open_engine(server.url(name))
    MetaService.format(engine, SETTING, FakeClock())
    with server.client(name) as client, client.cursor() as cursor:
        cursor.execute(drop)
    with pytest.raises(SettingError, match=r"tier_id.*official client has to upgrade"):
        MetaService.open(engine, FakeClock(), background=False).getattr(ROOT)
    engine.close()


@pytest.mark.postgres
def test_a_schema_of_its_own(postgres_server: PostgresServer, postgres_url: str) -> None:
    engine = open_engine(f"{postgres_url}&search_path=team_b")
    service = MetaService.open(_formatted(engine), FakeClock(), background=False)
    service.create(Caller.root(), ROOT, b"f", 0o644)
    service.close()
    plain = open_engine(postgres_url)
    assert plain.load_setting() is None
    plain.close()
    with postgres_server.client(postgres_url.rpartition("/")[2].partition("?")[0]) as client:
        assert client.execute("SELECT count(*) FROM team_b.jfs_edge").fetchone() == (1,)
        client.execute("CREATE TABLE not_ours (a int)")  # the database is not lent out again


def _formatted(engine: MetaEngine) -> MetaEngine:
    MetaService.format(engine, SETTING, FakeClock())
    return engine


@pytest.mark.postgres
def test_tables_of_postgres(postgres_server: PostgresServer, new_postgres: str) -> None:
    engine = open_engine(postgres_server.url(new_postgres))
    engine.init_volume(b"{}", {1: ROOT_ATTR})
    engine.close()
    golden = (HOME / "ddl" / "postgres.sql").read_text()
    theirs = postgres_server.create()
    with postgres_server.client(theirs) as client:
        client.execute("\n".join(line for line in golden.splitlines() if not line.startswith("\\")))
        client.execute("RESET search_path")  # which the dump had emptied
        wanted = postgres_tables(client)
    postgres_server.drop(theirs)
    with postgres_server.client(new_postgres) as client:
        made = postgres_tables(client)
    assert len({table for table, *_ in wanted[0]}) == 21
    assert made == wanted


def postgres_tables(client: psycopg.Connection) -> tuple[list[Any], list[Any], list[Any]]:
    """Columns, indexes and sequences of a database."""
    columns = client.execute(
        "SELECT table_name::text, ordinal_position, column_name::text, data_type::text, character_maximum_length, "
        "is_nullable::text, column_default FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    ).fetchall()
    indexes = client.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1").fetchall()
    sequences = client.execute(
        "SELECT sequencename::text, data_type::text, start_value, increment_by FROM pg_sequences ORDER BY 1"
    ).fetchall()
    return columns, indexes, sequences


@pytest.mark.mysql
def test_tables_of_mysql(mariadb_server: MariadbServer, new_mysql: str) -> None:
    engine = open_engine(mariadb_server.url(new_mysql))
    engine.init_volume(b"{}", {1: ROOT_ATTR})
    engine.close()
    theirs = mariadb_server.create()
    with mariadb_server.client(theirs) as client, client.cursor() as cursor:
        for statement in (HOME / "ddl" / "mysql.sql").read_text().split("\n;\n"):
            if statement.strip():
                cursor.execute(statement)
    wanted, made = mysql_tables(mariadb_server, theirs), mysql_tables(mariadb_server, new_mysql)
    mariadb_server.drop(theirs)
    assert len({column[0] for column in wanted[0]}) == 21
    assert made == wanted
    collations = mariadb_server.execute(
        f"SELECT DISTINCT table_collation FROM information_schema.tables WHERE table_schema = '{new_mysql}'"
    )
    assert collations == [("utf8mb4_bin",)], "names are told apart whatever the database's default is"


def mysql_tables(server: MariadbServer, database: str) -> tuple[list[Any], list[Any]]:
    """Columns and indexes of a database."""
    columns = server.execute(
        "SELECT table_name, ordinal_position, column_name, column_type, is_nullable, column_default, extra "
        f"FROM information_schema.columns WHERE table_schema = '{database}' ORDER BY 1, 2"
    )
    indexes = server.execute(
        "SELECT table_name, index_name, seq_in_index, column_name, non_unique "
        f"FROM information_schema.statistics WHERE table_schema = '{database}' ORDER BY 1, 2, 3"
    )
    return columns, indexes


@pytest.mark.mysql
def test_names_are_told_apart_in_a_careless_database(mariadb_server: MariadbServer, new_mysql: str) -> None:
    mariadb_server.execute(f"ALTER DATABASE {new_mysql} CHARACTER SET latin1 COLLATE latin1_swedish_ci")
    engine = open_engine(mariadb_server.url(new_mysql))
    engine.init_volume('{"Name": "日本"}'.encode(), {1: ROOT_ATTR})

    def body(txn: MetaTxn) -> None:
        txn.put_xattr(2, b"user.a", b"1")
        txn.put_xattr(2, b"user.A", b"2")

    engine.transact(body)
    with engine.view() as view:
        assert view.xattrs(2) == {b"user.a": b"1", b"user.A": b"2"}
    assert engine.load_setting() == '{"Name": "日本"}'.encode()
    engine.close()


def test_no_such_database(url: str) -> None:
    engine = open_engine(url.replace("/v", "/none"))
    with pytest.raises(SettingError, match="create the database"):
        engine.load_setting()
    engine.close()


@pytest.mark.parametrize(
    "address", ["postgres://u@127.0.0.1:1/d", "mysql://u@(127.0.0.1:1)/d", "mysql://u@unix(/no)/d"]
)
def test_nobody_answers(address: str) -> None:
    engine = open_engine(address)
    with pytest.raises(UnavailableError):
        engine.load_setting()
    engine.close()


@pytest.mark.postgres
def test_a_wrong_user(postgres_server: PostgresServer, postgres_url: str) -> None:
    engine = open_engine(postgres_url.replace("postgres@", "nobody@"))
    with pytest.raises((UnavailableError, SettingError), match="nobody"):
        engine.load_setting()
    engine.close()


@pytest.mark.mysql
def test_where_locks_cannot_be_shared(mysql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TiDB and OceanBase, known by their version; what they are sent runs on MariaDB, too."""
    monkeypatch.setattr(pymysql.connections.Connection, "get_server_info", lambda _: "8.0.11-TiDB-v7.5.0")
    sent: list[bytes] = []
    ask = Channel.ask

    def listen(channel: Channel, text: bytes, count: int) -> Any:
        sent.append(text)
        return ask(channel, text, count)

    monkeypatch.setattr(Channel, "ask", listen)
    engine = open_engine(mysql_url)
    engine.init_volume(b"{}", {1: ROOT_ATTR})

    def body(txn: MetaTxn) -> None:
        assert txn.node(1) == ROOT_ATTR
        assert txn.edge(1, b"a") is None
        txn.put_edge(1, b"a", Edge(Kind.FILE, 2))

    engine.transact(body)
    engine.close()
    assert any(b"FOR UPDATE" in text for text in sent)
    assert not any(b"SHARE MODE" in text or b"READ ONLY" in text for text in sent)


@pytest.mark.mysql
@pytest.mark.parametrize(
    ("tls", "error"),
    [
        ("true", "SSL is required"),
        ("skip-verify", "SSL is required"),
        ("sometimes", "tls=sometimes"),
        ("preferred", ""),
    ],
)
def test_encryption_that_is_asked_for_is_had_or_refused(mysql_url: str, tls: str, error: str) -> None:
    """The server has no certificate."""
    engine = open_engine(f"{mysql_url}?tls={tls}")
    if error:
        with pytest.raises((UnavailableError, SettingError), match=error):
            engine.load_setting()
    else:
        assert engine.load_setting() is None
    engine.close()
