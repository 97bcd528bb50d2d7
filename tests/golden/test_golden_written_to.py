"""Volumes that the official client made are taken on: sound as they are, sound after our own work on them."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import pytest

from fscore.admin.fsck import fsck
from fscore.domain.errors import Exists
from fscore.meta.engines.registry import open_engine
from fscore.runtime.clock import SystemClock
from fscore.volume import open_volume
from tests.kit.golden import PASSPHRASE, Golden
from tests.kit.invariants import check_engine

WRITABLE: Final[list[Any]] = [
    pytest.param("redis-plain", marks=pytest.mark.redis),
    pytest.param("redis-zstd-aes", marks=pytest.mark.redis),
    pytest.param("redis-chacha", marks=pytest.mark.redis),
    "sqlite-plain",
    "sqlite-lz4-hash",
]
"""Those with ACLs, quotas and sessions are in `test_golden_features`."""

DATA: Final = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passphrase of the encrypted volumes."""
    monkeypatch.setenv("JFS_RSA_PASSPHRASE", PASSPHRASE)


@pytest.mark.parametrize("golden_copy", WRITABLE, indirect=True)
def test_sound_as_it_is(golden_copy: Golden) -> None:
    engine = open_engine(golden_copy.url)
    assert check_engine(engine) == []
    engine.close()
    with open_volume(golden_copy.url, read_only=True, bucket=golden_copy.bucket, background=False) as volume:
        assert fsck(volume).problems == []


@pytest.mark.parametrize("golden_copy", WRITABLE, indirect=True)
def test_work_goes_on(golden_copy: Golden) -> None:
    """Every kind of change on top of what is there; other files stay as they were, and the records stay sound."""
    kept = {
        entry["path"]: entry["sha256"]
        for entry in golden_copy.expected["tree"]
        if entry["type"] == "file" and entry["path"].startswith("/sizes/")
    }
    assert kept
    with open_volume(golden_copy.url, bucket=golden_copy.bucket, background=False, session=True) as volume:
        files = volume.files
        victims = [path for path in sorted(kept) if files.stat(path).size > 5000]
        files.mkdir("/new")
        files.write_bytes("/new/data", DATA)
        with files.open(victims[0], "r+b") as file:
            file.seek(4090)
            file.write(b"overwritten")
            file.truncate(4100)
        files.rename(victims[1], "/new/renamed")
        files.clone("/new", "/copy")
        files.link("/new/data", "/new/again")
        files.unlink("/new/data")
        files.rmtree("/copy")
        with pytest.raises(Exists):
            files.mkdir("/sizes")
        assert files.read_bytes("/new/again") == DATA
        assert hashlib.sha256(files.read_bytes("/new/renamed")).hexdigest() == kept[victims[1]]
        for path, digest in kept.items():
            if path not in victims[:2]:
                assert hashlib.sha256(files.read_bytes(path)).hexdigest() == digest, path
        assert fsck(volume).problems == []
        volume.meta.flush()
        assert check_engine(volume.meta.engine) == []
    with open_volume(golden_copy.url, read_only=True, bucket=golden_copy.bucket, background=False) as volume:
        assert volume.files.read_bytes("/new/again") == DATA
        assert volume.files.stat("/new/again").mtime_ns <= SystemClock().now_ns()
        assert [entry for entry in volume.files.listdir("/") if entry in {"new", "copy"}] == ["new"]
