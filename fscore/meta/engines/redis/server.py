"""Whether a Redis server is fit to keep a volume (volume-format.md 1.5, 2.1)."""

from __future__ import annotations

from typing import Final

from fscore.domain.errors import SettingError
from fscore.meta.engines.redis.link import Link
from fscore.runtime import log

LEAST: Final = (4, 0)
PATIENCE_S: Final = 1.0
SECTIONS: Final = ("server", "memory", "cluster")

logger = log.get(__name__)


def check(link: Link) -> bytes:
    """The prefix of the keys. SettingError when the server is too old or a cluster; warns when it may evict records."""
    where = link.address.location
    answers = link.batch([("INFO", section) for section in SECTIONS], patience_s=PATIENCE_S)
    facts = dict(line.split(":", 1) for text in answers for line in text.decode().splitlines() if ":" in line)
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
        raise SettingError(f"{where} is Redis {version}; a volume needs {LEAST[0]}.{LEAST[1]} or later")
    if facts.get("cluster_enabled") == "1":
        raise SettingError(f"{where} is a node of a Redis Cluster, which is not supported; name a single server")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        logger.warning("%s has maxmemory-policy %s and may drop records: set noeviction", where, policy)
    return b""
