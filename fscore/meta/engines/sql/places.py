"""Where a volume's database is: META-URLs of SQL engines, as the official client writes them.

* `sqlite3:///absolute/path.db`, `sqlite3://relative.db`
* `postgres://user:password@host:port/database?sslmode=disable&search_path=schema`; over a unix socket
  `postgres://user@/database?host=/directory` or the directory percent-encoded in the host's place
* `mysql://user:password@(host:port)/database`, also `@tcp(host:port)`, `@unix(/path.sock)` and plain `@host:port`

Options of the official client's connection pool are known: `max_open_conns` bounds a server's connections here, too,
the others are left alone. `table_prefix=x` makes tables `jfs_x_*`. A password that is missing in the URL is looked for
in META_PASSWORD and in the file META_PASSWORD_FILE names.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fscore.domain.errors import SettingError

POOL_OPTIONS: Final = frozenset({"max_open_conns", "max_idle_conns", "max_idle_time", "max_life_time"})


class Place:
    """A database: scheme, options of the URL, and how it is called in messages (without secrets)."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        address, _, query = rest.partition("?")
        self.scheme: Final = scheme
        self.address: Final = address
        options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.table_prefix: Final = _prefix(options.pop("table_prefix", ""))
        self.connections: Final = _count(options.get("max_open_conns", "0"), "max_open_conns")
        self.options: Final[Mapping[str, str]] = {k: v for k, v in options.items() if k not in POOL_OPTIONS}
        self.location = f"{scheme}://{address}"


class FilePlace(Place):
    """A database file."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.path: Final = self.address
        if not self.path:
            raise SettingError(
                f"the meta URL {self.scheme}:// names no database; write {self.scheme}:///absolute/path.db"
            )


class PostgresPlace(Place):
    """A database on a PostgreSQL server. What libpq needs to know stands in `parameters`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        user, _, target = self.address.rpartition("@")
        hosts, slash, database = target.partition("/")
        self.location = f"{self.scheme}://{target}"
        if not slash or not database:
            raise SettingError(f"{self.location} names no database; write postgres://user@host:5432/database")
        name, _, password = user.partition(":")
        host, port = _split_hosts(hosts)
        given = {"user": name, "password": password, "host": host, "port": port, "dbname": database}
        self.parameters = {key: urllib.parse.unquote(value) for key, value in given.items() if value}
        self.parameters.update(self.options)
        self.schema: Final = self.parameters.pop("search_path", "")
        if "," in self.schema:
            raise SettingError(f"search_path={self.schema}: one schema only, as the official client has it")
        if "password" not in self.parameters and (found := password_of_environment()) is not None:
            self.parameters["password"] = found


class MysqlPlace(Place):
    """A database on a server that speaks MySQL's protocol."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        target, slash, database = self.address.rpartition("/")
        user, _, where = target.rpartition("@")
        self.location = f"{self.scheme}://{where}/{database}"
        if not slash or not database:
            raise SettingError(f"{self.location} names no database; write mysql://user@(host:3306)/database")
        self.user, _, password = user.partition(":")
        self.database: Final = urllib.parse.unquote(database)
        self.password: Final = urllib.parse.unquote(password) or password_of_environment() or ""
        network, bracket, address = where.partition("(")
        if bracket and not address.endswith(")"):
            raise SettingError(f"{self.location}: a bracket is not closed; write mysql://user@(host:3306)/database")
        address = address[:-1] if bracket else where
        if bracket and network not in {"", "tcp", "tcp6", "unix"}:
            raise SettingError(f"{self.location}: the network {network} is none of tcp and unix")
        self.socket: Final = address if (network == "unix" and bracket) or address.startswith("/") else ""
        host, port = ("", "") if self.socket else _split_port(address)
        self.host: Final = host or "127.0.0.1"
        self.port: Final = _count(port or "3306", "the port")


def password_of_environment() -> str | None:
    """The password for a URL without one: META_PASSWORD, else the content of the file that META_PASSWORD_FILE names."""
    found = os.environ.get("META_PASSWORD")
    path = os.environ.get("META_PASSWORD_FILE")
    if found or not path:
        return found or None
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingError(f"META_PASSWORD_FILE: {error}") from error


def _prefix(prefix: str) -> str:
    if prefix and not prefix.replace("_", "").isalnum():
        raise SettingError(f"table_prefix={prefix} may have letters, digits and _ only")
    return prefix


def _count(text: str, what: str) -> int:
    if not text.isdecimal():
        raise SettingError(f"{what} is {text!r}, which is no number")
    return int(text)


def _split_port(address: str) -> tuple[str, str]:
    """Host and port; an IPv6 address stands in brackets."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = address.partition(":")
    return host, port


def _split_hosts(hosts: str) -> tuple[str, str]:
    """Hosts and ports, each a list with commas: libpq tries one after the other."""
    pairs = [_split_port(one) for one in hosts.split(",")]
    ports = [port for _, port in pairs]
    return ",".join(host for host, _ in pairs), ",".join(ports) if any(ports) else ""
