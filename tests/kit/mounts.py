"""Real mounts in this machine's kernel: every transport, two engines, always unmounted, fsck at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

import pytest

from fscore.admin.format import format_volume
from fscore.mount.mounts import canonical, mount_at
from fscore.volume import Volume, open_volume
from tests.kit.redis_server import RedisServer
from tests.kit.volumes import assert_sound

WAIT_S: Final = 30.0
ROOT: Final = Path(__file__).parents[2]
KINDS: Final[list[Any]] = [
    pytest.param(("kernel", "sqlite"), id="kernel-sqlite"),
    pytest.param(("kernel", "redis"), id="kernel-redis", marks=pytest.mark.redis),
    pytest.param(("pyfuse3", "sqlite"), id="pyfuse3-sqlite"),
    pytest.param(("pyfuse3", "redis"), id="pyfuse3-redis", marks=[pytest.mark.redis, pytest.mark.nightly]),
]
"""Transports and engines that the suites of mounts run over."""


class Mount:
    """`fscore mount` in a process of its own; `base` is where the volume is."""

    def __init__(self, url: str, place: Path, transport: str, *options: str) -> None:
        self.url = url
        self.base = place / "mnt"
        self.transport = transport
        self._cache = place / "cache"
        self._log = place / "log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.base.mkdir(parents=True)

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Mount, and return when it is there."""
        command = [sys.executable, "-m", "fscore.cli.main", "mount", self.url, str(self.base)]
        command += ["--transport", self.transport, "--cache-dir", str(self._cache), *self._options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT)
        deadline = time.monotonic() + WAIT_S
        while not os.path.ismount(self.base):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                pytest.fail(f"{self.transport} does not mount: {self.said()}")
            time.sleep(0.02)

    def stop(self, *, lazy: bool = False) -> int:
        """Unmount and wait for the process; its exit code, or what a killed one leaves."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if mount_at(canonical(self.base)) is not None:
            subprocess.run(["umount", *(["-l"] if lazy else []), str(self.base)], capture_output=True, check=False)
        try:
            return process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            subprocess.run(["umount", "-l", str(self.base)], capture_output=True, check=False)
            return process.wait()

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        process = self._process
        assert process is not None
        process.send_signal(number)
        code = process.wait(WAIT_S)
        self._process = None
        return code

    def kill(self) -> None:
        """kill -9, then take the dead mount away."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()
        subprocess.run(["umount", "-l", str(self.base)], capture_output=True, check=True)

    def said(self) -> str:
        """The end of what the process logged."""
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""


class Mounted:
    """A fresh directory `path` in a mount that the tests of a module share."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.path = mount.base / uuid.uuid4().hex[:8]
        self.path.mkdir()

    @property
    def url(self) -> str:
        """META-URL of the volume."""
        return self.mount.url

    @property
    def transport(self) -> str:
        """Which transport serves."""
        return self.mount.transport

    @property
    def inside(self) -> str:
        """The path of the directory within the volume."""
        return f"/{self.path.name}"

    def client(self) -> Volume:
        """Another client of the volume, in this process: close it."""
        return open_client(self.url)


def refused(number: int, *, also: int = 0) -> pytest.RaisesExc[OSError]:
    """A system call that ends with this errno."""
    return pytest.RaisesExc(OSError, check=lambda error: error.errno in {number, also or number})


def until(met: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what must come true soon."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.01)


def not_tested(reason: str) -> NoReturn:
    """Skip, and say why; fail where REQUIRE_SERVICES=1."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def need_fuse(transport: str = "kernel") -> None:
    """Skip, and say so, where nothing can be mounted; fail where REQUIRE_SERVICES=1."""
    reason = ""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = "/dev/fuse is missing or closed: nothing is mounted, and mounts are not tested"
    elif os.geteuid() != 0:
        reason = "mounts are tested as root"
    elif transport == "pyfuse3" and find_spec("pyfuse3") is None:
        reason = "pyfuse3 is not installed: its transport is not tested"
    if reason:
        not_tested(reason)


def fresh_volume(engine: str, place: Path, request: pytest.FixtureRequest, **setting: Any) -> str:
    """META-URL of a new volume with small blocks and no trash, its objects below `place`."""
    if engine == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.fresh_url()
    else:
        url = f"sqlite3://{place / 'meta.db'}"
    chosen: dict[str, Any] = {"bucket": str(place / "objects"), "block_size": "256K", "trash_days": 0}
    format_volume(url, "mount-test", **(chosen | setting))
    return url


def open_client(url: str, **options: Any) -> Volume:
    """A client of a volume in this process, without threads of its own: close it."""
    return open_volume(url, **({"background": False, "durable": False} | options))


def assert_volume_sound(url: str, *, leaks: bool = False) -> None:
    """fsck finds nothing in the volume once nobody has it mounted."""
    with open_client(url) as volume:
        assert_sound(volume, leaks=leaks)


@pytest.fixture(scope="module", params=KINDS)
def module_mount(request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One mount for the tests of a module, on every transport and engine in turn; fsck at the end."""
    transport, engine = request.param
    need_fuse(transport)
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        place.chmod(0o755)  # others come, too
        url = fresh_volume(engine, place, request)
        mount = Mount(url, place / "at", transport, "--enable-xattr", "--allow-other")
        mount.start()
        try:
            yield mount
            code = mount.stop()
            assert code == 0, f"exit code {code}: {mount.said()}"
        finally:
            mount.stop(lazy=True)
        assert_volume_sound(url)


@pytest.fixture
def mounted(module_mount: Mount) -> Mounted:
    """A fresh directory in a real mount."""
    return Mounted(module_mount)


class MakeMount(Protocol):
    """Mounts a volume, by default one more time the volume of the first call; unmounted at teardown."""

    def __call__(self, *options: str, url: str = ..., transport: str = ..., engine: str = ...) -> Mount: ...


@contextmanager
def mount_maker(request: pytest.FixtureRequest) -> Iterator[MakeMount]:
    """A factory of mounts of one fresh volume; all are unmounted and the volume audited at the end."""
    need_fuse()
    mounts: list[Mount] = []
    urls: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)

        def make(*options: str, url: str = "", transport: str = "kernel", engine: str = "sqlite") -> Mount:
            need_fuse(transport)
            if not urls:
                urls.append(url or fresh_volume(engine, place, request))
            mount = Mount(url or urls[0], place / f"at-{len(mounts)}", transport, *options)
            mounts.append(mount)
            mount.start()
            return mount

        try:
            yield make
        finally:  # nothing is removed through a mount
            for mount in mounts:
                mount.stop(lazy=True)
        for url in urls:
            assert_volume_sound(url, leaks=True)


@pytest.fixture
def make_mount(request: pytest.FixtureRequest) -> Iterator[MakeMount]:
    """A factory of mounts of one fresh volume, for tests that need several, or others than `mounted`."""
    with mount_maker(request) as make:
        yield make


@pytest.fixture(scope="module", params=["kernel", "pyfuse3"])
def module_mounts(request: pytest.FixtureRequest) -> Iterator[tuple[Mount, Mount]]:
    """Two mounts of one volume for the tests of a module: one on each transport in turn, and one on ours."""
    with mount_maker(request) as make:
        yield make(transport=request.param), make()


@pytest.fixture
def both(module_mounts: tuple[Mount, Mount]) -> tuple[Path, Path]:
    """A fresh directory, as each of two mounts has it."""
    name = uuid.uuid4().hex[:8]
    places = module_mounts[0].base / name, module_mounts[1].base / name
    places[0].mkdir()
    until(places[1].is_dir)
    return places
