"""The official commands on a mount of ours say what they say on a mount of their own, and do what they do there."""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.interop.official import BINARY, fsck, juicefs, mounted
from tests.kit.mounts import Mount, assert_volume_sound, need_fuse

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(
        not BINARY, reason="JUICEFS_BIN does not name a juicefs: its commands on our mount are not tested"
    ),
]

CHANGING = re.compile(r"(\d{4}/\d\d/\d\d \S+ juicefs\[\d+\]|\[\w+@\w+\.go:\d+\]|/[^ ]*(theirs|at/mnt)|actual\(.*?\))")
"""Times, places, and the storage class that a store reports, for which we do not ask."""


class Both:
    """One volume, formatted by the official client, on a mount of ours and, for comparison, on one of theirs."""

    def __init__(self, url: str, ours: Path, theirs: Path) -> None:
        self.url = url
        self.ours = ours
        self.theirs = theirs

    def say(self, command: str, path: str, *options: str) -> str:
        """What a command prints on our mount, which must be what it prints on theirs."""
        said = [self.plain(juicefs(command, *options, str(top / path))) for top in (self.ours, self.theirs)]
        assert said[0] == said[1]
        return said[0]

    def plain(self, done: subprocess.CompletedProcess[str]) -> str:
        """Output without what differs from call to call."""
        return CHANGING.sub("", done.stdout + done.stderr)


@pytest.fixture(scope="module", params=["kernel", "pyfuse3"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    transport = request.param
    need_fuse(transport)
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        url = f"sqlite3://{place / 'meta.db'}"
        juicefs("format", "--storage", "file", "--bucket", f"{place / 'objects'}/", "--block-size", "1M", url, "shared")
        mount = Mount(url, place / "at", transport)
        mount.start()
        try:
            with mounted(url, place / "theirs", "--cache-size", "100") as theirs:
                fill(mount.base)
                yield Both(url, mount.base, theirs)
            assert mount.stop() == 0, mount.said()
        finally:
            mount.stop(lazy=True)
        fsck(url)
        assert_volume_sound(url, leaks=True)


def fill(top: Path) -> None:
    """A small tree, with a file of several chunks' pieces, a sparse one and a link."""
    chance = random.Random(5)
    (top / "tree" / "below" / "deep").mkdir(parents=True)
    for number in range(5):
        (top / "tree" / f"f{number}").write_bytes(chance.randbytes(100_000 * (number + 1)))
        (top / "tree" / "below" / f"g{number}").write_bytes(chance.randbytes(3000 * (number + 1)))
    (top / "tree" / "below" / "deep" / "last").write_bytes(b"the last")
    with (top / "tree" / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    os.link(top / "tree" / "f0", top / "tree" / "twin")
    (top / "tree" / "soft").symlink_to("f1")


@pytest.mark.parametrize(
    "path", ["tree", "tree/f4", "tree/twin", "tree/sparse", "tree/below/deep", "tree/below/deep/last"]
)
@pytest.mark.parametrize("options", [("--strict",), ("--raw", "--strict"), ("--recursive", "--strict")], ids=" ".join)
def test_info(both: Both, path: str, options: tuple[str, ...]) -> None:
    said = both.say("info", path, *options)
    assert "inode:" in said
    assert f"path: /{path}" in said or "paths:" in said


@pytest.mark.parametrize("options", [("--depth", "1"), ("--depth", "3", "--entries", "5"), ("--csv",)], ids=" ".join)
def test_summary(both: Both, options: tuple[str, ...]) -> None:
    assert "sparse" in both.say("summary", "tree", "--strict", *options)


def test_warmup_fills_and_empties_our_cache(both: Both) -> None:
    tree = str(both.ours / "tree")
    assert "13 files" in juicefs("warmup", tree).stderr
    assert "(100.0%) cached" in juicefs("warmup", "--check", tree).stderr
    juicefs("warmup", "--evict", tree)
    assert "(0.0%) cached" in juicefs("warmup", "--check", tree).stderr
    juicefs("warmup", "--background", tree)
    deadline = time.monotonic() + 20
    while "(100.0%) cached" not in juicefs("warmup", "--check", tree).stderr:
        assert time.monotonic() < deadline


def test_clone_and_rmr(both: Both) -> None:
    juicefs("clone", str(both.ours / "tree"), str(both.ours / "copy"))
    juicefs("clone", "--preserve", str(both.ours / "tree" / "f1"), str(both.ours / "tree" / "again"))
    assert subprocess.run(["diff", "-r", both.ours / "tree", both.ours / "copy"], check=False).returncode == 1
    (both.ours / "tree" / "again").unlink()
    assert subprocess.run(["diff", "-r", both.ours / "tree", both.ours / "copy"], check=False).returncode == 0
    assert juicefs("clone", str(both.ours / "tree"), str(both.ours / "copy"), check=False).returncode != 0
    juicefs("rmr", str(both.ours / "copy" / "below"))
    assert not (both.ours / "copy" / "below").exists()
    juicefs("rmr", "--skip-trash", str(both.ours / "copy"))
    assert not (both.ours / "copy").exists()
    with suppress(FileNotFoundError):
        assert not (both.theirs / "copy").exists()


def test_compact(both: Both) -> None:
    path = both.ours / "tree" / "pieces"
    for number in range(12):
        with path.open("ab") as file:
            file.write(bytes([number]) * 500)
    assert "success" in juicefs("compact", str(path)).stderr
    assert juicefs("info", "--raw", str(path)).stdout.count("|          0 |") == 1
    assert path.read_bytes() == b"".join(bytes([number]) * 500 for number in range(12))
    path.unlink()


def test_stats_and_profile_read_ours(both: Both) -> None:
    (both.ours / "tree" / "f0").read_bytes()
    said = juicefs("stats", "--count", "2", "--interval", "1", str(both.ours)).stdout
    assert "fuse" in said
    assert "--" in said
    log = both.ours.parent / "access.log"
    with log.open("wb") as out:
        reader = subprocess.Popen(["cat", str(both.ours / ".accesslog")], stdout=out)
        time.sleep(0.3)
        for number in range(20):
            (both.ours / f"probe{number}").write_bytes(b"x")
            (both.ours / f"probe{number}").unlink()
        time.sleep(0.5)
        reader.terminate()
        reader.wait()
    said = juicefs("profile", "--interval", "0", str(log)).stdout
    counted = {line.split()[0]: int(line.split()[1]) for line in said.splitlines() if re.match(r"[a-z_]+ +\d+ ", line)}
    assert (counted["create"], counted["unlink"], counted["write"]) == (20, 20, 20), said


def test_their_umount_takes_ours_away_and_nothing_is_lost(both: Both, tmp_path: Path) -> None:
    mount = Mount(both.url, tmp_path / "second", "kernel")
    mount.start()
    try:
        (mount.base / "late").write_bytes(b"written late")
        juicefs("umount", "--flush", str(mount.base))
        assert not os.path.ismount(mount.base)
        assert mount.stop() == 0, mount.said()
    finally:
        mount.stop(lazy=True)
    time.sleep(1.2)
    assert (both.theirs / "late").read_bytes() == b"written late"
