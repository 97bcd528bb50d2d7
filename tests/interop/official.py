"""Drives a real JuiceFS client, given by `JUICEFS_BIN`, on volumes that fscore shares with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BINARY = os.environ.get("JUICEFS_BIN", "")
NEEDED = [
    pytest.mark.system,
    pytest.mark.skipif(not BINARY, reason="JUICEFS_BIN names no official client: NEIGHBOURS NOT TESTED"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse: NEIGHBOURS NOT TESTED"),
]
"""Marks of every test that drives the official client."""


def juicefs(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command of the official client; its output in the error when it fails."""
    done = subprocess.run(
        [BINARY, *args], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise AssertionError(f"juicefs {' '.join(args)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def status(meta_url: str) -> dict[str, object]:
    """What `juicefs status` reports."""
    found: dict[str, object] = json.loads(juicefs("status", meta_url).stdout)
    return found


def fsck(meta_url: str) -> str:
    """`juicefs fsck`; fails when it finds anything."""
    done = juicefs("fsck", meta_url)
    said = done.stdout + done.stderr
    assert not re.search(r"\b(broken|missing|lost|ERROR)\b", said), said
    return said


@contextmanager
def mounted(meta_url: str, place: Path, *options: str) -> Iterator[Path]:
    """The volume mounted by the official client at `place`, for as long as the block runs."""
    place.mkdir(parents=True, exist_ok=True)
    log = place.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                BINARY,
                "mount",
                "--no-usage-report",
                "--enable-xattr",
                "--cache-dir",
                str(place) + ".cache",
                *options,
                meta_url,
                str(place),
            ],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
        try:
            _until_mounted(place, process, log)
            yield place
        finally:
            subprocess.run([BINARY, "umount", str(place)], capture_output=True, timeout=60, check=False)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def processes() -> list[int]:
    """Processes of the official client that this one has started, and theirs: a mount's parent restarts its child."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "exe").resolve() == Path(BINARY).resolve():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    ours = {pid for pid, parent in parents.items() if parent == os.getpid()}
    return sorted(ours | {pid for pid, parent in parents.items() if parent in ours})


def _until_mounted(place: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if os.path.ismount(place):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"juicefs did not mount {place}:\n{log.read_text()}")
