"""One slow request holds up nobody: the store does not answer, and the mount serves on. Mounted in this process."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.domain.errors import CorruptError
from fscore.mount.api import Mounted
from fscore.mount.operations import Operations
from fscore.mount.options import MountOptions
from fscore.objects.api import ObjectStore
from fscore.objects.file import FileStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty
from fscore.objects.wrap.wrapper import Wrapper
from fscore.runtime.buffer import Buffer
from fscore.volume import Volume, open_volume
from tests.kit.mounts import assert_volume_sound, fresh_volume, need_fuse, refused, until

pytestmark = pytest.mark.mount

SIZE = 600_000


class Gated(Wrapper):
    """A store whose reads wait while the gate is shut."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = 0

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Bytes of an object, when the gate is open."""
        self._pass()
        return self.inner.get(key, offset, length)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """A whole object, when the gate is open."""
        self._pass()
        return self.inner.fill(key, buffer)

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Bytes of an object, when the gate is open."""
        self._pass()
        return self.inner.get_into(key, buffer, offset)

    def _pass(self) -> None:
        self.waiting += 1
        assert self.gate.wait(60)
        self.waiting -= 1


class Here:
    """A volume mounted by this process."""

    def __init__(self, place: Path, url: str, store: ObjectStore, transport: str, *, read_only: bool = False) -> None:
        self.path = place / "mnt"
        self.path.mkdir(exist_ok=True)
        self.volume: Volume = open_volume(
            url, object_store=store, durable=False, memory_cache=0, read_ahead=0, attempts=1, patience_s=(0.0,)
        )
        chosen = MountOptions(allow_other=True, read_only=read_only)
        self.mounted: Mounted = _serve(transport, Operations(self.volume.vfs, chosen), self.path, chosen)

    def close(self) -> None:
        """Unmount and close."""
        self.mounted.stop()
        self.volume.close()


def _serve(transport: str, operations: Operations, path: Path, options: MountOptions) -> Mounted:
    if transport == "kernel":
        from fscore.mount.transports.kernel import session

        return session.serve(operations, path, options)
    from fscore.mount.transports import pyfuse3

    return pyfuse3.serve(operations, path, options)


@pytest.fixture(params=["kernel", "pyfuse3"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn."""
    need_fuse(request.param)
    return str(request.param)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        yield Path(name)


@pytest.fixture
def slow(place: Path, transport: str, request: pytest.FixtureRequest) -> Iterator[tuple[Here, Gated]]:
    """A mount on a store with a gate, and nothing cached."""
    url = fresh_volume("sqlite", place, request)
    store = Gated(FileStore(f"{place / 'objects'}/"))
    here = Here(place, url, store, transport)
    try:
        yield here, store
    finally:
        store.gate.set()
        here.close()
    assert_volume_sound(url)


def cold_file(here: Here, name: str) -> bytes:
    """A file that no cache holds."""
    data = os.urandom(SIZE)
    here.volume.files.write_bytes(f"/{name}", data)
    return data


def test_a_slow_read_delays_no_stat(slow: tuple[Here, Gated]) -> None:
    here, store = slow
    data = cold_file(here, "cold")
    store.gate.clear()
    with subprocess.Popen(["cat", here.path / "cold"], stdout=subprocess.PIPE) as reader:
        until(lambda: store.waiting > 0)
        began = time.monotonic()
        for number in range(50):
            (here.path / f"new-{number}").write_bytes(b"")
            assert (here.path / f"new-{number}").stat().st_size == 0
        assert len(os.listdir(here.path)) == 51
        assert time.monotonic() - began < 5
        assert store.waiting > 0, "the reader still waits"
        store.gate.set()
        assert reader.stdout is not None
        assert reader.stdout.read() == data


def test_thirty_slow_reads_delay_no_stat(slow: tuple[Here, Gated]) -> None:
    here, store = slow
    for number in range(30):
        cold_file(here, f"cold-{number}")
    store.gate.clear()
    readers = [subprocess.Popen(["cat", here.path / f"cold-{n}"], stdout=subprocess.DEVNULL) for n in range(30)]
    until(lambda: store.waiting >= 4)
    began = time.monotonic()
    (here.path / "new").write_bytes(b"")
    assert (here.path / "new").stat().st_size == 0
    assert time.monotonic() - began < 5
    store.gate.set()
    assert [reader.wait(30) for reader in readers] == [0] * 30


def test_a_failing_store_is_eio_and_said_once(
    place: Path, transport: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    url = fresh_volume("sqlite", place, request)
    plan = FaultPlan(calls=frozenset({"get"}), error=CorruptError)
    here = Here(place, url, Faulty(FileStore(f"{place / 'objects'}/"), plan), transport)
    try:
        cold_file(here, "cold")
        plan.at, plan.persistent = 1, True
        for _ in range(3):
            with refused(errno.EIO):
                (here.path / "cold").read_bytes()
        assert (here.path / "cold").stat().st_size == SIZE
    finally:
        plan.heal()
        here.close()
    told = [record for record in caplog.records if "programs get EIO" in record.message]
    assert len(told) == 1
    assert_volume_sound(url)


def test_a_write_that_cannot_be_stored_fails_the_close(
    place: Path, transport: str, request: pytest.FixtureRequest
) -> None:
    url = fresh_volume("sqlite", place, request)
    plan = FaultPlan(calls=frozenset({"put"}))
    here = Here(place, url, Faulty(FileStore(f"{place / 'objects'}/"), plan), transport)
    try:
        plan.at, plan.persistent = 1, True
        fd = os.open(here.path / "f", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x" * 1000)
        with refused(errno.EIO):
            os.fsync(fd)
        with refused(errno.EIO):
            os.close(fd)
        plan.heal()
        (here.path / "g").write_bytes(b"works again")
        assert (here.path / "g").read_bytes() == b"works again"
    finally:
        plan.heal()
        here.close()
    assert_volume_sound(url, leaks=True)


def test_two_mounts_of_one_process(place: Path, request: pytest.FixtureRequest) -> None:
    need_fuse()
    url = fresh_volume("sqlite", place, request)
    (place / "second").mkdir()
    one = Here(place, url, FileStore(f"{place / 'objects'}/"), "kernel")
    two = Here(place / "second", url, FileStore(f"{place / 'objects'}/"), "kernel", read_only=True)
    try:
        (one.path / "f").write_bytes(b"shared")
        assert (two.path / "f").read_bytes() == b"shared"
        with refused(errno.EROFS):
            (two.path / "g").touch()
    finally:
        two.close()
        one.close()
    assert_volume_sound(url)
