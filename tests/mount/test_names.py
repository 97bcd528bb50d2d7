"""Names on a real mount: made, linked, renamed, removed, listed, as POSIX has it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

import pytest

from tests.kit.mounts import Mounted, refused

pytestmark = pytest.mark.mount

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: Path, target: Path, flags: int) -> None:
    """renameat2(2)."""
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def test_a_file_is_what_was_written(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"hello")
    assert path.read_bytes() == b"hello"
    found = path.stat()
    assert (found.st_size, found.st_nlink, stat.S_ISREG(found.st_mode)) == (5, 1, True)


NAMES = [b"x" * 255, b"\xff\xfe\x01", b"new\nline", "na\u00efve \u2603".encode(), b"...", b" "]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_any_bytes(mounted: Mounted, name: bytes) -> None:
    path = os.fsencode(mounted.path) + b"/" + name
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, name)
    os.close(fd)
    assert os.listdir(os.fsencode(mounted.path)) == [name]
    os.rename(path, path[:-1] + b"Z")
    os.unlink(path[:-1] + b"Z")
    assert os.listdir(mounted.path) == []


def test_a_name_of_256_bytes_is_too_long(mounted: Mounted) -> None:
    with refused(errno.ENAMETOOLONG):
        (mounted.path / ("x" * 256)).touch()
    with refused(errno.ENAMETOOLONG):
        (mounted.path / ("x" * 256)).stat()


def test_directories_count_their_links(mounted: Mounted) -> None:
    (mounted.path / "d" / "e").mkdir(parents=True)
    assert (mounted.path / "d").stat().st_nlink == 3
    with refused(errno.ENOTEMPTY):
        (mounted.path / "d").rmdir()
    (mounted.path / "d" / "e").rmdir()
    assert (mounted.path / "d").stat().st_nlink == 2
    (mounted.path / "d").rmdir()
    assert not (mounted.path / "d").exists()


def test_hard_links_share_a_node(mounted: Mounted) -> None:
    first, second = mounted.path / "first", mounted.path / "second"
    first.write_bytes(b"one")
    os.link(first, second)
    second.write_bytes(b"two!")
    assert first.read_bytes() == b"two!"
    assert first.stat().st_nlink == second.stat().st_nlink == 2
    assert first.stat().st_ino == second.stat().st_ino
    first.unlink()
    assert (second.stat().st_nlink, second.read_bytes()) == (1, b"two!")


def test_symbolic_links(mounted: Mounted) -> None:
    link = mounted.path / "link"
    link.symlink_to("t" * 4000)
    assert os.readlink(link) == "t" * 4000
    assert link.lstat().st_size == 4000
    (mounted.path / "real").write_bytes(b"there")
    (mounted.path / "short").symlink_to("real")
    assert (mounted.path / "short").read_bytes() == b"there"
    (mounted.path / "loop").symlink_to("loop")
    with refused(errno.ELOOP):
        (mounted.path / "loop").read_bytes()


def test_special_files(mounted: Mounted) -> None:
    os.mkfifo(mounted.path / "fifo", 0o600)
    os.mknod(mounted.path / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(mounted.path / "socket", 0o600 | stat.S_IFSOCK)
    assert stat.S_ISFIFO((mounted.path / "fifo").stat().st_mode)
    assert (mounted.path / "device").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISSOCK((mounted.path / "socket").stat().st_mode)


def test_rename_replaces_and_refuses(mounted: Mounted) -> None:
    (mounted.path / "a").write_bytes(b"a")
    (mounted.path / "b").write_bytes(b"b")
    (mounted.path / "d").mkdir()
    (mounted.path / "full" / "x").mkdir(parents=True)
    os.rename(mounted.path / "a", mounted.path / "b")
    assert (mounted.path / "b").read_bytes() == b"a"
    with refused(errno.EISDIR):
        os.rename(mounted.path / "b", mounted.path / "d")
    with refused(errno.ENOTDIR):
        os.rename(mounted.path / "d", mounted.path / "b")
    with refused(errno.ENOTEMPTY):
        os.rename(mounted.path / "d", mounted.path / "full")
    with refused(errno.EINVAL):
        os.rename(mounted.path / "full", mounted.path / "full" / "x" / "y")


def test_rename_with_flags(mounted: Mounted) -> None:
    a, b = mounted.path / "a", mounted.path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    with refused(errno.EEXIST):
        renameat2(a, b, NOREPLACE)
    renameat2(a, mounted.path / "c", NOREPLACE)
    renameat2(mounted.path / "c", b, EXCHANGE)
    assert (b.read_bytes(), (mounted.path / "c").read_bytes()) == (b"a", b"b")
    with refused(errno.EINVAL):
        renameat2(b, mounted.path / "z", WHITEOUT)


def test_an_open_file_outlives_its_name(mounted: Mounted) -> None:
    path = mounted.path / "gone"
    with path.open("w+b") as file:
        file.write(b"still here")
        file.flush()
        path.unlink()
        assert os.fstat(file.fileno()).st_nlink == 0
        file.seek(0)
        assert file.read() == b"still here"
        file.write(b", and more")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 20
    assert list(mounted.path.iterdir()) == []


def test_a_file_that_is_renamed_over_lives_on_for_its_reader(mounted: Mounted) -> None:
    old, new = mounted.path / "old", mounted.path / "new"
    old.write_bytes(b"old" * 100_000)
    new.write_bytes(b"new")
    with old.open("rb") as file:
        assert file.read(3) == b"old"
        os.rename(new, old)
        file.seek(299_997)
        assert file.read() == b"old"
    assert old.read_bytes() == b"new"


def test_a_temporary_file_without_a_name_is_refused_in_words(mounted: Mounted) -> None:
    with refused(errno.EOPNOTSUPP):
        os.open(mounted.path, os.O_TMPFILE | os.O_RDWR)


def test_a_removed_directory_that_is_open_is_empty(mounted: Mounted) -> None:
    place = mounted.path / "d"
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        place.rmdir()
        with refused(errno.ENOENT):
            os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    finally:
        os.close(fd)
