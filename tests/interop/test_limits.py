"""Quotas, the setting and the change log between fscore and the official client, live on one volume."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.domain.caller import Caller
from fscore.domain.errors import OverQuota
from fscore.domain.quota import QuotaKey, QuotaKind
from fscore.volume import Volume, open_volume
from tests.interop import official
from tests.kit.engines import SQL_SERVERS
from tests.kit.quota_audit import check_quotas

pytestmark = official.NEEDED

DIRECTORY, USER, GROUP = QuotaKind.DIRECTORY, QuotaKind.USER, QuotaKind.GROUP
BEAT = ("--heartbeat", "1s")


ENGINES = ["sqlite", pytest.param("redis", marks=pytest.mark.redis), *SQL_SERVERS]


@pytest.fixture
def volume(shared_url: str, tmp_path: Path) -> Iterator[Volume]:
    """A volume of ours, without trash, which follows others every second."""
    format_volume(shared_url, "shared", storage="file", bucket=f"{tmp_path}/blocks/", trash_days=0)
    with open_volume(shared_url, heartbeat_s=1.0, cache_s=0.2) as opened:
        yield opened
        opened.sync()
        assert fsck(opened).problems == []


def quota(*args: str) -> str:
    """`juicefs quota`, with what it printed."""
    done = official.juicefs("quota", *args)
    return done.stdout + done.stderr


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for something that another process does soon."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def consistent(url: str, *paths: str) -> None:
    """The official check finds nothing wrong."""
    for path in paths:
        assert "is consistent" in quota("check", url, "--path", path)
    done = official.juicefs("quota", "check", url)
    assert "!=" not in done.stdout + done.stderr
    assert "not found" not in done.stdout + done.stderr


def test_what_we_do_is_right_for_the_official_check(volume: Volume, shared_url: str) -> None:
    files = volume.files
    files.mkdir("/q/in", parents=True)
    files.mkdir("/out")
    files.write_bytes("/q/before", b"x" * 5000)
    volume.meta.set_quota(DIRECTORY, files.stat("/q").ino, max_space=1 << 30, max_inodes=100)
    volume.meta.set_quota(DIRECTORY, files.stat("/q/in").ino, max_inodes=50)
    volume.meta.set_quota(USER, 1000, max_space=1 << 30)
    for number in range(10):
        files.write_bytes(f"/q/in/f{number}", b"x" * number * 1000)
    files.link("/q/in/f3", "/q/linked")
    files.link("/q/in/f4", "/out/linked")
    files.rename("/q/in/f5", "/out/moved")
    files.rename("/q/in/f6", "/q/in/f7")
    files.clone("/q/in", "/q/copy")
    files.rename("/q/copy", "/out/copy")
    files.rename("/out/copy", "/q/copy")
    files.unlink("/q/in/f8")
    files.chown("/q/in/f9", 1000, 100)
    with files.open("/q/in/f1", "r+b") as file:
        file.truncate(100_000)
    files.chmod("/q", 0o777)
    mine = volume.as_caller(Caller(uid=1000, gid=100))
    mine.write_bytes("/q/mine", b"y" * 9000)
    volume.sync()
    volume.meta.flush()
    assert check_quotas(volume.meta.engine) == []
    listed = quota("list", shared_url)
    assert "/q/in" in listed
    assert "uid:1000" in listed
    consistent(shared_url, "/q", "/q/in")


def test_they_enforce_what_we_set(volume: Volume, shared_url: str, tmp_path: Path) -> None:
    files = volume.files
    files.mkdir("/q")
    files.mkdir("/u")
    files.chmod("/u", 0o777)
    with official.mounted(shared_url, tmp_path / "mnt", *BEAT) as mount:
        (mount / "q/first").touch()
        volume.meta.beat()
        volume.meta.set_quota(DIRECTORY, files.stat("/q").ino, max_space=20_000, max_inodes=3)
        volume.meta.set_quota(USER, 1234, max_inodes=2)
        time.sleep(3)
        (mount / "q/second").touch()
        assert _says(errno.EDQUOT, lambda: (mount / "q/second").write_bytes(b"x" * 30_000))
        (mount / "q/third").touch()
        assert _says(errno.EDQUOT, (mount / "q/fourth").touch)
        assert _says(errno.EDQUOT, lambda: os.link(mount / "q/third", mount / "q/fourth"))
        for name, wanted in (("1", 0), ("2", 0), ("3", 1)):
            done = subprocess.run(
                ["touch", name],
                cwd=mount / "u",
                user=1234,
                group=1234,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
            assert done.returncode == wanted, done.stderr
    volume.meta.beat()
    volume.meta.flush()
    assert check_quotas(volume.meta.engine) == []
    consistent(shared_url, "/q")


def _says(number: int, deed: Callable[[], object]) -> bool:
    try:
        deed()
    except OSError as error:
        return error.errno == number
    return False


def test_we_enforce_what_they_set(volume: Volume, shared_url: str) -> None:
    files = volume.files
    files.mkdir("/q/in", parents=True)
    files.write_bytes("/q/in/f", b"x" * 5000)
    files.chmod("/q", 0o777)
    volume.meta.flush()
    quota("set", shared_url, "--path", "/q", "--inodes", "3")
    quota("set", shared_url, "--uid", "77", "--inodes", "1")
    key = QuotaKey(DIRECTORY, files.stat("/q").ino)
    until(lambda: volume.setting.user_group_quota and key in volume.meta.quotas())
    volume.meta.beat()
    assert volume.meta.quota(*key) == (-1, 3, 4096 + 8192, 2)
    volume.as_caller(Caller(uid=77, gid=77)).write_bytes("/q/theirs", b"")
    for who in (files, volume.as_caller(Caller(uid=77, gid=77))):
        with pytest.raises(OverQuota):
            who.write_bytes("/q/more", b"")
    files.chmod("/", 0o777)
    with pytest.raises(OverQuota, match="user 77"):
        volume.as_caller(Caller(uid=77, gid=77)).write_bytes("/elsewhere", b"")
    volume.meta.flush()
    consistent(shared_url, "/q")
    quota("delete", shared_url, "--path", "/q")
    quota("delete", shared_url, "--uid", "77")
    volume.meta.beat()
    files.write_bytes("/q/more", b"")
    volume.as_caller(Caller(uid=77, gid=77)).write_bytes("/q/elsewhere", b"")
    assert volume.meta.quotas() == {}


def test_both_at_once_are_counted_once(volume: Volume, shared_url: str, tmp_path: Path) -> None:
    files = volume.files
    files.mkdir("/q")
    volume.meta.set_quota(DIRECTORY, files.stat("/q").ino, max_inodes=10_000)
    volume.meta.set_quota(USER, 5, max_inodes=10)
    with official.mounted(shared_url, tmp_path / "mnt", *BEAT) as mount:
        script = f"cd {mount}/q; for i in $(seq 150); do echo $i > j$i; done; rm j1*; mkdir d; mv j2* d"
        theirs = subprocess.Popen(["bash", "-c", script])
        for number in range(150):
            files.write_bytes(f"/q/f{number}", b"x" * 5000)
        for number in range(50):
            files.unlink(f"/q/f{number}")
        assert theirs.wait(120) == 0
    volume.meta.flush()
    assert check_quotas(volume.meta.engine) == []
    consistent(shared_url, "/q")


def test_a_limit_they_change_is_picked_up_live(volume: Volume, shared_url: str) -> None:
    files = volume.files
    files.write_bytes("/a", b"x")
    official.juicefs("config", shared_url, "--inodes", "1", "--trash-days", "2", "--yes")
    until(lambda: volume.setting.inodes == 1)
    with pytest.raises(OSError, match="no space left"):
        files.write_bytes("/b", b"x")
    files.unlink("/a")
    volume.meta.flush()
    assert len(files.listdir("/.trash")) == 1
    volume.meta.amend(lambda setting: setting.__class__.parse(setting.render().replace(b'"Inodes": 1', b'"Inodes": 9')))
    shown = official.juicefs("config", shared_url).stdout
    assert '"Inodes": 9' in shown
    official.fsck(shared_url)


LINE = re.compile(r"[\d.]+\|(.*)\|\(\d+,\d+\)")
CREATED = re.compile(r",(\d+),(\d+),(?=[^,]*,linux,)")
"""Mode and umask: the kernel may have taken the one off the other already."""
TIMES = re.compile(r"\d{10}(,\d+)?")


def script(top: Path) -> None:
    """A story of every kind of change that a mount passes on."""
    (top / "d").mkdir()
    with (top / "d/f").open("wb") as file:
        file.write(b"x" * 9)
    os.link(top / "d/f", top / "d/l,(1)")
    (top / "s").symlink_to("to it")
    (top / "d/f").chmod(0o600)
    os.setxattr(top / "d/f", "user.k", b"v%")
    os.removexattr(top / "d/f", "user.k")
    os.truncate(top / "d/f", 4)
    (top / "d/l,(1)").rename(top / "m")
    (top / "d/f").rename(top / "m2")
    (top / "m2").rename(top / "s")
    (top / "s").unlink()
    (top / "m").unlink()
    (top / "d").rmdir()


def story(volume: Volume) -> None:
    """The same through our own calls."""
    files = volume.as_caller(Caller(uid=0, gid=0, umask=0o022))
    files.mkdir("/d")
    files.write_bytes("/d/f", b"x" * 9)
    files.link("/d/f", "/d/l,(1)")
    files.symlink("to it", "/s")
    files.chmod("/d/f", 0o600)
    files.setxattr("/d/f", "user.k", b"v%")
    files.removexattr("/d/f", "user.k")
    with files.open("/d/f", "r+b") as file:
        file.truncate(4)
    files.rename("/d/l,(1)", "/m")
    files.rename("/d/f", "/m2")
    files.rename("/m2", "/s")
    files.unlink("/s")
    files.unlink("/m")
    files.rmdir("/d")


def said(volume: Volume) -> list[str]:
    """Changes of the tree in the log: without times, and modes as the umask leaves them."""
    found = []
    for _, line in volume.meta.engine.scan_log():
        match = LINE.fullmatch(line.decode())
        assert match is not None, line
        operation = CREATED.sub(lambda part: f",{int(part[1]) & ~int(part[2])},", TIMES.sub("T", match[1]))
        if not operation.startswith(("NEWSESSION", "CLEANSESSION", "SET(", "INCR", "DIRSTAT", "DEL", "SETATTR")):
            found.append(re.sub(r":\d+$", "", operation))
    return found


@pytest.fixture(params=ENGINES)
def two_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two empty metadata databases on one engine."""
    if request.param == "sqlite":
        yield f"sqlite3://{tmp_path}/theirs.db", f"sqlite3://{tmp_path}/ours.db"
        return
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        yield server.fresh_url(), server.fresh_url()
        return
    server = request.getfixturevalue("postgres_server" if request.param == "postgres" else "mariadb_server")
    names = server.lend(), server.lend()
    yield server.url(names[0]), server.url(names[1])
    for name in names:
        server.take_back(name)


def test_both_tell_the_same_story(two_urls: tuple[str, str], tmp_path: Path) -> None:
    """Line for line, save the times, what each asks of setattr, and whether a parent's time was due."""
    told = []
    for kind, url in zip(("theirs", "ours"), two_urls, strict=True):
        place = f"{tmp_path}/{kind}-blocks/"
        official.juicefs("format", "--storage", "file", "--bucket", place, "--trash-days", "0", url, "told")
        official.juicefs("config", url, "--changelog", "--yes")
        if kind == "theirs":
            with official.mounted(url, tmp_path / "mnt", *BEAT) as mount:
                script(mount)
        with open_volume(url, background=False) as volume:
            assert volume.setting.change_log
            if kind == "ours":
                story(volume)
            told.append([re.sub(r"(true|false)\)$", "T)", line) for line in said(volume)])
    theirs, ours = told
    assert ours == theirs
