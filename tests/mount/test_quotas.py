"""Quotas as programs meet them on a mount: EDQUOT, and what df shows."""

from __future__ import annotations

import errno
import os
import subprocess
import time

import pytest

from fscore.domain.quota import QuotaKind
from tests.kit.mounts import MakeMount, Mount, open_client, refused

pytestmark = pytest.mark.mount

BEAT_S = 2.5
"""Longer than it takes a mount with a heartbeat of a second to hear of a quota."""


@pytest.fixture(params=["kernel", "pyfuse3"])
def mount(request: pytest.FixtureRequest, make_mount: MakeMount) -> Mount:
    """A mount whose client hears of a quota within a second."""
    return make_mount("--heartbeat", "1s", "--allow-other", transport=request.param)


def limit(mount: Mount, path: str, *, space: int | None = None, inodes: int | None = None) -> None:
    """Set a directory's quota from another client."""
    with open_client(mount.url) as volume:
        ino = volume.files.stat(path).ino
        volume.meta.set_quota(QuotaKind.DIRECTORY, ino, max_space=space, max_inodes=inodes)


def test_a_directory_that_is_full(mount: Mount) -> None:
    top = mount.base
    (top / "team").mkdir()
    (top / "team/a").write_bytes(b"x" * 5000)
    (top / "other").write_bytes(b"x" * 50_000)
    limit(mount, "/team", space=40_960, inodes=3)
    time.sleep(BEAT_S)
    with refused(errno.EDQUOT):
        (top / "other").rename(top / "team/other")
    with refused(errno.EDQUOT), (top / "team/a").open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
    with refused(errno.EDQUOT):
        os.truncate(top / "team/a", 1 << 20)
    (top / "team/b").touch()
    (top / "team/c").mkdir()
    with refused(errno.EDQUOT):
        (top / "team/d").touch()
    with refused(errno.EDQUOT):
        (top / "team/c/d").mkdir()
    with refused(errno.EDQUOT):
        os.link(top / "other", top / "team/c/l")
    (top / "team/b").unlink()
    (top / "team/d").symlink_to("a")


def test_df_shows_the_quota(mount: Mount) -> None:
    top = mount.base
    (top / "team").mkdir()
    limit(mount, "/team", space=1 << 30, inodes=100)
    time.sleep(BEAT_S)
    (top / "team/f").write_bytes(b"x" * 10_000)
    shown = os.statvfs(top / "team")
    if mount.transport == "kernel":
        assert shown.f_blocks * shown.f_frsize == 1 << 30
        assert (shown.f_blocks - shown.f_bfree) * shown.f_frsize == 12_288
        assert (shown.f_files, shown.f_ffree) == (100, 99)
    whole = os.statvfs(top)
    assert whole.f_blocks * whole.f_frsize > 1 << 40


def test_a_user_who_is_full(mount: Mount) -> None:
    top = mount.base
    (top / "free").mkdir()
    (top / "free").chmod(0o777)
    with open_client(mount.url) as volume:
        volume.meta.set_quota(QuotaKind.USER, 4321, max_inodes=1)
    time.sleep(BEAT_S)
    first, second = (
        subprocess.run(
            ["touch", name], cwd=top / "free", user=4321, group=4321, extra_groups=[], capture_output=True, check=False
        )
        for name in ("a", "b")
    )
    assert first.returncode == 0, first.stderr
    assert b"Disk quota exceeded" in second.stderr
