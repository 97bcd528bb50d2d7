"""Holes, copies, overwritten files, compaction: the official client reads, checks and compacts what we made of them."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

import fscore
from fscore.admin.compact import compact
from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.admin.gc import gc
from tests.interop import official
from tests.kit.fsx import BORDER, IN_PROCESS, Fsx, Model, operations
from tests.kit.vfs_files import OpenFiles

pytestmark = official.NEEDED


def digests(top: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(top.glob("fsx-*"))}


def expected(model: Model) -> dict[str, str]:
    return {
        f"fsx-{number}": hashlib.sha256(bytes(model.origin) + content).hexdigest()
        for number, content in enumerate(model.bytes)
    }


@pytest.mark.parametrize("trash_days", [0, 1])
def test_random_changes_are_the_same_files_to_the_official_client(
    shared_url: str, tmp_path: Path, trash_days: int
) -> None:
    format_volume(shared_url, "shared", bucket=f"{tmp_path}/blocks/", trash_days=trash_days)
    with fscore.open_volume(shared_url) as volume:
        subject = OpenFiles([volume], files=2)
        player = Fsx(subject, files=2, origin=BORDER if trash_days else 0)
        for op in operations(seed=trash_days, count=600, kinds=IN_PROCESS):
            player.play(op)
        player.check()
        subject.close()
        volume.vfs.drain()
    model = player.model
    official.fsck(shared_url)
    with official.mounted(shared_url, tmp_path / "mnt", "--cache-size", "0") as mount:
        assert digests(mount) == expected(model)
        rng = random.Random(trash_days)
        for number in range(2):
            with (mount / f"fsx-{number}").open("r+b") as file:
                for _ in range(8):
                    at, part = rng.randrange(100_000), rng.randbytes(3000)
                    file.seek(model.origin + at)
                    file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
                    model.write(number, at, part)
    made = expected(model)
    with fscore.open_volume(shared_url, background=False) as volume:
        report = compact(volume)
        assert report.records_after < report.records_before
        assert {name: hashlib.sha256(volume.files.read_bytes(f"/{name}")).hexdigest() for name in made} == made
        volume.collect()
        assert fsck(volume).problems == []
        assert gc(volume).clean
    official.fsck(shared_url)
    found = official.juicefs("gc", "--compact", shared_url)
    assert "0 leaked" in found.stdout + found.stderr
    with official.mounted(shared_url, tmp_path / "again", "--read-only", "--cache-size", "0") as mount:
        assert digests(mount) == made
    with fscore.open_volume(shared_url) as volume:
        assert fsck(volume).problems == []
