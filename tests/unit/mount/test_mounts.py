"""What mountinfo says, and the words that libfuse gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from fscore.mount import mounts
from fscore.mount.options import MountOptions

TABLE = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /mnt/a\040b rw,nosuid,nodev shared:9 master:2 - fuse.fscore fscore:models rw,user_id=0,group_id=0
41 22 0:51 / /mnt/c ro - fuse.fscore fscore:other ro,user_id=0
42 22 0:52 / /mnt/c rw - tmpfs tmpfs rw
"""


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(TABLE)
    monkeypatch.setattr(mounts, "MOUNTINFO", file)


def test_lines_with_and_without_optional_fields() -> None:
    found = [(str(mount.target), mount.fstype, mount.source, mount.device) for mount in mounts.mounts()]
    assert found == [
        ("/", "ext4", "/dev/sda1", "8:1"),
        ("/mnt/a b", "fuse.fscore", "fscore:models", "0:50"),
        ("/mnt/c", "fuse.fscore", "fscore:other", "0:51"),
        ("/mnt/c", "tmpfs", "tmpfs", "0:52"),
    ]


def test_the_topmost_mount_counts() -> None:
    found = mounts.mount_at(Path("/mnt/c"))
    assert found is not None
    assert found.fstype == "tmpfs"
    assert mounts.mount_at(Path("/mnt")) is None


def test_the_last_part_of_a_path_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert mounts.canonical(tmp_path / "link" / "mount") == tmp_path / "real" / "mount"
    assert mounts.canonical(tmp_path / "link") == tmp_path / "link"


def test_words_for_libfuse() -> None:
    assert mounts.words(MountOptions()) == {"fsname=fscore", "subtype=fscore", "default_permissions"}
    chosen = MountOptions(
        read_only=True, allow_other=True, default_permissions=False, fsname="x", fuse_options=("nosuid",)
    )
    assert mounts.words(chosen) == {"fsname=x", "subtype=fscore", "ro", "allow_other", "nosuid"}
