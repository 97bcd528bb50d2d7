"""Locks on real mounts: by whole files and by ranges, waited for, interrupted, and held between two mounts."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fscore.domain.locks import LockKind
from tests.kit.mounts import MakeMount, Mounted, open_client, refused

pytestmark = pytest.mark.mount

HOLDER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
fd = os.open(sys.argv[1], os.O_RDWR)
print("asking", flush=True)
{lock}
print("held", flush=True)
sys.stdin.readline()
{then}
"""
WHOLE = "fcntl.flock(fd, fcntl.LOCK_EX)"
RANGE = "fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)"


@contextmanager
def held(path: Path, lock: str, then: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a lock until it gets a line."""
    program = HOLDER.format(lock=lock, then=then)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asking\n"
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            let_go(process)


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Have the other process end; one that still waits for its lock is killed."""
    if process.poll() is None and process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """An open file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("lock", [WHOLE, RANGE])
def test_a_lock_keeps_others_out_until_it_is_let_go(mounted: Mounted, lock: str) -> None:
    path = mounted.path / "f"
    path.touch()
    take = fcntl.flock if lock == WHOLE else fcntl.lockf
    with held(path, lock) as process, opened(path) as fd:
        with refused(errno.EAGAIN, also=errno.EACCES):
            take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        let_go(process)
        take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_ranges_are_ranges(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.touch()
    with held(path, RANGE), opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 15)
        with refused(errno.EAGAIN, also=errno.EACCES):
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 14)


def test_shared_locks_share(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.touch()
    with held(path, "fcntl.flock(fd, fcntl.LOCK_SH)"), opened(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with refused(errno.EAGAIN):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("lock", [WHOLE, RANGE])
def test_waiting_ends_when_the_holder_lets_go_or_dies(mounted: Mounted, lock: str) -> None:
    path = mounted.path / "f"
    path.touch()
    take = fcntl.flock if lock == WHOLE else fcntl.lockf
    for end in ("line", "kill"):
        with held(path, lock) as process, held_soon(path, lock) as waiter:
            assert waiter.stdout is not None
            assert not select.select([waiter.stdout], [], [], 0.3)[0], "it waits"
            if end == "kill":
                process.kill()
            else:
                let_go(process)
            assert waiter.stdout.readline() == b"held\n"
    with opened(path) as fd:
        take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def held_soon(path: Path, lock: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that waits for the lock."""
    program = HOLDER.format(lock=lock, then="")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asking\n"
        try:
            yield process
        finally:
            let_go(process)


@pytest.mark.parametrize("lock", [WHOLE, RANGE])
def test_a_signal_ends_the_wait(mounted: Mounted, lock: str) -> None:
    path = mounted.path / "f"
    path.touch()
    with held(path, lock):
        with held_soon(path, lock) as waiter:
            time.sleep(0.3)
            waiter.send_signal(signal.SIGINT)
            assert waiter.wait(5) != 0, "KeyboardInterrupt"
        with held_soon(path, lock) as waiter:
            time.sleep(0.3)
            waiter.kill()
            assert waiter.wait(5) == -signal.SIGKILL
    with opened(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_many_who_wait_hold_up_nobody(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.touch()
    program = f"import fcntl, os\nfd = os.open({str(path)!r}, os.O_RDWR)\n"
    program += "for _ in range(80):\n    if os.fork() == 0: break\n"
    program += "fcntl.flock(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), fcntl.LOCK_EX)\n"
    with held(path, WHOLE) as holder:
        crowd = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
        try:
            time.sleep(0.5)
            began = time.monotonic()
            (mounted.path / "other").write_bytes(b"served")
            assert (mounted.path / "other").read_bytes() == b"served"
            assert time.monotonic() - began < 5
            let_go(holder)
            assert crowd.wait(30) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(crowd.pid, signal.SIGKILL)


def test_closing_any_descriptor_lets_ranges_go(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.touch()
    with opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.close(os.open(path, os.O_RDONLY))
        with held(path, RANGE):
            pass


def test_who_is_in_the_way_is_told(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.touch()
    ask = "import fcntl, struct, sys, os\nfd = os.open(sys.argv[1], os.O_RDWR)\n"
    ask += "asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
    ask += "print(*struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_GETLK, asked)))"
    with opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_SH, 10, 5)
        said = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, check=True, text=True).stdout
        assert said.split() == [str(number) for number in (fcntl.F_RDLCK, 0, 5, 10, os.getpid())]
        fcntl.lockf(fd, fcntl.LOCK_UN)
        said = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, check=True, text=True).stdout
        assert said.split()[0] == str(fcntl.F_UNLCK)


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
@pytest.mark.parametrize("lock", [WHOLE, RANGE])
def test_locks_hold_between_mounts(make_mount: MakeMount, engine: str, lock: str) -> None:
    first, second = make_mount(engine=engine), make_mount()
    path = first.base / "f"
    path.touch()
    take = fcntl.flock if lock == WHOLE else fcntl.lockf
    with held(path, lock) as process, opened(second.base / "f") as fd:
        with refused(errno.EAGAIN, also=errno.EACCES):
            take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with held_soon(second.base / "f", lock) as waiter:
            let_go(process)
            assert waiter.stdout is not None
            assert select.select([waiter.stdout], [], [], 10)[0], "the lock comes over"


def test_a_counter_under_a_lock_counts_right_over_two_mounts(make_mount: MakeMount) -> None:
    """Who locks before reading sees what the holder before wrote: no cache stands in between."""
    mounts = make_mount(), make_mount()
    (mounts[0].base / "count").write_bytes(b"0")
    program = """
import fcntl, os, sys
for _ in range(40):
    with open(sys.argv[1], "r+b", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        number = int(file.read())
        file.seek(0)
        file.write(b"%d" % (number + 1))
        fcntl.lockf(file, fcntl.LOCK_UN)
"""
    held_open = """
import fcntl, os, sys
with open(sys.argv[1], "r+b", buffering=0) as file:
    for _ in range(40):
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.seek(0)
        number = int(file.read())
        file.seek(0)
        file.write(b"%d" % (number + 1))
        fcntl.lockf(file, fcntl.LOCK_UN)
"""
    counters = [
        subprocess.Popen([sys.executable, "-c", text, str(mount.base / "count")])
        for mount in mounts
        for text in (program, held_open)
    ]
    assert [counter.wait(60) for counter in counters] == [0] * 4
    time.sleep(1.1)
    assert [(mount.base / "count").read_bytes() for mount in mounts] == [b"160", b"160"]


def test_closing_lets_ranges_of_an_immutable_file_go(make_mount: MakeMount) -> None:
    mount = make_mount()
    path = mount.base / "f"
    path.write_bytes(b"x")
    with open_client(mount.url) as client:
        ino = path.stat().st_ino
        client.files.set_immutable("/f", on=True)
        time.sleep(1.1)  # the mount's copy of its attributes is older
        with path.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH)
            assert client.meta.getlk(ino, 1, LockKind.WRITE, 0, 10) is not None
        assert client.meta.getlk(ino, 1, LockKind.WRITE, 0, 10) is None
        client.files.set_immutable("/f", on=False)


def test_a_mount_without_a_session_leaves_locks_to_the_kernel(make_mount: MakeMount) -> None:
    path = make_mount().base / "f"
    path.touch()
    mount = make_mount("--read-only")
    deadline = time.monotonic() + 10
    while "locks are this machine's only" not in mount.said():
        assert time.monotonic() < deadline, "it says so once it is mounted"
        time.sleep(0.05)
    path = mount.base / "f"
    with path.open("rb") as file, path.open("rb") as other:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with refused(errno.EAGAIN):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_SH)


def test_a_mount_that_is_killed_lets_its_locks_go(make_mount: MakeMount) -> None:
    first, second = make_mount("--heartbeat", "1"), make_mount("--heartbeat", "1")
    path = first.base / "f"
    path.touch()
    with held(path, WHOLE):
        first.kill()
    with opened(second.base / "f") as fd:
        deadline = time.monotonic() + 60
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the dead client's session is reaped, its locks with it"
                time.sleep(0.2)
