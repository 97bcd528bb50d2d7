"""The official client and ours on one volume in a Redis Cluster, and behind sentinels; and what zstd allows."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import fscore
from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from tests.interop import official
from tests.kit.deeds import bytes_of

pytestmark = official.NEEDED


def sound(url: str) -> None:
    """Both clients' fsck find nothing."""
    official.fsck(url)
    with fscore.open_volume(url, background=False) as volume:
        assert fsck(volume).problems == []


@pytest.mark.parametrize("group", ["sentinel", "cluster"])
@pytest.mark.parametrize("formatted", ["by us", "by them"])
def test_one_volume_on_a_group(group: str, formatted: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = str(request.getfixturevalue(f"{group}_url"))
    if formatted == "by us":
        format_volume(url, "shared", storage="file", bucket=f"{tmp_path}/blocks/", trash_days=0)
    else:
        official.juicefs("format", "--storage", "file", "--bucket", f"{tmp_path}/blocks/", url, "shared")
    with official.mounted(url, tmp_path / "mnt") as mount, fscore.open_volume(url, session=True) as volume:
        (mount / "both").mkdir()
        theirs = subprocess.Popen(["bash", "-c", f"for i in $(seq 100); do echo $i > {mount}/both/j$i; done"])
        for number in range(100):
            volume.files.write_bytes(f"/both/f{number}", bytes_of(number, 10_000))
        assert theirs.wait(60) == 0
        names = {path.name for path in (mount / "both").iterdir()}
        assert names == {f"j{i}" for i in range(1, 101)} | {f"f{i}" for i in range(100)}
        assert (mount / "both/f7").read_bytes() == bytes_of(7, 10_000)
        assert volume.files.read_bytes("/both/j7") == b"7\n"
        volume.files.rename("/both/j7", "/both/f7")
        (mount / "both/f8").unlink()
        time.sleep(1.1)  # what one client knows of another's change is at most a second old
        assert not volume.files.exists("/both/f8")
    sound(url)


def test_zstd_written_by_them_is_read_by_us(tmp_path: Path, redis_url: str) -> None:
    """1.4.1 misreads files of several slices from zstd volumes (volume-format.md 5.2), so it only writes here."""
    official.juicefs(
        "format", "--storage", "file", "--bucket", f"{tmp_path}/b/", "--compress", "zstd", redis_url, "shared"
    )
    with official.mounted(redis_url, tmp_path / "mnt") as mount:
        for number in range(6):
            with (mount / f"f{number}").open("wb", buffering=0) as file:
                for part in range(3):
                    file.write(bytes_of(10 * number + part, 100_000))
                    os.fsync(file.fileno())
    with fscore.open_volume(redis_url, session=True) as volume:
        for number in range(6):
            written = b"".join(bytes_of(10 * number + part, 100_000) for part in range(3))
            assert volume.files.read_bytes(f"/f{number}") == written
        volume.files.write_bytes("/ours", bytes_of(99, 9_000_000))
    with official.mounted(redis_url, tmp_path / "mnt", "--read-only") as mount:
        assert (mount / "ours").read_bytes() == bytes_of(99, 9_000_000), "one pass, one slice a page: read rightly"
    sound(redis_url)
