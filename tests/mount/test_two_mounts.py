"""Two mounts of one volume on one machine: what one closes, the other opens; what one changes, the other sees."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.mounts import MakeMount, Mount, open_client, until

pytestmark = pytest.mark.mount

TTL_S = 1.2
"""Longer than names and attributes are believed."""


def test_what_is_closed_is_seen_by_who_opens(both: tuple[Path, Path]) -> None:
    one, two = (place / "f" for place in both)
    dice = random.Random(5)
    for step in range(10):
        data = dice.randbytes(dice.randrange(1, 300_000))
        writer, reader = (one, two) if step % 2 else (two, one)
        writer.write_bytes(data)
        if step == 0:
            until(reader.exists)
        assert reader.read_bytes() == data


def test_same_length_other_bytes(both: tuple[Path, Path]) -> None:
    one, two = (place / "f" for place in both)
    one.write_bytes(b"a" * 50_000)
    until(two.exists)
    for step in range(6):
        assert two.read_bytes() == one.read_bytes()
        with (one if step % 2 else two).open("r+b") as file:
            file.seek(20_000 + step)
            file.write(b"%d" % step)
    assert two.read_bytes() == one.read_bytes()


def test_a_reader_that_stays_open_sees_the_change_in_a_while(both: tuple[Path, Path]) -> None:
    one, two = (place / "f" for place in both)
    one.write_bytes(b"old" * 1000)
    until(two.exists)
    with two.open("rb", buffering=0) as file:
        assert file.read(3) == b"old"
        one.write_bytes(b"new" * 2000)
        until(lambda: os.fstat(file.fileno()).st_size == 6000)
        assert os.pread(file.fileno(), 3, 0) == b"new"


def test_names_come_over_within_their_time(both: tuple[Path, Path]) -> None:
    one, two = both
    (one / "d").mkdir()
    (one / "d" / "f").write_bytes(b"x")
    until((two / "d" / "f").exists)
    os.rename(one / "d" / "f", one / "d" / "g")
    time.sleep(TTL_S)
    assert os.listdir(two / "d") == ["g"]
    assert not (two / "d" / "f").exists()
    (two / "d" / "g").chmod(0o600)
    time.sleep(TTL_S)
    assert (one / "d" / "g").stat().st_mode & 0o777 == 0o600
    (two / "d" / "g").unlink()
    (two / "d").rmdir()
    time.sleep(TTL_S)
    assert not (one / "d").exists()


def test_a_file_removed_elsewhere_is_read_to_the_end(both: tuple[Path, Path]) -> None:
    one, two = (place / "f" for place in both)
    data = random.Random(1).randbytes(2_000_000)
    one.write_bytes(data)
    until(two.exists)
    with two.open("rb") as file:
        assert file.read(10) == data[:10]
        two.unlink()
        time.sleep(TTL_S)
        assert not one.exists()
        file.seek(0)
        assert file.read() == data


def test_what_never_changes_is_kept_by_the_kernel(make_mount: MakeMount, tmp_path: Path) -> None:
    mount = make_mount("--read-only", url=_released(make_mount))
    place = mount.base / "model"

    def use() -> None:
        assert (place / "weights").stat().st_size == 300_000
        assert (place / "weights").read_bytes() == b"w" * 300_000
        assert os.listdir(place) == ["weights"]

    kinds: set[str] = set()
    for _ in range(5):  # somebody may make the kernel drop what it keeps in the middle of a round
        kinds = _asked_for(mount, use, tmp_path / "log")
        if kinds <= {"open", "release", "opendir", "releasedir"}:
            return
    pytest.fail(f"the kernel asks for what never changes: {kinds}")


def _asked_for(mount: Mount, use: Callable[[], None], log: Path) -> set[str]:
    """What the kernel asks about inodes 2 and 3 while a program uses them, once it has seen them."""
    use()
    with log.open("wb") as out:
        follow = subprocess.Popen(["cat", mount.base / ".accesslog"], stdout=out)
        until(lambda: log.stat().st_size > 0)
        for _ in range(2):
            time.sleep(TTL_S)
            use()
        time.sleep(TTL_S)
        follow.kill()
        follow.wait()
    asked = [line.split()[3:5] for line in log.read_text().splitlines() if " - OK" in line]
    assert ["lookup", "(1,model):"] in asked, "the directory above may change, and is asked"
    return {what for what, about in asked if about.startswith(("(2", "(3"))}


def _released(make_mount: MakeMount) -> str:
    """A volume with an immutable directory."""
    writer = make_mount()
    (writer.base / "model").mkdir()
    (writer.base / "model" / "weights").write_bytes(b"w" * 300_000)
    with open_client(writer.url) as client:
        client.files.set_immutable("/model", on=True)
        client.files.set_immutable("/model/weights", on=True)
    return writer.url
