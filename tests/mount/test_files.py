"""What files hold on a real mount: written, read, mapped, cut, punched, copied, as POSIX has it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.mounts import Mounted, refused

pytestmark = pytest.mark.mount

MIB = 1 << 20
KEEP_SIZE, PUNCH, ZERO = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def whole(mounted: Mounted) -> Mounted:
    """A mount whose transport passes everything on."""
    if mounted.transport != "kernel":
        pytest.skip(f"{mounted.transport} does not pass this call on")
    return mounted


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    arguments = (ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length))
    if _libc.fallocate(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fill(path: Path, size: int, seed: int = 7) -> bytes:
    """A file of random bytes."""
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return data


def test_a_file_of_several_blocks_and_sizes(mounted: Mounted) -> None:
    for size in (0, 1, 4095, 4096, 4097, 262_144, 262_145, 3 * MIB + 17):
        path = mounted.path / f"of-{size}"
        data = fill(path, size)
        assert path.stat().st_size == size
        assert path.read_bytes() == data
        assert path.stat().st_blocks == (size + 511) // 512


def test_what_was_written_is_read_before_it_is_closed(mounted: Mounted) -> None:
    path = mounted.path / "a"
    with path.open("wb", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        for step in range(20):
            writer.write(bytes([step]) * 1000)
            assert os.fstat(reader.fileno()).st_size == (step + 1) * 1000
            assert reader.read(5000) == bytes([step]) * 1000


def test_random_writes_match_a_plain_file(mounted: Mounted, tmp_path: Path) -> None:
    dice = random.Random(3)
    there, here = mounted.path / "a", tmp_path / "a"
    with there.open("w+b", buffering=0) as one, here.open("w+b", buffering=0) as two:
        for _ in range(300):
            offset, data = dice.randrange(2 * MIB), dice.randbytes(dice.randrange(1, 9000))
            for file in (one, two):
                os.pwrite(file.fileno(), data, offset)
            if dice.random() < 0.1:
                size = dice.randrange(2 * MIB)
                for file in (one, two):
                    os.ftruncate(file.fileno(), size)
            at = dice.randrange(2 * MIB)
            assert os.pread(one.fileno(), 5000, at) == os.pread(two.fileno(), 5000, at)
    assert there.read_bytes() == here.read_bytes()


def test_appending_handles_never_overwrite(mounted: Mounted) -> None:
    path = mounted.path / "log"
    first = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    second = os.open(path, os.O_WRONLY | os.O_APPEND)
    for step in range(50):
        os.write(first if step % 2 else second, b"%03d\n" % step)
    os.close(first)
    os.close(second)
    assert path.read_bytes() == b"".join(b"%03d\n" % step for step in range(50))


def test_many_processes_append_to_one_file(mounted: Mounted) -> None:
    path = mounted.path / "log"
    program = f"import os; fd = os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n"
    program += "for n in range(200): os.write(fd, b'%08d\\n' % (int(os.environ['ME']) * 1000 + n))"
    writers = [subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"ME": str(me)}) for me in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == [b"%08d" % (me * 1000 + n) for me in range(4) for n in range(200)]


def test_truncate_by_path_and_by_handle(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"x" * 10_000)
    os.truncate(path, 3)
    assert path.read_bytes() == b"xxx"
    os.truncate(path, 6)
    assert path.read_bytes() == b"xxx\0\0\0"
    with path.open("r+b") as file:
        file.write(b"abcdefgh")
        file.flush()
        file.truncate(4)
        assert os.fstat(file.fileno()).st_size == 4
    assert path.read_bytes() == b"abcd"
    with path.open("wb"):
        assert path.stat().st_size == 0


def test_a_file_that_may_not_be_written_is_cut_through_the_handle_that_made_it(mounted: Mounted) -> None:
    fd = os.open(mounted.path / "a", os.O_CREAT | os.O_RDWR, 0o400)
    os.write(fd, b"12345")
    os.ftruncate(fd, 2)
    assert os.fstat(fd).st_size == 2
    os.close(fd)


def test_sparse_files_of_a_terabyte(mounted: Mounted) -> None:
    path = mounted.path / "sparse"
    with path.open("w+b") as file:
        file.seek((1 << 40) - 3)
        file.write(b"end")
        file.flush()
        assert os.pread(file.fileno(), 10, 1 << 39) == bytes(10)
        assert os.pread(file.fileno(), 10, (1 << 40) - 5) == b"\0\0end"
    assert path.stat().st_size == 1 << 40


def test_a_shared_mapping_writes_the_file(mounted: Mounted) -> None:
    path = mounted.path / "mapped"
    path.write_bytes(bytes(3 * 4096 + 100))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[4090:4100] = b"0123456789"
        memory[-3:] = b"end"
        memory.flush()
        assert os.pread(file.fileno(), 10, 4090) == b"0123456789"
    data = path.read_bytes()
    assert (data[4090:4100], data[-3:], len(data)) == (b"0123456789", b"end", 3 * 4096 + 100)


def test_a_mapping_outlives_the_descriptor_and_the_name(mounted: Mounted) -> None:
    path = mounted.path / "mapped"
    data = fill(path, 300_000)
    fd = os.open(path, os.O_RDONLY)
    memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    os.close(fd)
    path.unlink()
    assert memory[:] == data
    memory.close()


def test_a_private_mapping_changes_nothing(mounted: Mounted) -> None:
    path = mounted.path / "mapped"
    data = fill(path, 100_000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        memory[:5] = b"other"
        assert memory[:5] == b"other"
    assert path.read_bytes() == data


def test_sendfile_reads_and_writes(mounted: Mounted, tmp_path: Path) -> None:
    data = fill(mounted.path / "a", 500_000)
    with (mounted.path / "a").open("rb") as source, (tmp_path / "out").open("wb") as target:
        sent = 0
        while sent < len(data):
            sent += os.sendfile(target.fileno(), source.fileno(), sent, len(data) - sent)
    assert (tmp_path / "out").read_bytes() == data
    with (tmp_path / "out").open("rb") as source, (mounted.path / "b").open("wb") as target:
        assert os.sendfile(target.fileno(), source.fileno(), 0, 1000) == 1000
    assert (mounted.path / "b").read_bytes() == data[:1000]


def test_holes_are_found(whole: Mounted) -> None:
    fd = os.open(whole.path / "a", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * 100_000, MIB)
    os.ftruncate(fd, 3 * MIB)
    assert os.lseek(fd, 0, os.SEEK_DATA) == MIB
    hole = os.lseek(fd, MIB, os.SEEK_HOLE)
    assert MIB + 100_000 <= hole <= 2 * MIB
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    with refused(errno.ENXIO):
        os.lseek(fd, hole + 1, os.SEEK_DATA)
    with refused(errno.ENXIO):
        os.lseek(fd, 3 * MIB, os.SEEK_DATA)
    os.close(fd)


def test_fallocate_extends_punches_and_zeroes(whole: Mounted) -> None:
    path = whole.path / "a"
    data = bytearray(fill(path, 300_000))
    fd = os.open(path, os.O_RDWR)
    fallocate(fd, 0, 0, 400_000)
    assert os.fstat(fd).st_size == 400_000
    fallocate(fd, KEEP_SIZE, 0, 900_000)
    assert os.fstat(fd).st_size == 400_000
    fallocate(fd, PUNCH | KEEP_SIZE, 1000, 200_000)
    data[1000:201_000] = bytes(200_000)
    fallocate(fd, ZERO, 250_000, 200_000)
    data[250_000:] = bytes(50_000)
    assert os.fstat(fd).st_size == 450_000
    assert os.pread(fd, 500_000, 0) == bytes(data) + bytes(150_000)
    with refused(errno.EOPNOTSUPP, also=errno.EINVAL):
        fallocate(fd, 8, 0, 4096)
    os.close(fd)


def test_copy_file_range_moves_no_bytes(whole: Mounted) -> None:
    data = fill(whole.path / "a", 5 * MIB + 123)
    with whole.client() as client:
        before = {found.key for found in client.objects.scan()}
    with (whole.path / "a").open("rb") as source, (whole.path / "b").open("wb") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), len(data)) == len(data)
    assert (whole.path / "b").read_bytes() == data
    subprocess.run(["cp", whole.path / "a", whole.path / "c"], check=True)
    assert (whole.path / "c").read_bytes() == data
    with whole.client() as client:
        assert {found.key for found in client.objects.scan()} <= before
    (whole.path / "a").unlink()
    assert (whole.path / "b").read_bytes() == data


def test_copy_file_range_in_the_middle(whole: Mounted) -> None:
    data = fill(whole.path / "a", MIB)
    (whole.path / "b").write_bytes(b"-" * MIB)
    with (whole.path / "a").open("rb") as source, (whole.path / "b").open("r+b") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 5000, 100, 777) == 5000
        assert os.copy_file_range(source.fileno(), target.fileno(), 5000, MIB - 10, 0) == 10
        assert os.copy_file_range(source.fileno(), target.fileno(), 5000, MIB, 0) == 0
    found = (whole.path / "b").read_bytes()
    assert found[777:5777] == data[100:5100]
    assert found[:10] == data[-10:]
    assert found[5777:] == b"-" * (MIB - 5777)


def test_times_are_set_and_kept(mounted: Mounted) -> None:
    path = mounted.path / "a"
    with path.open("wb") as file:
        file.write(b"data that is not committed yet")
        file.flush()
        os.utime(file.fileno(), ns=(1_000_000_007, 2_000_000_009))
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_007, 2_000_000_009)
    before = time.time_ns()
    os.utime(path)
    assert before - 10**9 <= path.stat().st_mtime_ns <= time.time_ns()
    os.utime(path, ns=(5, path.stat().st_mtime_ns))
    assert path.stat().st_atime_ns == 5


def test_writing_moves_the_times(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 0))
    with path.open("r+b", buffering=0) as file:
        file.write(b"y")
    assert path.stat().st_mtime_ns > 10**18
    assert path.stat().st_ctime_ns > 10**18


def test_chmod_and_chown_in_every_combination(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"x")
    path.chmod(0o6755)
    assert path.stat().st_mode & 0o7777 == 0o6755
    os.chown(path, 12, 34)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12, 34, 0o755)
    os.chown(path, -1, 56)
    os.chown(path, 78, -1)
    assert (path.stat().st_uid, path.stat().st_gid) == (78, 56)


def test_flags_of_open(mounted: Mounted) -> None:
    path = mounted.path / "a"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    with refused(errno.EEXIST):
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with refused(errno.ENOTDIR):
        os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with refused(errno.EISDIR):
        os.open(mounted.path, os.O_WRONLY)
    (mounted.path / "link").symlink_to("a")
    with refused(errno.ELOOP):
        os.open(mounted.path / "link", os.O_RDONLY | os.O_NOFOLLOW)
    fd = os.open(path, os.O_RDONLY)
    with refused(errno.EBADF):
        os.write(fd, b"x")
    os.close(fd)


def test_direct_io(mounted: Mounted) -> None:
    fd = os.open(mounted.path / "a", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    memory = mmap.mmap(-1, 8192)
    memory[:] = b"d" * 8192
    assert os.write(fd, memory) == 8192
    os.lseek(fd, 0, os.SEEK_SET)
    memory[:] = bytes(8192)
    assert os.readv(fd, [memory]) == 8192
    assert memory[:] == b"d" * 8192
    os.close(fd)


def test_preallocation_and_fsync(mounted: Mounted) -> None:
    with (mounted.path / "a").open("wb") as file:
        file.write(b"x" * 100_000)
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
        with mounted.client() as client:
            assert client.files.stat(f"{mounted.inside}/a").size == 100_000
    fd = os.open(mounted.path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_statvfs(mounted: Mounted) -> None:
    found = os.statvfs(mounted.path)
    assert found.f_namemax == 255
    assert found.f_bavail > 0
    assert found.f_favail > 0


def test_fcntl_flags_stay(mounted: Mounted) -> None:
    with (mounted.path / "a").open("wb", buffering=0) as file:
        file.write(b"first")
        fcntl.fcntl(file.fileno(), fcntl.F_SETFL, os.O_APPEND)
        file.seek(0)
        file.write(b"+second")
    assert (mounted.path / "a").read_bytes() == b"first+second"


def append(path: Path, data: bytes) -> None:
    """Write at the end."""
    with path.open("ab") as file:
        file.write(data)


def test_capabilities_go_with_a_write(whole: Mounted) -> None:
    path = whole.path / "program"
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    changes: list[Callable[[], None]] = [
        lambda: append(path, b"x"),
        lambda: os.truncate(path, 1),
        lambda: os.chown(path, 5, 5),
    ]
    for change in changes:
        path.write_bytes(b"12345")
        os.setxattr(path, "security.capability", capability)
        assert os.getxattr(path, "security.capability") == capability
        change()
        with refused(errno.ENODATA):
            os.getxattr(path, "security.capability")


def test_setuid_goes_when_somebody_else_writes(mounted: Mounted) -> None:
    path = mounted.path / "program"
    path.write_bytes(b"12345")
    path.chmod(0o6777)
    mounted.path.chmod(0o777)
    write = f"import os; os.setgid(7); os.setuid(7); fd = os.open({str(path)!r}, os.O_WRONLY); os.write(fd, b'x')"
    subprocess.run([sys.executable, "-c", write], check=True)
    assert path.stat().st_mode & 0o7777 == 0o777


def test_extended_attributes(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.touch()
    os.setxattr(path, "user.colour", b"blue")
    os.setxattr(path, "user.empty", b"")
    assert os.getxattr(path, "user.colour") == b"blue"
    assert sorted(os.listxattr(path)) == ["user.colour", "user.empty"]
    with refused(errno.EEXIST):
        os.setxattr(path, "user.colour", b"red", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(path, "user.other", b"red", os.XATTR_REPLACE)
    os.setxattr(path, "user.colour", b"r" * 60_000, os.XATTR_REPLACE)
    assert os.getxattr(path, "user.colour") == b"r" * 60_000
    assert _libc.getxattr(os.fsencode(path), b"user.colour", ctypes.create_string_buffer(10), 10) == -1
    assert ctypes.get_errno() == errno.ERANGE
    os.removexattr(path, "user.colour")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.colour")
