"""`fscore mount` and `fscore umount` as a user types them: up, busy, dead, refused, and gone without a loss."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.mount.leave import leave
from fscore.mount.mounts import mount_at, unmount
from fscore.volume import open_volume
from tests.kit.command import run_fscore
from tests.kit.mounts import Mount, assert_volume_sound, fresh_volume, need_fuse, not_tested, refused
from tests.kit.redis_server import RedisServer, need_redis

pytestmark = pytest.mark.mount

NOBODY = 65534


class Desk:
    """A volume and a mountpoint, and the two commands on them."""

    def __init__(self, place: Path, url: str) -> None:
        self.url = url
        self.place = place
        self.dir = place / "mnt"
        self.log = place / "log"
        self.foreground: list[Mount] = []

    def serve(self, transport: str, url: str = "") -> Mount:
        """Mount in the foreground of a process of its own."""
        mount = Mount(url or self.url, self.place / "fg", transport)
        self.foreground.append(mount)
        mount.start()
        return mount

    def mount(self, *options: str, expect: int = 0) -> str:
        """Mount in the background; what was said."""
        done = run_fscore(
            "mount", self.url, self.dir, "-d", "--log", self.log, "--cache-dir", self.place / "cache", *options
        )
        assert done.returncode == expect, done.stderr.decode()
        assert done.stdout == b""
        return done.stderr.decode()

    def umount(self, *options: str, expect: int = 0) -> str:
        """Unmount; what was said."""
        done = run_fscore("umount", self.dir, *options)
        assert done.returncode == expect, done.stderr.decode()
        return done.stderr.decode()

    def config(self) -> dict[str, object]:
        """What `.config` says."""
        found: dict[str, object] = json.loads((self.dir / ".config").read_text())
        return found

    @property
    def pid(self) -> int:
        """The process that serves."""
        pid = self.config()["Pid"]
        assert isinstance(pid, int)
        return pid


def runs(pid: int) -> bool:
    """Whether a process is there; one that only waits for its parent is not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds."""
    deadline = time.monotonic() + 10
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not runs(pid)


@pytest.fixture
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    need_fuse()
    with tempfile.TemporaryDirectory(prefix="fscore-mount-") as name:
        place = Path(name)
        desk = Desk(place, fresh_volume("sqlite", place, request))
        try:
            yield desk
        finally:
            for mount in desk.foreground:
                mount.stop(lazy=True)
            while mount_at(desk.dir) is not None:
                subprocess.run(["umount", "-l", str(desk.dir)], check=True)
        assert_volume_sound(desk.url, leaks=True)


def test_up_in_the_background_and_gone_when_umount_returns(desk: Desk) -> None:
    said = desk.mount()
    assert said == f"fscore: mount-test is mounted at {desk.dir} (kernel)\n"
    (desk.dir / "a").write_bytes(b"hello")
    pid = desk.pid
    assert os.getsid(pid) == pid, "no terminal's end reaches it"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert desk.umount() == f"fscore: {desk.dir} is unmounted, everything is committed\n"
    assert not runs(pid)
    assert os.listdir(desk.dir) == []
    log = desk.log.read_text()
    assert re.search(r"^\d{4}-.* INFO mount-test is mounted at ", log, re.MULTILINE)
    assert "is unmounted, everything is committed" in log
    with open_volume(desk.url, read_only=True) as volume:
        assert volume.files.read_bytes("/a") == b"hello"


def test_the_session_tells_the_mountpoint(desk: Desk) -> None:
    desk.mount()
    with open_volume(desk.url, session=False) as volume:
        places = [json.loads(session.info)["MountPoint"] for session in volume.meta.engine.sessions()]
    assert places == [str(desk.dir)]
    desk.umount()
    with open_volume(desk.url, session=False) as volume:
        assert volume.meta.engine.sessions() == []


def test_what_cannot_be_mounted_is_said_by_who_started_it(desk: Desk) -> None:
    assert "no such file or directory" in desk.mount("--subdir", "/none", expect=1)
    desk.url, url = "sqlite3:///none/such.db", desk.url
    said = desk.mount(expect=2)
    assert said.count("\n") == 1
    assert "format one first" in said or "unable to open" in said
    assert said.split("fscore: ")[1] in desk.log.read_text() + "\n"
    desk.url = url
    assert mount_at(desk.dir) is None


def test_twice_is_refused_with_the_way_out(desk: Desk) -> None:
    desk.mount()
    said = desk.mount(expect=1)
    assert "fscore:mount-test is mounted here already" in said
    assert f"fscore umount {desk.dir}" in said
    link = desk.place / "link"
    link.symlink_to(desk.dir)
    assert run_fscore("umount", link).returncode == 0
    assert "nothing is mounted here" in desk.umount(expect=1)
    assert "not of fscore" in run_fscore("umount", "/proc").stderr.decode()


def test_a_dead_mount_is_named_and_cleared(desk: Desk) -> None:
    desk.mount()
    pid = desk.pid
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    with refused(errno.ENOTCONN, also=errno.ECONNABORTED):
        os.listdir(desk.dir)
    assert "was dead" in desk.umount()
    assert mount_at(desk.dir) is None
    desk.mount()
    desk.umount()


def test_a_restarted_mount_takes_the_place_of_the_dead_one(desk: Desk) -> None:
    desk.mount()
    (desk.dir / "a").write_bytes(b"kept")
    for _ in range(2):
        pid = desk.pid
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
        desk.mount()
        assert (desk.dir / "a").read_bytes() == b"kept"
    assert "whose process" not in desk.umount()
    assert mount_at(desk.dir) is None, "nothing dead lies below"
    assert "by a process that is gone" in desk.log.read_text()


def test_a_dead_mount_of_somebody_else_is_left_alone(desk: Desk) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    desk.dir.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR)
    words = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"other", os.fsencode(desk.dir), b"fuse.other", 0, words) == 0
    os.close(device)
    said = desk.mount(expect=1)
    assert f"a mount whose process is gone lies here: umount -l {desk.dir}" in said
    entry = mount_at(desk.dir)
    assert entry is not None
    assert entry.fstype == "fuse.other"


def test_who_uses_a_mount_is_named_and_lazy_lets_them_finish(desk: Desk) -> None:
    desk.mount()
    pid = desk.pid
    file = desk.dir / "held"
    with file.open("wb") as held:
        held.write(b"before")
        held.flush()
        said = desk.umount(expect=1)
        assert "in use by" in said
        assert f"(pid {os.getpid()})" in said
        assert "--lazy" in said
        assert "is unmounted; its process ends when" in desk.umount("--lazy")
        assert mount_at(desk.dir) is None
        held.write(b" and after")
    assert gone(pid)
    with open_volume(desk.url, read_only=True) as volume:
        assert volume.files.read_bytes("/held") == b"before and after"


def test_umount_leaves_what_cannot_be_committed(desk: Desk) -> None:
    desk.mount("--io-retries", "1")
    objects, aside = desk.place / "objects", desk.place / "aside"
    held = os.open(desk.dir / "held", os.O_CREAT | os.O_WRONLY)
    os.write(held, b"not yet")
    objects.rename(aside)
    objects.touch()  # the store cannot even make its directory
    said = desk.umount(expect=1)
    assert "not everything is committed, so it stays mounted" in said
    assert mount_at(desk.dir) is not None
    objects.unlink()
    aside.rename(objects)
    with pytest.raises(OSError, match=r"argument|error"):
        os.fsync(held)  # whose bytes are lost is told so, however late
    _close(held)
    desk.umount()


def test_force_ends_the_process_after_it_committed(desk: Desk) -> None:
    desk.mount()
    pid = desk.pid
    held = os.open(desk.dir / "held", os.O_CREAT | os.O_WRONLY)
    os.write(held, b"written")
    desk.umount("--force")
    assert not runs(pid)
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.write(held, b"more")
    _close(held)
    with open_volume(desk.url, read_only=True) as volume:
        assert volume.files.read_bytes("/held") == b"written"


def test_force_does_not_wait_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fscore.mount.leave.FORCE_S", 1.0)
    desk.mount()
    pid = desk.pid
    os.kill(pid, signal.SIGSTOP)  # it answers nothing, and cannot even end
    assert "not everything could be committed before: the mount does not answer" in leave(desk.dir, force=True)
    assert mount_at(desk.dir) is None
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)


def test_force_kills_who_cannot_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.mount()
    pid = desk.pid
    monkeypatch.setattr("fscore.mount.leave.FORCE_S", 1.0)

    def stopped(target: Path, **how: bool) -> None:
        os.kill(pid, signal.SIGSTOP)
        unmount(target, **how)

    monkeypatch.setattr("fscore.mount.leave.unmount", stopped)
    assert "was killed: changes may be lost" in leave(desk.dir, force=True)
    assert not runs(pid)


def test_a_process_of_another_namespace_is_not_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.mount()
    pid = desk.pid
    monkeypatch.setattr("fscore.mount.leave.pid_namespace", lambda: "pid:[1]")
    assert "in a container or elsewhere, and is not waited for" in leave(desk.dir)
    assert gone(pid), "by itself"


def test_umount_waits_for_the_process_though_its_files_are_hidden(desk: Desk) -> None:
    desk.mount("--hide-internal")
    assert os.listdir(desk.dir) == []
    pid = desk.pid
    desk.umount()
    assert not runs(pid)


@pytest.mark.parametrize(
    ("transport", "number"), [("kernel", signal.SIGTERM), ("kernel", signal.SIGHUP), ("pyfuse3", signal.SIGINT)]
)
def test_a_signal_loses_nothing(desk: Desk, transport: str, number: signal.Signals) -> None:
    need_fuse(transport)
    mount = desk.serve(transport)
    held = os.open(mount.base / "held", os.O_CREAT | os.O_RDWR)
    os.write(held, b"x" * 3_000_000)
    assert mount.signal(number) == 0, mount.said()
    _close(held)
    assert not os.path.ismount(mount.base)
    with open_volume(desk.url, read_only=True) as volume:
        assert volume.files.read_bytes("/held") == b"x" * 3_000_000


def _close(fd: int) -> None:
    """Close a file whose filesystem is gone: it says so, and the descriptor is free all the same."""
    try:
        os.close(fd)
    except OSError:
        return


def test_what_a_program_changed_by_mmap_is_not_lost(desk: Desk) -> None:
    mount = desk.serve("kernel")
    (mount.base / "mapped").write_bytes(b"." * 8192)
    file = os.open(mount.base / "mapped", os.O_RDWR)
    pages = mmap.mmap(file, 8192)
    pages[4096:4100] = b"here"
    assert mount.signal(signal.SIGTERM) == 0
    pages.close()
    _close(file)
    with open_volume(desk.url, read_only=True) as volume:
        assert volume.files.read_bytes("/mapped")[4090:4102] == b"......here.."


@pytest.mark.redis
def test_a_second_interrupt_gives_up_when_the_volume_does_not_answer(desk: Desk) -> None:
    need_redis()
    server = RedisServer(desk.place)
    server.start()
    try:
        url = server.fresh_url()
        run_fscore("format", url, "lost", "--bucket", desk.place / "lost")
        mount = desk.serve("kernel", url)
        held = os.open(mount.base / "held", os.O_CREAT | os.O_RDWR)
        os.write(held, b"x")
        assert server._process is not None
        server._process.send_signal(signal.SIGSTOP)
        os.kill(mount.pid, signal.SIGINT)
        time.sleep(1)
        assert runs(mount.pid), "it tries to commit"
        assert mount.signal(signal.SIGINT) == 1
        assert "given up" in mount.said()
        _close(held)
        assert not os.path.ismount(mount.base)
    finally:
        if server._process is not None:
            server._process.send_signal(signal.SIGCONT)
        server.stop()


def test_read_only(desk: Desk) -> None:
    desk.mount()
    (desk.dir / "a").write_bytes(b"there")
    desk.umount()
    desk.mount("--read-only")
    assert (desk.dir / "a").read_bytes() == b"there"
    with pytest.raises(OSError, match="Read-only"):
        (desk.dir / "b").write_bytes(b"no")
    with open_volume(desk.url, session=False) as volume:
        assert volume.meta.engine.sessions() == []
    assert desk.config()["Meta"] == {**dict(desk.config()["Meta"]), "ReadOnly": True, "Sid": 0}  # type: ignore[call-overload]
    desk.umount()


def test_a_directory_as_root(desk: Desk) -> None:
    with open_volume(desk.url) as volume:
        volume.files.mkdir("/deep/er", parents=True)
        volume.files.write_bytes("/deep/er/file", b"down here")
        volume.files.write_bytes("/outside", b"not here")
    desk.mount("--subdir", "/deep/er")
    assert sorted(os.listdir(desk.dir)) == [".accesslog", ".config", ".stats", "file"]
    desk.dir.chmod(0o750)
    assert desk.dir.stat().st_ino == 1, "the kernel's number of a mount's root, whatever the volume's is"
    assert (desk.dir / "file").read_bytes() == b"down here"
    assert not (desk.dir / "outside").exists()
    assert not (desk.dir / ".trash").exists()
    assert "juicefs_uptime" in (desk.dir / ".stats").read_text()
    (desk.dir / "new").write_bytes(b"written")
    desk.umount()
    with open_volume(desk.url, read_only=True) as volume:
        assert volume.files.read_bytes("/deep/er/new") == b"written"


def test_pyfuse3_says_what_it_lacks(desk: Desk) -> None:
    need_fuse("pyfuse3")
    said = desk.mount("--transport", "pyfuse3")
    assert "locks are this machine's only" in said
    assert "(pyfuse3)" in said.splitlines()[-1]
    assert desk.config()["Fscore"]["Transport"] == "pyfuse3"  # type: ignore[index]
    desk.umount()


def test_options_of_juicefs_are_taken(desk: Desk) -> None:
    said = desk.mount(
        "--no-usage-report", "--backup-meta", "0", "--attr-cache", "3s", "--cache-size", "512", "-o", "noatime"
    )
    assert "ignored: --backup-meta, --no-usage-report" in said
    found = desk.config()
    assert (found["AttrTimeout"], found["Chunk"]["CacheSize"]) == (3_000_000_000, 512 << 20)  # type: ignore[index]
    entry = mount_at(desk.dir)
    assert entry is not None
    assert (entry.fstype, entry.source) == ("fuse.fscore", "fscore:mount-test")
    desk.umount()
    assert "one directory" in desk.mount("--cache-dir", "/a:/b", expect=2)


def test_mount_of_util_linux_calls_the_helper(desk: Desk) -> None:
    helper = Path("/sbin/mount.fscore")
    script = Path(sys.executable).parent / "fscore"
    if helper.exists() or helper.is_symlink():
        pytest.skip(f"{helper} is somebody's own")
    helper.symlink_to(script)
    try:
        options = f"ro,_netdev,cache-dir={desk.place / 'cache'},log={desk.log}"
        subprocess.run(["mount", "-t", "fscore", desk.url, str(desk.dir), "-o", options], check=True)
    finally:
        helper.unlink()
    pid = desk.pid
    with pytest.raises(OSError, match="Read-only"):
        (desk.dir / "x").touch()
    subprocess.run(["umount", str(desk.dir)], check=True)
    assert gone(pid)


@pytest.mark.parametrize("transport", ["kernel", "pyfuse3"])
def test_without_root_fusermount3_mounts(desk: Desk, transport: str) -> None:
    need_fuse(transport)
    as_nobody = rootless()
    home = desk.place / "home"
    home.mkdir()
    for path in (desk.place, home):
        os.chown(path, NOBODY, NOBODY)
    url = f"sqlite3://{home / 'meta.db'}"
    place = home / "mnt"

    def run(*arguments: object, expect: int = 0) -> str:
        done = subprocess.run(
            [*as_nobody, "-m", "fscore.cli.main", *map(str, arguments)],
            env=os.environ | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
        )
        assert done.returncode == expect, done.stderr
        return done.stderr

    run("format", url, "own", "--bucket", home / "blocks")
    try:
        run("mount", url, place, "-d", "--transport", transport)
        read = subprocess.run([*as_nobody, "-c", f"open({str(place / 'a')!r}, 'w').write('mine')"], check=False)
        assert read.returncode == 0
        assert (home / ".fscore" / "mount.log").exists()
        assert (home / ".cache" / "fscore").exists()
        assert "is unmounted" in run("umount", place)
        if "user_allow_other" not in re.findall(r"^\w+", Path("/etc/fuse.conf").read_text(), re.MULTILINE):
            said = run("mount", url, place, "-d", "--transport", transport, "--allow-other", expect=2)
            assert "user_allow_other" in said
    finally:
        if mount_at(place) is not None:
            subprocess.run(["umount", "-l", str(place)], check=True)
    os.chown(desk.place, 0, 0)
    with open_volume(url, read_only=True) as volume:
        assert volume.files.read_bytes("/a") == b"mine"


def rootless() -> list[str]:
    """How a Python that nobody may run is started without any privilege; skipped where there is none."""
    if not shutil.which("setpriv") or not shutil.which("fusermount3"):
        not_tested("setpriv or fusermount3 is missing: rootless mounts are not tested")
    version = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}; import ctypes, sqlite3"
    for python in (sys.executable, "/usr/bin/python3"):
        command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"]
        command = [*command[:-1], python]
        inner = f"import subprocess, sys; sys.exit(subprocess.run([{python!r}, '-c', {version!r}]).returncode)"
        done = subprocess.run([*command, "-c", inner], capture_output=True, check=False)
        if done.returncode == 0:
            return command
    pytest.skip("nobody may run a Python of this version here: rootless mounts are not tested")
