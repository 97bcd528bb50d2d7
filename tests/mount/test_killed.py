"""kill -9 of the mount in the middle of a copy: what fsync or close acknowledged is there and right afterwards."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.mounts import MakeMount, Mount, refused, until

pytestmark = pytest.mark.mount

FILES = 2000
COPIER = """
import os, sys
source, target, log = sys.argv[1:]
with open(log, "ab", buffering=0) as told:
    for name in sorted(os.listdir(source)):
        data = open(f"{source}/{name}", "rb").read()
        fd = os.open(f"{target}/{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.write(fd, data)
        if int(name) % 3 == 0:
            os.fsync(fd)
            told.write(f"{name}\\n".encode())
        os.close(fd)
        told.write(f"{name}\\n".encode())
"""


def small_files(place: Path, count: int) -> Path:
    """Files named by numbers, of up to 40 kB."""
    dice = random.Random(2)
    place.mkdir()
    for number in range(count):
        (place / f"{number:06d}").write_bytes(dice.randbytes(int(dice.expovariate(1 / 4000)) % 40_000))
    return place


def copy_and_kill(mount: Mount, source: Path, target: Path, log: Path, after_s: float) -> None:
    """Copy, and kill the mount after so long; the copier fails or is done."""
    target.mkdir()
    copier = subprocess.Popen(
        [sys.executable, "-c", COPIER, str(source), str(target), str(log)], stderr=subprocess.DEVNULL
    )
    time.sleep(after_s)
    mount.kill()
    copier.wait(60)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("engine", "rounds"),
    [
        ("sqlite", 2),
        pytest.param("sqlite", 20, marks=pytest.mark.nightly),
        pytest.param("redis", 20, marks=[pytest.mark.nightly, pytest.mark.redis]),
    ],
)
def test_what_was_acknowledged_survives(make_mount: MakeMount, tmp_path: Path, engine: str, rounds: int) -> None:
    source = small_files(tmp_path / "source", FILES)
    dice = random.Random(rounds)
    mount = make_mount("--heartbeat", "1", engine=engine)
    acknowledged = 0
    for number in range(rounds):
        log = tmp_path / f"log-{number}"
        copy_and_kill(mount, source, mount.base / f"{number}", log, dice.uniform(0.2, 2.0))
        mount = make_mount("--heartbeat", "1")
        names = set(log.read_text().split()) if log.exists() else set()
        for name in names:
            found = (mount.base / f"{number}" / name).read_bytes()
            assert found == (source / name).read_bytes(), f"{name} of round {number}"
        acknowledged += len(names)
    assert acknowledged


def test_a_dead_mount_says_so_and_goes(make_mount: MakeMount) -> None:
    mount = make_mount()
    (mount.base / "f").write_bytes(b"here")
    os.kill(mount.pid, 9)
    until(lambda: not alive(mount.base))
    with refused(107):  # ENOTCONN
        (mount.base / "f").read_bytes()
    mount.stop(lazy=True)
    assert list(mount.base.iterdir()) == []
    assert (make_mount().base / "f").read_bytes() == b"here"


def alive(path: Path) -> bool:
    """Whether somebody answers there."""
    try:
        path.stat()
    except OSError:
        return False
    return True
