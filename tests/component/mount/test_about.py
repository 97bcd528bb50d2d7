"""`.config` and `.stats` tell much, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

from fscore.domain.errors import UnavailableError
from fscore.mount import about
from fscore.mount.options import MountOptions
from fscore.vfs.stats import number
from tests.kit.volumes import MakeVolume

SECRETS = {"access_key": "AKIAVISIBLE", "secret_key": "very-secret-key", "session_token": "very-secret-token"}


def test_no_secret_is_told(open_at: MakeVolume) -> None:
    volume = open_at(setting=SECRETS)
    text = about.config(volume, Path("/mnt"), MountOptions(subdir="/a"), lambda: "kernel")
    found = json.loads(text)
    assert found["Format"]["SecretKey"] == found["Format"]["SessionToken"] == "removed"
    assert b"very-secret" not in text
    assert volume.setting.secret_key.encode() not in text, "nor as it is stored: the UUID beside it would unwrap it"
    assert "EncryptKey" not in found["Format"]
    assert found["Fscore"]["PidNamespace"].startswith("pid:[")
    assert (found["Subdir"], found["Fscore"]["Transport"], found["Fscore"]["Meta"]) == (
        "/a",
        "kernel",
        "memory://shared",
    )


def parsed(text: bytes) -> dict[str, float]:
    """Names and values."""
    return {name: float(value) for name, value in (line.split() for line in text.decode().splitlines())}


def test_stats_join_the_volume_and_the_mount(open_at: MakeVolume) -> None:
    volume = open_at()
    volume.files.write_bytes("/a", b"x" * 5000)
    with volume.files.open("/a"):
        found = parsed(about.stats(volume, {"fuse.read.count": 7, "fuse.read.seconds": 0.5}, 12.5))
    assert (found["juicefs_uptime"], found["juicefs_fuse_ops_total_read"]) == (12.5, 7)
    assert (found["juicefs_used_space"], found["juicefs_used_inodes"]) == (8192, 1)
    assert found["juicefs_fuse_open_handlers"] == 1
    assert found["juicefs_object_request_data_bytes_PUT"] == number(volume.metrics.snapshot(), "objects.put.bytes") > 0
    assert found["juicefs_memory"] > 1 << 20


def test_stats_are_told_when_the_metadata_are_not_there(open_at: MakeVolume) -> None:
    volume = open_at()

    class Gone:
        """A service that does not answer."""

        def __call__(self) -> None:
            raise UnavailableError("no answer")

    volume.meta.statfs = Gone()  # type: ignore[method-assign, assignment]
    found = parsed(about.stats(volume, {}, 1.0))
    assert found["fscore_meta_unavailable"] == 1
    assert "juicefs_used_space" not in found
