"""Files that lie whole in the cache are read by the kernel itself: right bytes, no READ at the daemon, never EIO."""

from __future__ import annotations

import errno
import mmap
import os
import random
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.domain.caller import Caller
from fscore.volume import open_volume
from tests.kit.mounts import MakeMount, Mount, assert_volume_sound, fresh_volume, need_fuse, refused

MIB = 1 << 20
ROOM = ("--free-space-ratio", "0.001")
DATA = random.Random(21).randbytes(9 * MIB + 333)
OTHER = random.Random(22).randbytes(3 * MIB)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One kernel mount for the tests of this module."""
    need_fuse()
    if not can_pass_through():
        pytest.skip("this kernel has no passthrough (6.9 and newer have)")
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        url = fresh_volume("sqlite", place, request)
        mount = Mount(url, place / "at", "kernel", *ROOM)
        mount.start()
        try:
            yield mount
            assert mount.stop() == 0, mount.said()
        finally:
            mount.stop(lazy=True)
        assert_volume_sound(url)


@pytest.fixture
def model(shared: Mount) -> Path:
    """A fresh immutable file with DATA that nobody has read yet."""
    path = shared.base / uuid.uuid4().hex[:8]
    write(shared, path.name, DATA)
    return path


def can_pass_through() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 9)


def write(mount: Mount, name: str, data: bytes) -> None:
    (mount.base / name).write_bytes(data)
    freeze(mount, name, on=True)


def freeze(mount: Mount, *names: str, on: bool) -> None:
    with open_volume(mount.url, background=False, caller=Caller.root()) as volume:
        for name in names:
            volume.files.set_immutable(f"/{name}", on=on)


def stats(mount: Mount) -> dict[str, float]:
    lines = (mount.base / ".stats").read_text().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1].isalpha())}


def reads(mount: Mount) -> float:
    """READ requests that the daemon got, without the one that asks for the statistics."""
    return stats(mount).get("juicefs_fuse_ops_total_read", 0)


def natives(mount: Mount) -> float:
    return stats(mount).get("fscore_mount_native_opens", 0)


def make_whole(mount: Mount, path: Path, data: bytes) -> Path:
    """Read a file until the next open of it is native."""
    deadline = time.monotonic() + 20
    while True:
        before = natives(mount)
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else the kernel's pages answer, unfilled
            assert file.read() == data
        if natives(mount) > before:
            return path
        assert time.monotonic() < deadline, mount.said()
        time.sleep(0.1)


def test_the_first_reader_fills_it_and_the_next_is_not_the_daemons_affair(shared: Mount, model: Path) -> None:
    make_whole(shared, model, DATA)
    before, opens = reads(shared), natives(shared)
    asked = reads(shared) - before
    for _ in range(3):
        assert model.read_bytes() == DATA
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == DATA
    with model.open("rb", buffering=0) as raw:
        for at in random.Random(1).sample(range(len(DATA)), 300):
            assert os.pread(raw.fileno(), 4096, at) == DATA[at : at + 4096]
    assert reads(shared) - before <= 3 * max(asked, 1), "only the statistics were read"
    assert natives(shared) == opens + 5
    assert stats(shared)["fscore_mount_native_bytes"] >= 5 * len(DATA)
    assert model.stat().st_size == len(DATA)


def test_while_it_fills_two_readers_get_right_bytes(shared: Mount, model: Path) -> None:
    with model.open("rb", buffering=0) as one, model.open("rb", buffering=0) as two:
        got = b""
        for at in range(0, len(DATA), MIB // 2):
            got += one.read(MIB // 2)
            back = max(len(DATA) - at - 5000, 0)
            assert os.pread(two.fileno(), 5000, back) == DATA[back : back + 5000]
        assert got == DATA


def test_opens_of_one_file_agree_whatever_comes(shared: Mount, model: Path) -> None:
    early = model.open("rb", buffering=0)
    for _ in range(3):
        assert model.read_bytes() == DATA
    time.sleep(0.5)
    opens = natives(shared)
    assert model.read_bytes() == DATA
    assert natives(shared) == opens, "the first open is served by the daemon, so are all beside it"
    early.close()
    make_whole(shared, model, DATA)
    held = [model.open("rb", buffering=0) for _ in range(20)]
    assert natives(shared) >= opens + 20
    for number, file in enumerate(held):
        assert os.pread(file.fileno(), 100, number * 1000) == DATA[number * 1000 : number * 1000 + 100]
        file.close()
    with refused(errno.EPERM):
        model.open("r+b")
    with model.open("rb") as reading:
        with refused(errno.EPERM):
            model.open("r+b")
        with refused(errno.EPERM):
            os.truncate(model, 10)
        assert reading.read(10) == DATA[:10]


def test_many_programs_open_and_close_at_once(shared: Mount, model: Path) -> None:
    script = (
        "import sys\n"
        "for _ in range(60):\n"
        "    with open(sys.argv[1], 'rb') as file:\n"
        "        file.seek(int(sys.argv[2]))\n"
        "        sys.stdout.write(file.read(3).hex() + '\\n')\n"
    )
    running = [
        subprocess.Popen(["python3", "-c", script, str(model), str(at)], stdout=subprocess.PIPE, text=True)
        for at in range(0, 8 * MIB, MIB)
    ]
    for at, process in enumerate(running):
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert set(out.split()) == {DATA[at * MIB : at * MIB + 3].hex()}


def test_an_open_file_outlives_its_eviction(shared: Mount, model: Path) -> None:
    make_whole(shared, model, DATA)
    with model.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == DATA[:10]
        for kept in shared.base.parent.glob("cache/*/whole/*/*"):
            kept.unlink(missing_ok=True)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == DATA
    assert model.read_bytes() == DATA
    make_whole(shared, model, DATA)


def test_what_somebody_changed_on_the_disk_is_not_served(shared: Mount, model: Path) -> None:
    make_whole(shared, model, DATA)
    for kept in shared.base.parent.glob(f"cache/*/whole/{len(DATA)}/*.bytes"):
        with kept.open("r+b") as file:
            file.seek(MIB)
            file.write(b"tampered with")
    assert model.read_bytes() == DATA
    assert model.read_bytes() == DATA
    make_whole(shared, model, DATA)


def test_a_restart_finds_it_whole(shared: Mount, model: Path) -> None:
    make_whole(shared, model, DATA)
    assert shared.stop() == 0
    shared.start()
    assert model.read_bytes() == DATA
    assert natives(shared) == 1


def test_files_that_may_change_are_the_daemons_unless_asked(make_mount: MakeMount) -> None:
    plain = make_mount(*ROOM)
    everything = make_mount("--whole-cache", "all", *ROOM, url=plain.url)
    (plain.base / "f").write_bytes(OTHER)
    for _ in range(3):
        assert (plain.base / "f").read_bytes() == OTHER
        time.sleep(0.2)
    assert natives(plain) == 0
    if not can_pass_through():
        return
    path = make_whole(everything, everything.base / "f", OTHER)
    with path.open("rb", buffering=0) as reading:
        assert os.pread(reading.fileno(), 4, 0) == OTHER[:4]
        with refused(errno.ETXTBSY):
            path.open("r+b")
        with refused(errno.ETXTBSY):
            os.truncate(path, 3)
        with (plain.base / "f").open("r+b") as file:
            file.write(b"else")
        with path.open("rb", buffering=0) as second:
            assert os.pread(second.fileno(), 6, 0) == b"else" + OTHER[4:6], "close-to-open holds beside an old reader"
    with path.open("r+b") as file:
        file.write(b"more")
    assert path.read_bytes() == b"more" + OTHER[4:]


def test_it_can_be_turned_off(make_mount: MakeMount) -> None:
    mount = make_mount("--whole-cache", "off", *ROOM)
    write(mount, "f", OTHER)
    for _ in range(3):
        assert (mount.base / "f").read_bytes() == OTHER
    assert natives(mount) == 0
    assert list(mount.base.parent.glob("cache/*/whole")) == []
    freeze(mount, "f", on=False)
