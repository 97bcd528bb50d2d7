"""What the kernel and fusermount3 are told, and what they say when they refuse, in one line that helps."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from fscore.domain.errors import SettingError
from fscore.mount.options import MountOptions
from fscore.mount.transports.kernel import mounting

NOSUID_NODEV = 2 | 4
USUAL = MountOptions()


def told(*words: str, options: MountOptions = USUAL) -> tuple[int, set[str]]:
    """Flags and words of mount(2), without those that say who mounts."""
    flags, text = mounting.kernel_words(replace(options, fuse_options=words), 5, stat.S_IFDIR)
    found = set(text.split(","))
    assert {"fd=5", "rootmode=40000"} <= found
    return flags, {word for word in found if not word.startswith(("fd=", "rootmode=", "user_id=", "group_id="))}


def test_the_usual_words() -> None:
    assert told() == (NOSUID_NODEV, {"default_permissions"})
    assert told(options=MountOptions(allow_other=True, default_permissions=False)) == (NOSUID_NODEV, {"allow_other"})
    assert told(options=MountOptions(read_only=True))[0] == NOSUID_NODEV | 1


def test_words_that_are_flags() -> None:
    assert told("suid", "dev", "noexec", "noatime") == (8 | 1024, {"default_permissions"})
    assert told("ro", "rw", "sync")[0] == NOSUID_NODEV | 16


def test_words_for_others_are_left_out_and_unknown_ones_are_the_kernels() -> None:
    words = ("_netdev", "noauto", "x-systemd.automount", "comment=mine", "nonempty", "fsname=x", "max_read=131072")
    assert told(*words) == (NOSUID_NODEV, {"default_permissions", "max_read=131072"})


@pytest.mark.parametrize(
    ("said", "help_"),
    [
        ("/usr/bin/fusermount3: option allow_other only allowed if 'user_allow_other' is in fuse.conf\n", "conf"),
        ("fusermount3: failed to open /dev/fuse: Permission denied\n", "mode 0666"),
        ("fusermount3: user has no write access to mountpoint /mnt\n", "you must own"),
        ("", "it says nothing"),
    ],
)
def test_a_refusal_says_what_to_do(said: str, help_: str) -> None:
    line = mounting._explained(Path("/mnt"), said)
    assert line.startswith("fusermount3 does not mount /mnt: ")
    assert help_ in line
    assert "\n" not in line
    assert "/usr/bin" not in line


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no directory"):
        mounting.open_mount(tmp_path / "missing", MountOptions())
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="no directory"):
        mounting.open_mount(tmp_path / "file", MountOptions())


def test_a_missing_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "DEVICE", tmp_path / "fuse")
    with pytest.raises(SettingError, match="fuse module"):
        mounting.open_mount(tmp_path, MountOptions())


def test_read_ahead_is_set_where_there_is_a_mount(tmp_path: Path) -> None:
    mounting.tune_read_ahead(tmp_path)  # no mount, nothing happens
