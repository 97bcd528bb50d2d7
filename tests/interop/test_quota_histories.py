"""Random histories under quotas on the official client and on ours: both count the same, and ours counts right."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

import fscore
from fscore.admin.format import format_volume
from fscore.domain.ids import ROOT
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.meta.engines.registry import open_engine
from tests.interop import official
from tests.interop.test_histories import replay
from tests.kit.quota_audit import check_quotas

pytestmark = official.NEEDED

HISTORIES: Final = max(int(os.environ.get("INTEROP_HISTORIES", "25")) // 2, 5)


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_both_count_the_same(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if engine == "sqlite":
        urls = [f"sqlite3://{tmp_path}/theirs.db", f"sqlite3://{tmp_path}/ours.db"]
    else:
        server = request.getfixturevalue("redis_server")
        urls = [server.fresh_url(), server.fresh_url()]
    for url, name in zip(urls, ("theirs", "ours"), strict=True):
        format_volume(url, "histories", bucket=f"{tmp_path}/{name}/", block_size="64K", trash_days=0)
        official.juicefs("quota", "set", url, "--path", "/", "--inodes", "100000")
        official.juicefs("quota", "set", url, "--uid", "9", "--inodes", "100000")
    theirs, ours = urls
    with (
        official.mounted(theirs, tmp_path / "mnt") as mount,
        fscore.open_volume(ours, session=True, background=False, durable=False) as volume,
    ):
        differ, _ = replay(mount, volume, range(5000, 5000 + HISTORIES), clones=False)
    assert not differ, "\n".join(differ)
    stored = []
    for url in urls:
        client = open_engine(url)
        stored.append(client.load_quotas(*QuotaKind))
        if url == ours:
            assert check_quotas(client) == []
        client.close()
    top = QuotaKey(QuotaKind.DIRECTORY, ROOT)
    assert stored[0][top] == stored[1][top]
    assert set(stored[0]) == set(stored[1])
    for kind in (QuotaKind.USER, QuotaKind.GROUP):
        # The official client leaves links and special files with whom they were made for (volume-format.md 2.5).
        assert total(stored[0], kind) == total(stored[1], kind)


def total(quotas: Mapping[QuotaKey, Quota], kind: QuotaKind) -> tuple[int, int]:
    """(space, inodes) of all users or groups."""
    found = [quota for key, quota in quotas.items() if key.kind is kind]
    return sum(quota.used_space for quota in found), sum(quota.used_inodes for quota in found)
