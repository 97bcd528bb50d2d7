"""Every golden volume, worked on by us, is still sound for the official client that made it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from fscore.domain.quota import QuotaKind
from fscore.volume import open_volume
from tests.interop import official
from tests.kit.golden import PASSPHRASE, Golden

pytestmark = official.NEEDED

DATA = bytes(range(256)) * 1000


def test_the_official_client_finds_our_work_sound(
    golden_copy: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JFS_RSA_PASSPHRASE", PASSPHRASE)
    kept = {
        base64.b64decode(entry["path_b64"]).decode("utf-8", "surrogateescape"): entry["sha256"]
        for entry in golden_copy.expected["tree"]
        if entry["type"] == "file" and entry["size"] < 1 << 20
    }
    with open_volume(golden_copy.url, bucket=golden_copy.bucket, background=False) as volume:
        volume.meta.amend(lambda setting: replace(setting, bucket=golden_copy.bucket))
        volume.meta.beat()
        files = volume.files
        victim = next(path for path in sorted(kept) if files.stat(path).size > 5000)
        files.mkdir("/new")
        files.write_bytes("/new/data", DATA)
        files.rename(victim, "/new/renamed")
        moved = kept.pop(victim)
        files.clone("/new", "/copy")
        files.link("/new/data", "/new/again")
        files.unlink("/new/data")
        with files.open("/copy/data", "r+b") as file:
            file.write(b"overwritten")
            file.truncate(100_000)
        files.rmtree("/copy")
        volume.collect()
    said = official.fsck(golden_copy.url)
    assert "error" not in said.lower()
    readable = "zstd" not in golden_copy.name  # the official client misreads zstd
    with official.mounted(golden_copy.url, tmp_path / "mnt") as mount:
        assert hashlib.sha256((mount / "new/again").read_bytes()).hexdigest() == hashlib.sha256(DATA).hexdigest()
        if readable:
            assert hashlib.sha256((mount / "new/renamed").read_bytes()).hexdigest() == moved
            for path in sorted(kept)[::7]:
                assert hashlib.sha256(Path(f"{mount}{path}").read_bytes()).hexdigest() == kept[path], path
        (mount / "new/theirs").write_bytes(b"theirs")
    with open_volume(golden_copy.url, background=False) as volume:
        assert volume.files.read_bytes("/new/theirs") == b"theirs"
        for key in volume.meta.quotas(QuotaKind.DIRECTORY):
            assert volume.meta.check_quota(*key).consistent
