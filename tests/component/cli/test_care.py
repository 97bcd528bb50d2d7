"""Commands that care for a volume: gc and compact, as a user calls them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fscore.hub import staging
from fscore.volume import open_volume
from tests.kit.command import Fscore


def test_gc_finds_and_removes_what_a_crash_left(fscore: Fscore, cli_volume: str, tmp_path: Path) -> None:
    with open_volume(cli_volume) as volume:
        volume.files.write_bytes("/f", b"x" * 1000)
        writer = volume.blocks.new_writer(volume.meta.new_slice_id())
        writer.write(b"y" * 500)
        writer.finish()
    young = fscore.json("gc", cli_volume, "--delete")
    assert (young["leaked_objects"], young["skipped_objects"]) == (0, 1)
    old = time.time() - 3700
    for path in (tmp_path / "blocks").rglob("*"):
        os.utime(path, (old, old))
    said = fscore("gc", cli_volume).ok().out
    assert "found: 1 leaked objects (500 B)" in said
    assert fscore.json("gc", cli_volume)["leaked_objects"] == 1
    assert "removed: 1 leaked objects" in fscore("gc", cli_volume, "--delete").ok().out
    assert fscore.json("gc", cli_volume)["objects"] == 1
    assert fscore("fsck", cli_volume).ok().out.startswith("sound")


def test_gc_finds_uploads_that_nobody_goes_on_with(
    fscore: Fscore, cli_volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = "/.fscore/staging/nlp/made"
    with open_volume(cli_volume) as volume:
        volume.files.mkdir(f"{top}/killed/files", parents=True)
        volume.files.write_bytes(f"{top}/killed/files/half.bin", b"x" * 5000)
        volume.files.set_immutable(f"{top}/killed/files/half.bin", on=True)
    assert fscore.json("gc", cli_volume, "--delete")["abandoned_uploads"] == 0, "it may go on tomorrow"
    monkeypatch.setattr(staging, "ABANDONED_S", -1)
    assert "1 abandoned uploads" in fscore("gc", cli_volume).ok().out
    with open_volume(cli_volume) as volume:
        assert volume.files.listdir(top) == ["killed"], "only --delete changes anything"
    report = fscore.json("gc", cli_volume, "--delete")
    assert (report["abandoned_uploads"], report["slices"]) == (1, 0)
    with open_volume(cli_volume) as volume:
        assert volume.files.listdir(top) == []
    assert fscore("fsck", cli_volume).ok().out.startswith("sound")


def test_compact_makes_one_slice_of_many(fscore: Fscore, cli_volume: str) -> None:
    with open_volume(cli_volume, background=False) as volume:
        for number in range(4):
            with volume.files.open("/log", "ab") as file:
                file.write(bytes([number]) * 100)
    report = fscore.json("compact", cli_volume, "/")
    assert (report["records_before"], report["records_after"], report["bytes_written"]) == (4, 1, 400)
    assert "0 of 1 chunks of 1 files compacted" in fscore("compact", cli_volume, "/log").ok().out
    with open_volume(cli_volume) as volume:
        assert volume.files.read_bytes("/log") == b"".join(bytes([number]) * 100 for number in range(4))
    assert fscore("fsck", cli_volume).ok().out.startswith("sound")
    assert fscore("compact", cli_volume, "/absent").code == 1
