"""Whether a Redis server is fit to keep a volume (volume-format.md 1.5, 2.1)."""

from __future__ import annotations

from typing import Final

from fscore.domain.errors import SettingError
from fscore.meta.engines.redis.link import Link
from fscore.meta.engines.redis.masters import Single
from fscore.runtime import log

LEAST: Final = (4, 0)
PATIENCE_S: Final = 1.0
"""A single server that does not answer at once is rather a wrong URL than a server that is away."""
SECTIONS: Final = ("server", "memory", "cluster")

logger = log.get(__name__)


def check(link: Link) -> bool:
    """Whether it is a node of a cluster. SettingError when it is too old; warns when it may evict records."""
    where = link.address.location
    patience_s = PATIENCE_S if isinstance(link.master, Single) else None
    answers = link.batch([("INFO", section) for section in SECTIONS], patience_s=patience_s)
    facts = dict(line.split(":", 1) for text in answers for line in text.decode().splitlines() if ":" in line)
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
        raise SettingError(f"{where} is Redis {version}; a volume needs {LEAST[0]}.{LEAST[1]} or later")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        logger.warning("%s has maxmemory-policy %s and may drop records: set noeviction", where, policy)
    return facts.get("cluster_enabled") == "1"
