"""The connection to Redis is lost at trip 1, 2, 3 ... of a story, before or after the server acted: no trace is left.

The client finds out what was done and goes on; every operation happens once, and the records are sound at the end.
"""

from __future__ import annotations

from itertools import count
from typing import Literal

import pytest

from fscore.domain.caller import Caller
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.redis.engine import RedisEngine
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.service import MetaService, RenameFlag
from fscore.runtime.clock import FakeClock
from tests.kit.invariants import check_engine
from tests.kit.redis_server import CutLink, RedisServer

pytestmark = pytest.mark.redis

WHO = Caller.root()
SETTING = Setting(name="cuts", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=1)


def tell(service: MetaService) -> dict[bytes, tuple[int, int]]:
    """Every kind of operation once; name to (links, length) of what is in the end in the root."""
    folder, _ = service.mkdir(WHO, ROOT, b"folder", 0o755)
    inner, _ = service.mkdir(WHO, folder, b"inner", 0o755)
    file, _ = service.create(WHO, folder, b"file", 0o644)
    slice_id = service.new_slice_id()
    service.write(file, 0, [SliceRecord(0, slice_id, 9000, 0, 9000)], 5, new_length=9000)
    service.truncate(WHO, file, 5000)
    service.setxattr(WHO, file, b"user.a", b"value")
    service.symlink(WHO, inner, b"link", b"target")
    service.link(WHO, file, ROOT, b"second")
    other, _ = service.create(WHO, ROOT, b"other", 0o600)
    service.copy_file_range(WHO, file, 0, other, 0, 5000)
    service.rename(WHO, ROOT, b"other", ROOT, b"moved")
    service.create(WHO, ROOT, b"victim", 0o644)
    service.rename(WHO, ROOT, b"moved", ROOT, b"victim")
    service.rename(WHO, ROOT, b"victim", folder, b"file", flags=RenameFlag.EXCHANGE)
    service.clone(WHO, folder, ROOT, b"copy")
    service.unlink(WHO, ROOT, b"second")
    service.unlink(WHO, ROOT, b"victim", skip_trash=True)
    service.unlink(WHO, inner, b"link", skip_trash=True)
    service.rmdir(WHO, folder, b"inner")
    service.flush()
    return {entry.name: (entry.attr.nlink, entry.attr.length) for entry in service.readdir(WHO, ROOT) if entry.attr}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_connection_leaves_no_trace(redis_server: RedisServer, when: Literal["before", "after"]) -> None:
    wanted = {b"folder": (2, 4096), b"copy": (3, 4096)}
    for trip in count(1):
        url = redis_server.fresh_url()
        link = CutLink(url)
        engine = RedisEngine(link, Keys())
        clock = FakeClock()
        link.cut_at, link.when = trip, when
        MetaService.format(engine, SETTING, clock)
        service = MetaService.open(engine, clock, background=False, skip_dir_mtime_s=0.0)
        assert tell(service) == wanted, trip
        assert check_engine(engine, stats=False) == [], trip
        service.close()
        with redis_server.client_of(url) as client:
            client.flushdb()
        if link.made < trip:
            break
    assert trip > 50
