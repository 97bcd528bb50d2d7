"""META-URLs of SQL engines, as people and the official client write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fscore.domain.errors import SettingError
from fscore.meta.engines.sql.places import FilePlace, MysqlPlace, PostgresPlace


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes from the environment unless a test puts it there."""
    for name in ("META_PASSWORD", "META_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        (
            "postgres://me:p%40s@h:5433/db",
            {"user": "me", "password": "p@s", "host": "h", "port": "5433", "dbname": "db"},
        ),
        ("postgres://me@h/db?sslmode=disable", {"user": "me", "host": "h", "dbname": "db", "sslmode": "disable"}),
        ("postgres:///db?host=/run/pg&user=me", {"host": "/run/pg", "user": "me", "dbname": "db"}),
        ("postgres://me@%2Frun%2Fpg/db", {"user": "me", "host": "/run/pg", "dbname": "db"}),
        ("postgres://u@[::1]:5432/db", {"user": "u", "host": "::1", "port": "5432", "dbname": "db"}),
        ("postgres://u@a:1,b:2/db", {"user": "u", "host": "a,b", "port": "1,2", "dbname": "db"}),
        ("postgres://u:a:b@h/db?max_open_conns=7", {"user": "u", "password": "a:b", "host": "h", "dbname": "db"}),
        ("postgres://u@h/d%20b?timezone=UTC", {"user": "u", "host": "h", "dbname": "d b", "timezone": "UTC"}),
    ],
)
def test_postgres(url: str, parameters: dict[str, str]) -> None:
    assert PostgresPlace(url).parameters == parameters


def test_a_schema_and_a_prefix() -> None:
    place = PostgresPlace("postgres://u:secret@h:1/db?search_path=team&table_prefix=x&max_open_conns=3")
    assert (place.schema, place.table_prefix, place.connections) == ("team", "x", 3)
    assert place.location == "postgres://h:1/db"
    assert "secret" not in place.location


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mysql://me:pw@(h:3307)/db", {"user": "me", "password": "pw", "host": "h", "port": 3307, "database": "db"}),
        ("mysql://me:pw@tcp(h:3307)/db", {"user": "me", "password": "pw", "host": "h", "port": 3307}),
        ("mysql://me@(h)/db", {"user": "me", "password": "", "host": "h", "port": 3306}),
        ("mysql://me:p%2Fw%3F@(h)/db", {"password": "p/w?"}),
        ("mysql://me:p@ss/word@(h)/db", {"user": "me", "password": "p@ss/word", "host": "h"}),
        ("mysql://me@unix(/run/my.sock)/db", {"socket": "/run/my.sock", "database": "db"}),
        ("mysql://me@(/run/my.sock)/db", {"socket": "/run/my.sock"}),
        ("mysql://me@tcp([::1]:3306)/db?tls=true", {"host": "::1", "port": 3306, "socket": ""}),
        ("mysql://me:pw@h:3307/db", {"host": "h", "port": 3307}),
        ("mysql://(h:1)/db", {"user": "", "host": "h", "port": 1}),
    ],
)
def test_mysql(url: str, wanted: dict[str, Any]) -> None:
    place = MysqlPlace(url)
    assert {name: getattr(place, name) for name in wanted} == wanted
    assert place.location.startswith("mysql://")
    assert "pw" not in place.location
    assert "word" not in place.location


@pytest.mark.parametrize(
    ("place", "url", "words"),
    [
        (PostgresPlace, "postgres://u@h", "names no database"),
        (PostgresPlace, "postgres://u@h/", "names no database"),
        (PostgresPlace, "postgres://u@h/db?search_path=a,b", "one schema only"),
        (PostgresPlace, "postgres://u@h/db?max_open_conns=many", "no number"),
        (PostgresPlace, "postgres://u@h/db?table_prefix=a;b", "letters"),
        (MysqlPlace, "mysql://u@(h:3306)", "names no database"),
        (MysqlPlace, "mysql://u@(h:3306/db", "bracket"),
        (MysqlPlace, "mysql://u@(h:x)/db", "no number"),
        (MysqlPlace, "mysql://u@ipx(h)/db", "ipx"),
        (FilePlace, "sqlite3://", "names no database"),
    ],
)
def test_a_wrong_url_is_refused_in_one_line(place: Any, url: str, words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        place(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [PostgresPlace, MysqlPlace])
def test_where_a_password_is_looked_for(place: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scheme = "postgres" if place is PostgresPlace else "mysql"

    def password(user: str) -> str | None:
        found = place(f"{scheme}://{user}@(h)/d" if place is MysqlPlace else f"{scheme}://{user}@h/d")
        return str(found.password) if place is MysqlPlace else found.parameters.get("password")

    assert not password("me")
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("META_PASSWORD_FILE", str(tmp_path / "secret"))
    assert password("me") == "from-file"
    monkeypatch.setenv("META_PASSWORD", "from-meta")
    assert password("me") == "from-meta"
    assert password("me:own") == "own"
    monkeypatch.delenv("META_PASSWORD")
    monkeypatch.setenv("META_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingError, match="META_PASSWORD_FILE"):
        password("me")
