"""A client older than 1.0 on a volume in Redis: alive it keeps us from writing, dead it is cleared away."""

from __future__ import annotations

import time

import pytest

from fscore.domain.errors import SettingError
from fscore.domain.setting import Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.records import LEGACY_LIFE_S
from fscore.meta.service import MetaService
from tests.kit.redis_server import RedisServer

pytestmark = pytest.mark.redis


def test_an_old_client_alive_and_dead(redis_server: RedisServer, redis_url: str) -> None:
    engine = open_engine(redis_url)
    MetaService.format(engine, Setting(name="vol", uuid="u"))
    engine.close()
    with redis_server.client_of(redis_url) as raw:
        raw.zadd("sessions", {"7": int(time.time())})
        with pytest.raises(SettingError, match=r"older than 1\.0"):
            MetaService.open(open_engine(redis_url), background=False)
        MetaService.open(open_engine(redis_url), read_only=True, background=False).close()
        raw.zadd("sessions", {"7": int(time.time()) - LEGACY_LIFE_S - 1})
        raw.sadd("session7", 99)
        raw.hset("lockf5", "7_0000000000000001", b"W")
        raw.sadd("locked7", "lockf5")
        with MetaService.open(open_engine(redis_url), background=False) as meta:
            assert [session.sid for session in meta.engine.legacy_sessions()] == [7]
            assert "legacy_sessions" in meta.engine.used_features()
            meta.beat()
            assert not raw.exists("sessions", "session7", "lockf5", "locked7")
            assert meta.engine.legacy_sessions() == []
