"""A whole volume whose blocks are in a real S3 server: written, read, damaged by 503s and outages, checked by fsck."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.domain.caller import Caller
from fscore.domain.errors import UnavailableError
from fscore.meta.ops.change import AttrChange
from fscore.volume import open_volume
from tests.kit.fault_proxy import fault_proxy
from tests.kit.s3_server import S3Server, on_s3

pytestmark = [*on_s3, pytest.mark.usefixtures("no_thread_left")]


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_volume_lives_on_s3(s3_server: S3Server, tmp_path: Path, compression: str) -> None:
    url = f"sqlite3://{tmp_path}/meta.db"
    data = os.urandom(9_000_000) + bytes(1_000_000)
    with fault_proxy(s3_server.endpoint) as proxy:
        bucket = s3_server.new_bucket().replace(s3_server.endpoint, proxy.url)
        format_volume(
            url,
            "models",
            storage="minio",
            bucket=bucket,
            compression=compression,
            access_key=s3_server.access_key,
            secret_key=s3_server.secret_key,
        )
        with open_volume(url) as volume:
            proxy.refuse = 3
            volume.files.write_bytes("/a.bin", data)
            assert proxy.refused == 3
            proxy.refuse, proxy.cut = 2, 1
            with volume.files.open("/a.bin") as file:
                assert file.pread(3_999_990, 20) == data[3_999_990:4_000_010]
            assert volume.files.read_bytes("/a.bin") == data
            assert fsck(volume).problems == []
        with open_volume(url, cache_dir=f"{tmp_path}/cache") as volume:
            assert volume.files.read_bytes("/a.bin") == data
        with open_volume(url, cache_dir=f"{tmp_path}/cache") as volume:
            seen = proxy.seen
            assert volume.files.read_bytes("/a.bin") == data  # from the disk: the server hears nothing
            assert proxy.seen == seen


def test_an_outage_that_lasts_is_one_clear_error_and_loses_nothing(s3_server: S3Server, tmp_path: Path) -> None:
    url = f"sqlite3://{tmp_path}/meta.db"
    with fault_proxy(s3_server.endpoint) as proxy:
        bucket = s3_server.new_bucket().replace(s3_server.endpoint, proxy.url)
        format_volume(
            url,
            "models",
            storage="minio",
            bucket=bucket,
            access_key=s3_server.access_key,
            secret_key=s3_server.secret_key,
        )
        with open_volume(url, attempts=2) as volume:
            volume.files.write_bytes("/kept", b"k" * 100_000)
            proxy.refuse = 100_000
            with pytest.raises(UnavailableError, match=r"put of 'models/chunks/.*' in http://.* failed 2 times.*503"):
                volume.files.write_bytes("/lost", b"x" * 100_000)
            proxy.refuse = 0
            assert volume.files.read_bytes("/kept") == b"k" * 100_000
            assert fsck(volume).problems == []


def test_new_blocks_get_the_tag_and_class_of_their_tier(s3_server: S3Server, tmp_path: Path) -> None:
    url = f"sqlite3://{tmp_path}/meta.db"
    bucket = s3_server.new_bucket()
    format_volume(
        url,
        "tiered",
        storage="minio",
        bucket=bucket,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
    )
    tiers = {
        "0": {"ID": 0, "StorageClass": "", "Tag": ""},
        "1": {"ID": 1, "StorageClass": "STANDARD", "Tag": "tier=cold"},
    }
    with open_volume(url, background=False) as volume:
        volume.meta.amend(lambda setting: replace(setting, tiers=tiers))
    with open_volume(url) as volume:
        files = volume.files
        files.mkdir("/cold")
        volume.meta.setattr(Caller.root(), files.stat("/cold").ino, AttrChange(tier=1))
        files.write_bytes("/cold/f", b"c" * 10_000)
        files.write_bytes("/plain", b"p" * 10_000)
        found = {path: volume.files.info(path).chunks[0].objects[0].key for path in ("/cold/f", "/plain")}
        files.rename("/cold/f", "/moved")
        files.write_bytes("/moved", b"m" * 20_000)  # the file stays in its tier
        found["/moved"] = volume.files.info("/moved").chunks[0].objects[-1].key
    tags = {path: s3_server.tags_of(bucket, f"tiered/{key}") for path, key in found.items()}
    assert tags == {"/cold/f": {"tier": "cold"}, "/plain": {}, "/moved": {"tier": "cold"}}
    with open_volume(url) as volume:
        assert volume.files.read_bytes("/moved") == b"m" * 20_000
        assert fsck(volume).problems == []
