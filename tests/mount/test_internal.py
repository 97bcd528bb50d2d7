"""The mount's own files on a real mount: listed, guarded, read to their end, and a stream that shows what is asked."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.kit.mounts import Mounted, refused

pytestmark = pytest.mark.mount

INODES = {".accesslog": 0x7FFFFFFF00000001, ".stats": 0x7FFFFFFF00000003, ".config": 0x7FFFFFFF00000004}


@pytest.fixture
def top(mounted: Mounted) -> Path:
    """The root of the mount."""
    return mounted.mount.base


def test_the_root_lists_them_and_control_is_found_without(top: Path, mounted: Mounted) -> None:
    assert set(INODES) <= set(os.listdir(top))
    assert not {".control", ".trash"} & set(os.listdir(top)), "this volume keeps no trash"
    assert {name: (top / name).stat().st_ino for name in INODES} == INODES
    assert not set(INODES) & set(os.listdir(mounted.path))
    assert (mounted.path / ".control").stat().st_ino == 0x7FFFFFFF00000002
    assert not (mounted.path / ".stats").exists()


def test_nobody_changes_them(top: Path) -> None:
    with refused(errno.EPERM, also=errno.EACCES):
        (top / ".stats").write_bytes(b"x")
    with refused(errno.EPERM, also=errno.EEXIST):
        (top / ".config").unlink()
    with refused(errno.EPERM, also=errno.EEXIST):
        (top / ".stats").rename(top / "mine")
    with refused(errno.EPERM, also=errno.EEXIST):
        (top / ".trash").mkdir()
    with refused(errno.EPERM):
        (top / ".stats").chmod(0o777)
    with refused(errno.ENODATA, also=errno.ENOTSUP):
        os.getxattr(top / ".stats", "user.a")
    assert os.listxattr(top / ".stats") == []


def test_config_says_how_it_is_mounted_and_no_secret(top: Path, mounted: Mounted) -> None:
    found = json.loads((top / ".config").read_text())
    assert found["Mountpoint"] == str(top)
    assert found["Pid"] == mounted.mount.pid
    assert found["Fscore"]["Transport"] == mounted.transport
    assert found["Format"]["Name"] == "mount-test"
    assert found["Chunk"]["Writeback"] is False


def test_stats_count_what_is_done(top: Path, mounted: Mounted) -> None:
    def stats() -> dict[str, float]:
        lines = (top / ".stats").read_text().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines)}

    before = stats()
    (mounted.path / "counted").write_bytes(b"x" * 5000)
    after = stats()
    wrote = "juicefs_fuse_written_size_bytes_sum"
    assert after[wrote] - before.get(wrote, 0) == 5000
    assert after["juicefs_fuse_ops_total_create"] - before.get("juicefs_fuse_ops_total_create", 0) == 1
    assert after["juicefs_uptime"] > before["juicefs_uptime"]
    assert after["juicefs_used_inodes"] >= 1


def test_the_access_log_shows_what_is_asked(top: Path, mounted: Mounted) -> None:
    fd = os.open(top / ".accesslog", os.O_RDONLY)
    try:
        (mounted.path / "watched").write_bytes(b"abc")
        seen = b""
        deadline = time.monotonic() + 10
        while b"watched" not in seen or b"write (" not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(fd, 1 << 16)
    finally:
        os.close(fd)
    (create,) = [line for line in seen.decode().splitlines() if " create (" in line]
    assert f"[uid:{os.getuid()},gid:{os.getgid()},pid:" in create
    assert f"({mounted.path.stat().st_ino},watched,-rw-" in create, "with the mode that the program asked for"
    assert ",[-rw-r--r--:0100644,1," in create
    assert " - OK <" in create


def test_a_log_that_is_read_holds_nobody_up(top: Path, mounted: Mounted) -> None:
    readers = [subprocess.Popen(["cat", str(top / ".accesslog")], stdout=subprocess.DEVNULL) for _ in range(8)]
    try:
        time.sleep(0.3)
        began = time.monotonic()
        for number in range(50):
            (mounted.path / f"f{number}").touch()
        assert time.monotonic() - began < 10
    finally:
        for reader in readers:
            reader.terminate()
            reader.wait()


def test_many_messages_at_once(top: Path) -> None:
    """Each handle of `.control` gets its own answer."""
    ino = top.stat().st_ino
    answers: dict[int, bytes] = {}

    def ask(number: int) -> None:
        fd = os.open(top / ".control", os.O_RDWR)
        try:
            os.write(fd, (1007).to_bytes(4, "big") + (10).to_bytes(4, "big") + ino.to_bytes(8, "big") + bytes([1, 5]))
            answer = b""
            while b"}" not in answer:
                answer += os.read(fd, 1 << 16)
                select.select([], [], [], 0.01)
            answers[number] = answer
        finally:
            os.close(fd)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 6
    assert {json.loads(answer[answer.index(b"{") :])["Tree"]["Path"] for answer in answers.values()} == {""}
