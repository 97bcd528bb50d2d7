"""The SQLite engine against real files: schema, types, locks of other clients, broken files, forks."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import CorruptError, SettingError, UnavailableError
from fscore.domain.slices import SliceRecord, pack
from fscore.meta.engines.sql.connections import Connections
from fscore.meta.engines.sql.dialects import Sqlite
from fscore.meta.engines.sql.engine import PATIENCE_S, SqlEngine, open_sqlite
from fscore.meta.engines.sql.links import Connection
from fscore.meta.engines.sql.places import FilePlace, Place
from fscore.meta.records import Counter, Edge, Session
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.golden import HOME

ROOT_ATTR = Attr(Kind.DIRECTORY, 0o777, nlink=2, length=4096, parent=1)
FILE = Attr(Kind.FILE, 0o644, parent=1)
RECORD = SliceRecord(0, 7, 256, 0, 256)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "meta.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SqlEngine]:
    """An engine with a new volume."""
    opened = open_sqlite(f"sqlite3://{path}")
    opened.init_volume(b"{}", {1: ROOT_ATTR})
    yield opened
    opened.close()


@pytest.fixture
def raw(engine: SqlEngine, path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to the same file, that decodes no text."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    connection.text_factory = bytes
    yield connection
    connection.close()


def schema(connection: sqlite3.Connection) -> dict[str, Any]:
    """Columns, indexes and AUTOINCREMENT of every table."""
    found = {}
    tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name LIKE 'jfs%'")
    for name, sql in tables.fetchall():
        indexes = {
            row[1]: (row[2], [part[2] for part in connection.execute(f"PRAGMA index_info(`{row[1]}`)")])
            for row in connection.execute(f"PRAGMA index_list(`{name}`)").fetchall()
        }
        found[name] = (
            connection.execute(f"PRAGMA table_info(`{name}`)").fetchall(),
            indexes,
            "AUTOINCREMENT" in sql,
        )
    return found


def test_the_schema_is_the_official_one(engine: SqlEngine, path: Path) -> None:
    official = sqlite3.connect(":memory:")
    ddl = (HOME / "ddl" / "sqlite.sql").read_text().replace("CREATE TABLE sqlite_sequence(name,seq);", "")
    official.executescript(ddl)
    own = sqlite3.connect(path)
    wanted, made = schema(official), schema(own)
    assert len(wanted) == 21
    assert made == wanted
    own.close()
    official.close()


def test_a_table_prefix(path: Path) -> None:
    engine = open_sqlite(f"sqlite3://{path}?table_prefix=team_a")
    assert engine.load_setting() is None
    engine.init_volume(b"{}", {1: ROOT_ATTR})
    engine.transact(lambda t: t.put_edge(1, b"a", Edge(Kind.FILE, 2)))
    engine.close()
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "UQE_jfs_team_a_edge_edge" in names
    assert connection.execute("SELECT count(*) FROM jfs_team_a_edge").fetchone() == (1,)
    connection.close()
    with pytest.raises(SettingError, match="table_prefix"):
        open_sqlite(f"sqlite3://{path}?table_prefix=x;drop")


def test_bytes_are_blobs_and_names_of_xattrs_text(engine: SqlEngine, raw: sqlite3.Connection) -> None:
    def body(txn: MetaTxn) -> None:
        txn.put_edge(1, b"plain", Edge(Kind.FILE, 2))
        txn.put_symlink(3, b"target")
        txn.put_xattr(2, b"user.\xff", b"text")
        txn.append(2, 0, [RECORD])

    engine.transact(body)
    engine.transact(lambda t: t.append(2, 0, [RECORD]))
    engine.transact(lambda t: t.append(2, 0, [RECORD], if_exists=True))
    assert raw.execute("SELECT typeof(name), name FROM jfs_edge").fetchone() == (b"blob", b"plain")
    assert raw.execute("SELECT typeof(target) FROM jfs_symlink").fetchone() == (b"blob",)
    types = "SELECT typeof(name), name, typeof(value) FROM jfs_xattr"
    assert raw.execute(types).fetchone() == (b"text", b"user.\xff", b"blob")
    slices = raw.execute("SELECT typeof(slices), slices FROM jfs_chunk").fetchone()
    assert slices == (b"blob", pack([RECORD] * 3))
    assert raw.execute("SELECT typeof(value) FROM jfs_setting").fetchone() == (b"text",)


def test_slices_that_the_official_client_appended_are_read(engine: SqlEngine, raw: sqlite3.Connection) -> None:
    """Its || leaves text in the blob column (volume-format.md 3.4)."""
    engine.transact(lambda t: t.append(2, 0, [RECORD]))
    raw.execute("UPDATE jfs_chunk SET slices = slices || ? WHERE inode = 2", (pack([RECORD]),))
    assert raw.execute("SELECT typeof(slices) FROM jfs_chunk").fetchone() == (b"text",)
    with engine.view() as view:
        assert view.chunk(2, 0) == (RECORD, RECORD)
    engine.transact(lambda t: t.append(2, 0, [RECORD]))
    assert list(engine.scan_chunks()) == [(2, 0, (RECORD,) * 3)]
    assert raw.execute("SELECT typeof(slices) FROM jfs_chunk").fetchone() == (b"blob",)


def test_only_changed_columns_are_written(engine: SqlEngine, raw: sqlite3.Connection) -> None:
    """Columns that newer clients may add, and those that nobody touched, stay as they are."""
    engine.transact(lambda t: t.put_node(2, FILE))
    raw.execute("ALTER TABLE jfs_node ADD COLUMN newer INTEGER DEFAULT 5")
    raw.execute("UPDATE jfs_node SET newer = 7, tier_id = NULL, rdev = NULL WHERE inode = 2")

    def body(txn: MetaTxn) -> None:
        attr = txn.node(2)
        assert attr == FILE
        txn.put_node(2, msgspec.structs.replace(attr, mode=0o600))

    engine.transact(body)
    assert raw.execute("SELECT mode, newer, tier_id, rdev FROM jfs_node WHERE inode = 2").fetchone() == (
        0o600,
        7,
        None,
        None,
    )


def test_a_number_that_was_used_is_refused_whole(engine: SqlEngine) -> None:
    engine.transact(lambda t: t.new_slice(7, 10))

    def twice(txn: MetaTxn) -> None:
        txn.put_edge(1, b"a", Edge(Kind.FILE, 2))
        txn.new_slice(7, 10)

    with pytest.raises(CorruptError):
        engine.transact(twice)
    engine.transact(lambda t: t.put_node(2, FILE))
    with pytest.raises(CorruptError):
        engine.transact(lambda t: t.put_node(2, FILE))
    with engine.view() as view:
        assert view.edge(1, b"a") is None


class Waiting(Sqlite):
    """The dialect with a busy timeout of nothing, so that a lock shows at once."""

    def connect(self, place: Place, *, create: bool) -> Connection:
        connection = super().connect(place, create=create)
        connection.all("PRAGMA busy_timeout = 0")
        return connection


def test_a_lock_of_another_client_is_waited_for(engine: SqlEngine, path: Path, raw: sqlite3.Connection) -> None:
    class Releasing(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(self.slept) == 5:
                raw.execute("COMMIT")

    clock = Releasing()
    patient = SqlEngine(Waiting(), FilePlace(f"sqlite3://{path}"), clock=clock, rng=random.Random(1))
    raw.execute("BEGIN IMMEDIATE")
    patient.transact(lambda t: t.put_edge(1, b"a", Edge(Kind.FILE, 2)))
    assert len(clock.slept) == 5
    with engine.view() as view:
        assert view.edge(1, b"a") is not None
    patient.close()


def test_a_lock_that_is_never_released(engine: SqlEngine, path: Path, raw: sqlite3.Connection) -> None:
    clock = FakeClock()
    patient = SqlEngine(Waiting(), FilePlace(f"sqlite3://{path}"), clock=clock, rng=random.Random(1))
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="no turn"):
        patient.transact(lambda t: t.put_edge(1, b"a", Edge(Kind.FILE, 2)))
    assert clock.monotonic() <= PATIENCE_S
    with patient.view() as view:
        assert view.node(1) == ROOT_ATTR
    raw.execute("ROLLBACK")
    patient.close()


def test_no_database_is_made_by_looking(tmp_path: Path) -> None:
    engine = open_sqlite(f"sqlite3://{tmp_path}/none.db")
    assert engine.load_setting() is None
    with pytest.raises(SettingError, match="fscore format"):
        engine.transact(lambda t: t.node(1))
    engine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 50)
    engine = open_sqlite(f"sqlite3://{tmp_path}/text.db")
    with pytest.raises(CorruptError):
        engine.load_setting()
    engine.close()


def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "else.db") as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    connection.close()
    engine = open_sqlite(f"sqlite3://{tmp_path}/else.db")
    assert engine.load_setting() is None
    with pytest.raises(SettingError, match="no such table"):
        engine.counters()
    engine.close()


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    engine = open_sqlite(f"sqlite3://{tmp_path}/no/such/meta.db")
    with pytest.raises(UnavailableError, match="unable to open"):
        engine.init_volume(b"{}", {1: ROOT_ATTR})
    engine.close()


@pytest.mark.parametrize("url", ["sqlite3://", "sqlite3://x.db?synchronous=SOMETIMES"])
def test_a_wrong_url(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError):
        open_sqlite(url).init_volume(b"{}", {1: ROOT_ATTR})


def test_a_relative_path_and_a_durability_of_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_sqlite("sqlite3://my meta.db?synchronous=full")
    engine.init_volume(b"{}", {1: ROOT_ATTR})
    engine.close()
    assert (tmp_path / "my meta.db").exists()
    links = Connections(Sqlite(), FilePlace("sqlite3://my meta.db?synchronous=full"))
    with links.reader() as link:
        assert link.one("PRAGMA synchronous") == (2,)
        assert link.one("PRAGMA journal_mode") == (b"wal",)
    links.close()


def test_a_forked_child_uses_connections_of_its_own(engine: SqlEngine) -> None:
    engine.transact(lambda t: t.put_edge(1, b"parent", Edge(Kind.FILE, 2)))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            engine.transact(lambda t: t.put_edge(1, b"child", Edge(Kind.FILE, 3)))
            engine.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    engine.transact(lambda t: t.put_edge(1, b"after", Edge(Kind.FILE, 4)))
    with engine.view() as view:
        assert sorted(entry.name for entry in view.entries(1)) == [b"after", b"child", b"parent"]


def test_a_flush_makes_commits_durable(engine: SqlEngine, path: Path) -> None:
    """A commit may lie in the log unsynced; the flush of every second brings it into the file."""

    def in_file() -> bool:
        return b"a-name-to-look-for" in path.read_bytes()

    engine.transact(lambda t: t.put_edge(1, b"a-name-to-look-for", Edge(Kind.FILE, 2)))
    assert not in_file()
    engine.flush()
    assert in_file()
    engine.flush()


def test_an_error_in_a_body_leaves_the_connection_usable(engine: SqlEngine) -> None:
    def body(txn: MetaTxn) -> None:
        txn.put_edge(1, b"a", Edge(Kind.FILE, 2))
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            engine.transact(body)
    assert list(engine.scan_edges()) == []
    assert list(engine.reserve(Counter.INODE, 2)) == [2, 3]


def test_a_session_takes_its_locks_with_it(engine: SqlEngine, raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO jfs_flock (inode, sid, owner, ltype) VALUES (9, 1, 5, 87), (9, 2, 5, 82)")
    raw.execute("INSERT INTO jfs_plock (inode, sid, owner, records) VALUES (9, 1, 5, x'00')")
    engine.put_session(Session(1, 1000, b"{}"))
    assert engine.used_features() == {"locks"}
    engine.drop_session(1)
    assert raw.execute("SELECT sid FROM jfs_flock").fetchall() == [(2,)]
    assert raw.execute("SELECT count(*) FROM jfs_plock").fetchone() == (0,)
    assert engine.sessions() == []
    raw.execute("CREATE TABLE jfs_session (sid INTEGER, heartbeat INTEGER, info BLOB)")
    raw.execute("INSERT INTO jfs_session (sid, heartbeat) VALUES (7, 1000), (8, 2000)")
    raw.execute("INSERT INTO jfs_change_log (entry) VALUES ('x')")
    assert engine.used_features() == {"locks", "legacy_sessions", "change_log"}
    assert engine.legacy_sessions() == [Session(7, 1300, b""), Session(8, 2300, b"")]
    engine.drop_session(7)
    engine.drop_session(8)
    assert engine.legacy_sessions() == []
    assert engine.used_features() == {"locks", "change_log"}
