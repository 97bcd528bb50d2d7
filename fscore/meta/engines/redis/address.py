"""A META-URL of Redis, taken apart (volume-format.md 2.1): one server, a master that sentinels watch, or a cluster.

    redis://[user:password@]host[:port]/db      one server, or one node of a cluster; rediss:// with TLS
    unix:///path?db=n                           one server by its socket
    redis://name,host1,host2[:26379]/db         the master `name`, asked of sentinels: the first has no port
    redis://host1:port,host2[:port]/db          nodes of a cluster, where `db` only names the volume

Besides the TLS options of the official client there is `wait-replicas=n`: what is acknowledged lies in `n` replicas.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import urllib.parse
from pathlib import Path
from typing import Any, Final

import redis

from fscore.domain.errors import SettingError

TIMEOUT_S: Final = 10.0
CONNECT_S: Final = 5.0
SENTINEL_S: Final = 1.0
PORT: Final = 6379
SENTINEL_PORT: Final = 26379

Host = tuple[str, int]
Connection = Any
"""A connection of the redis package, whose methods carry no types."""

_TIMEVAL: Final = struct.Struct("@ll")


def _wait_in_calls(connection: Connection) -> None:
    """Greet the server as usual, and have the kernel keep the timeout from then on: Python's own would ask poll(2)
    before every read and write.
    """
    connection.on_connect()
    limit = _TIMEVAL.pack(int(connection.socket_timeout), int(connection.socket_timeout % 1 * 1_000_000))
    sock: socket.socket = connection._sock  # noqa: SLF001 - the only way to a socket that it has just opened
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    sock.settimeout(None)


_KINDS: Final[dict[str, Any]] = {
    "redis": redis.Connection,
    "rediss": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
}


class Form(enum.Enum):
    """How the servers stand to each other."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Address:
    """Where the servers are and how to talk to them. Passwords that the URL lacks come from the environment."""

    def __init__(self, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError as error:
            raise SettingError(f"{_shown(url)} names no server: {error}") from None
        options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        secret, _, listed = parts.netloc.rpartition("@")
        user, _, password = secret.partition(":")
        self.scheme = parts.scheme
        self.form = _form(listed)
        self.master_name = ""
        self.hosts: tuple[Host, ...] = ()
        self.wait_replicas = _number(options.get("wait-replicas", "0"), url, "number of replicas: wait-replicas=1")
        self.kwargs: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": CONNECT_S,
            "username": urllib.parse.unquote(user) or None,
            "password": urllib.parse.unquote(password) or _password(),
        }
        if parts.scheme == "unix":
            self.kwargs["path"] = urllib.parse.unquote(parts.path)
            self.db = _number(options.get("db", "0"), url)
            self.location = f"unix://{parts.path}?db={self.db}"
            return
        self.db = _number(parts.path.strip("/") or "0", url)
        self._place(listed, url)
        if parts.scheme == "rediss":
            self._secure(options)

    def _place(self, listed: str, url: str) -> None:
        names, port = listed.split(","), PORT
        try:
            if self.form is Form.SENTINEL:
                self.master_name = names.pop(0)
                port = _split(names[-1], 0)[1] or SENTINEL_PORT
            self.hosts = tuple(_split(name, port) for name in names)
        except ValueError:
            raise SettingError(f"{_shown(url)} names no server: write redis://host:port/1") from None
        shown = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]
        if self.master_name:
            shown.insert(0, self.master_name)
        self.location = f"{self.scheme}://{','.join(shown)}/{self.db}"

    def _secure(self, options: dict[str, str]) -> None:
        """The TLS options that the official client takes in its URL."""
        if options.get("insecure-skip-verify", "false").lower() in {"1", "true", ""}:
            self.kwargs |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        names = {
            "tls-ca-cert-file": "ssl_ca_certs",
            "tls-cert-file": "ssl_certfile",
            "tls-key-file": "ssl_keyfile",
        }
        self.kwargs |= {own: options[theirs] for theirs, own in names.items() if theirs in options}

    def connection(self, host: Host | None = None, *, db: int | None = None) -> Connection:
        """A new connection, to the only server or to one of several; it connects when first used."""
        kwargs = self.kwargs | {"db": self.db if db is None else db}
        if self.scheme != "unix":
            where = host or self.hosts[0]
            kwargs |= {"host": where[0], "port": where[1]}
        if self.scheme != "rediss":  # whose library has buffers between the kernel and Python
            kwargs["redis_connect_func"] = _wait_in_calls
        return _KINDS[self.scheme](**kwargs)

    def sentinel(self, host: Host) -> Connection:
        """A new connection to a sentinel, which has a password of its own and little time."""
        kwargs = self.kwargs | {"username": None, "password": os.environ.get("SENTINEL_PASSWORD") or None}
        kwargs |= {"socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S}
        return _KINDS[self.scheme](host=host[0], port=host[1], **kwargs)


def _form(listed: str) -> Form:
    if "," not in listed:
        return Form.SINGLE
    return Form.CLUSTER if ":" in listed.partition(",")[0] else Form.SENTINEL


def _split(name: str, port: int) -> Host:
    """Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`."""
    if name.startswith("["):
        host, _, rest = name[1:].partition("]")
        given = rest.removeprefix(":")
    else:
        host, _, given = name.partition(":")
    return host or "localhost", int(given) if given else port


def _password() -> str | None:
    """Where the official client looks for a password that the URL does not carry."""
    for name in ("REDIS_PASSWORD", "META_PASSWORD"):
        if os.environ.get(name):
            return os.environ[name]
    path = os.environ.get("META_PASSWORD_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingError(f"META_PASSWORD_FILE: {error}") from error


def _number(text: str, url: str, what: str = "database number: write redis://host:port/1") -> int:
    if not text.isdecimal():
        raise SettingError(f"{_shown(url)} names no {what}")
    return int(text)


def _shown(url: str) -> str:
    return url.rsplit("@", 1)[-1]
