"""kill -9 of a mount while files are copied onto it: what the system acknowledged is there and right after a remount.

Acknowledged is what close(2), fsync(2) or rename(2) after a close returned for. Everything else may be there or not,
and must be readable. fsck finds no problem, gc nothing but leaks, and the leaks go.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fscore.admin.fsck import fsck
from fscore.admin.gc import gc
from fscore.runtime.clock import FakeClock
from fscore.volume import open_volume
from tests.kit import copier
from tests.kit.mounts import Mount, fresh_volume, need_fuse

pytestmark = [pytest.mark.mount, pytest.mark.timeout(3600)]

TWO_HOURS_NS = 2 * 3600 * 1_000_000_000
START_S = 60.0


class Copy:
    """A copy of many files under way, in a process of its own."""

    def __init__(self, target: Path, count: int, seed: int, journal: Path) -> None:
        self.seed = seed
        self._journal = journal
        command = [sys.executable, str(copier.__file__), str(target), str(count), str(seed), str(journal)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def until(self, acknowledged: int) -> None:
        """Wait until so many files are acknowledged."""
        deadline = time.monotonic() + START_S + acknowledged
        while len(self.acknowledged()) < acknowledged:
            assert self._process.poll() is None, "the copy ended before it was cut"
            assert time.monotonic() < deadline, "the copy does not go on"
            time.sleep(0.002)

    def acknowledged(self) -> list[int]:
        """The files that the system acknowledged; a line that was cut short does not count."""
        text = self._journal.read_text() if self._journal.exists() else ""
        return [int(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def stop(self) -> None:
        """Have it end, however far it is."""
        self._process.kill()
        self._process.wait()

    def end(self) -> list[int]:
        """Wait for it; what was acknowledged in the end."""
        assert self._process.wait(30) != 0, "it must notice that the mount is gone"
        return self.acknowledged()


def check(target: Path, seed: int, acknowledged: list[int]) -> None:
    """Every acknowledged file has its content; every other one can be read."""
    wrong = [number for number in acknowledged if read(copier.place(target, number)) != copier.content(seed, number)]
    assert wrong == [], f"{len(wrong)} of {len(acknowledged)} acknowledged files are wrong or gone"
    for path in target.glob("d*/*"):
        path.read_bytes()


def read(path: Path) -> bytes | None:
    """A file's bytes; None if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def check_volume(url: str) -> None:
    """fsck finds no problem, gc removes the leaks of the dead, and then nothing is left over."""
    clock = FakeClock(time.time_ns() + TWO_HOURS_NS)  # what is younger than an hour is left alone
    with open_volume(url, clock=clock, background=False, durable=False) as volume:
        for session in volume.meta.engine.sessions():
            if session.sid != volume.meta.sid:
                volume.meta.end_session(session.sid)
        assert fsck(volume).problems == []
        gc(volume, delete=True, clock=clock)
        report = fsck(volume)
        assert report.problems == []
        assert report.leaks == []


def killed(url: str, place: Path, transport: str, rounds: int, files: int) -> list[int]:
    """Copy, kill, remount, check, again and again; how many files were acknowledged in each round."""
    chance = random.Random(f"{transport} {rounds} {files}")
    mount = Mount(url, place, transport)
    counts = []
    try:
        for seed in range(rounds):
            mount.start()
            target = mount.base / f"round{seed}"
            target.mkdir()
            copy = Copy(target, files, seed, place / f"journal{seed}")
            try:
                copy.until(chance.randrange(1, files - files // 10))
                time.sleep(chance.uniform(0, 0.05))
                mount.kill()
                acknowledged = copy.end()
            finally:
                copy.stop()
            mount.start()
            check(target, seed, acknowledged)
            assert mount.stop() == 0, mount.said()
            counts.append(len(acknowledged))
    finally:  # nothing is removed through a mount
        mount.stop(lazy=True)
    check_volume(url)
    return counts


@pytest.mark.parametrize(
    ("transport", "engine"),
    [("kernel", "sqlite"), pytest.param("pyfuse3", "redis", marks=pytest.mark.redis)],
)
def test_a_killed_mount_keeps_what_it_acknowledged(request: pytest.FixtureRequest, transport: str, engine: str) -> None:
    need_fuse(transport)
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        url = fresh_volume(engine, place, request)
        counts = killed(url, place / "at", transport, rounds=1, files=200)
        assert counts[0] > 0


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("transport", "engine"),
    [
        ("kernel", "sqlite"),
        pytest.param("kernel", "redis", marks=pytest.mark.redis),
        ("pyfuse3", "sqlite"),
        pytest.param("pyfuse3", "redis", marks=pytest.mark.redis),
    ],
)
def test_twenty_times_in_a_copy_of_two_thousand_files(
    request: pytest.FixtureRequest, transport: str, engine: str
) -> None:
    need_fuse(transport)
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        url = fresh_volume(engine, place, request)
        rounds = int(os.environ.get("KILL_ROUNDS", "20"))
        counts = killed(url, place / "at", transport, rounds=rounds, files=2000)
        print(f"{transport} on {engine}: killed {len(counts)} times after {counts} acknowledged files")
