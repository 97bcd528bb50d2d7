"""Which engine keeps the records behind a META-URL. Drivers are imported only when their URL is opened."""

from __future__ import annotations

import threading
from typing import Final

from fscore.domain.errors import SettingError
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.memory.engine import MemoryEngine

SCHEMES: Final = ("redis", "rediss", "unix", "postgres", "mysql", "sqlite3", "memory")

_memory: Final[dict[str, MemoryEngine]] = {}
_lock: Final = threading.Lock()


def open_engine(url: str) -> MetaEngine:
    """The engine behind `url`; `memory://name` is one volume for the whole process.

    Raises SettingError for a URL that names no engine, UnavailableError when its server does not answer.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise SettingError(f"{url!r} is no metadata URL: write scheme://..., one of {', '.join(SCHEMES)}")
    if scheme == "memory":
        with _lock:
            return _memory.setdefault(rest, MemoryEngine(rest))
    if scheme in {"redis", "rediss", "unix"}:
        from fscore.meta.engines.redis.engine import open_redis

        return open_redis(url)
    if scheme == "sqlite3":
        from fscore.meta.engines.sql.engine import open_sqlite

        return open_sqlite(url)
    if scheme in {"postgres", "mysql"}:
        from fscore.meta.engines.sql.server_engine import open_server

        return open_server(url)
    raise SettingError(f"no metadata engine for {scheme}://; there are {', '.join(SCHEMES)}")


def forget_memory(name: str) -> None:
    """Let a `memory://` volume go; the next to open the name finds none."""
    with _lock:
        _memory.pop(name, None)
