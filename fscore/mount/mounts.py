"""The mounts of this machine: which there are, whether one is dead or busy, and how one goes. Linux only."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from fscore.domain.errors import SettingError
from fscore.mount.options import MountOptions

FSTYPE: Final = "fuse.fscore"
MOUNTINFO: Final = Path("/proc/self/mountinfo")
MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
HELPERS: Final = ("fusermount3", "fusermount")


class Mount(NamedTuple):
    """One line of mountinfo."""

    target: Path
    fstype: str
    source: str
    device: str
    options: str


def mounts() -> list[Mount]:
    """Every mount, in the order in which they were made."""
    found = []
    for line in MOUNTINFO.read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        left, right = fields.split(b" "), rest.split(b" ")
        found.append(Mount(_path(left[4]), right[0].decode(), _text(right[1]), left[2].decode(), right[2].decode()))
    return found


def mount_at(target: Path) -> Mount | None:
    """The topmost mount at exactly this path, which must be absolute and without links."""
    return next((mount for mount in reversed(mounts()) if mount.target == target), None)


def is_dead(target: Path) -> bool:
    """Whether a mount lies there whose process is gone."""
    try:
        os.statvfs(target)  # never answered from what the kernel remembers, as a stat may be
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False


def canonical(target: Path) -> Path:
    """The path as mountinfo has it. Its last part is not looked at: a dead mount cannot be."""
    return target.parent.resolve() / target.name if target.name else target.resolve()


def words(options: MountOptions) -> set[str]:
    """What libfuse and fusermount3 take after `-o`."""
    chosen = {f"fsname={options.fsname or 'fscore'}", "subtype=fscore", *options.fuse_options}
    chosen |= {"ro"} if options.read_only else set()
    chosen |= {"default_permissions"} if options.default_permissions else set()
    chosen |= {"allow_other"} if options.allow_other else set()
    return chosen


def detach(target: Path) -> None:
    """Take the mount out of the tree now; who has something open there keeps it. Nothing happens when it is gone."""
    if mount_at(canonical(target)) is not None:
        unmount(target, lazy=True)


def unmount(target: Path, *, lazy: bool = False, force: bool = False) -> None:
    """umount(2) as root, fusermount3 for everybody else. Raises OSError, EBUSY when it is in use."""
    if os.geteuid() == 0:
        flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
        if _libc.umount2(os.fsencode(target), flags) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(target))
        return
    helper = next(filter(None, map(shutil.which, HELPERS)), None)
    if helper is None:
        raise SettingError("fusermount3 is not installed (package fuse3): without it only root can unmount")
    done = subprocess.run(  # noqa: S603 - the helper that PATH has, with a path for its argument
        [helper, "-u", *(["-z"] if lazy or force else []), "--", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip()
        number = errno.EBUSY if "busy" in said else errno.EPERM if "permitted" in said else errno.EINVAL
        raise OSError(number, said.removeprefix(f"{helper}: ") or os.strerror(number), str(target))


def write_back(target: Path) -> None:
    """Have the kernel write what programs changed in memory (mmap); returns when the mount has taken it."""
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(target))
    finally:
        os.close(fd)


def _path(field: bytes) -> Path:
    return Path(_text(field))


def _text(field: bytes) -> str:
    """A field of mountinfo, where a space is \\040 and so on."""
    parts = field.split(b"\\")
    plain = parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
    return os.fsdecode(plain)


_libc: Final = ctypes.CDLL(None, use_errno=True)
