"""The connection to Redis is lost at trip 1, 2, 3 ... of a story under quotas and a change log: all is counted and told
once.
"""

from __future__ import annotations

from itertools import count
from typing import Literal

import pytest

from fscore.domain.quota import QuotaKind
from fscore.domain.setting import Setting
from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.service import AttrChange, MetaService
from fscore.runtime.clock import FakeClock
from tests.kit.invariants import check_engine
from tests.kit.quota_audit import check_quotas
from tests.kit.redis_server import CutLink, RedisServer
from tests.kit.tree import ALICE, SUPER, mkdir, mkfile

pytestmark = pytest.mark.redis

SETTING = Setting(
    name="cuts", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0, user_group_quota=True, change_log=True
)
TOLD = ["CREATE", "CREATE", "CREATE", "WRITE", "LINK", "MOVE", "SETATTR", "TRUNCATE", "UNLINK"]


def tell(service: MetaService) -> None:
    """Changes that every quota is concerned with, flushed in between."""
    home, other = mkdir(service, b"home", mode=0o777), mkdir(service, b"other")
    service.set_quota(QuotaKind.DIRECTORY, home, max_inodes=10)
    service.set_quota(QuotaKind.USER, ALICE.uid, max_space=1 << 20)
    file = mkfile(service, b"file", 9000, home)
    service.flush()
    service.link(SUPER, file, other, b"second")
    service.rename(SUPER, other, b"second", home, b"back")
    service.setattr(SUPER, file, AttrChange(uid=ALICE.uid, gid=ALICE.gid))
    service.flush()
    service.truncate(SUPER, file, 100)
    service.unlink(SUPER, home, b"back")
    service.flush()
    service.delete_quota(QuotaKind.USER, ALICE.uid)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_connection_counts_nothing_twice(redis_server: RedisServer, when: Literal["before", "after"]) -> None:
    for trip in count(1):
        url = redis_server.fresh_url()
        link = CutLink(url)
        engine = RedisEngine(link, Keys())
        clock = FakeClock()
        link.cut_at, link.when = trip, when
        MetaService.format(engine, SETTING, clock)
        service = MetaService.open(engine, clock, background=False, skip_dir_mtime_s=0.0)
        tell(service)
        assert check_quotas(engine) == [], trip
        assert check_engine(engine, stats=False) == [], trip
        operations = [line.split(b"|")[1].split(b"(")[0].decode() for _, line in engine.scan_log()]
        tree = [name for name in operations if name in TOLD]
        assert tree == TOLD, trip
        versions = [version for version, _ in engine.scan_log()]
        assert versions == list(range(1, len(versions) + 1)), trip
        service.close()
        with redis_server.client_of(url) as client:
            client.flushdb()
        if link.made < trip:
            break
    assert trip > 30
