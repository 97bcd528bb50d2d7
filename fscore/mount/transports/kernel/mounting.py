"""A mount from the kernel: by mount(2) where we may, else through fusermount3, which sends back a descriptor."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Final

from fscore.domain.errors import SettingError
from fscore.mount.mounts import FSTYPE, canonical, is_dead, mount_at, words
from fscore.mount.options import MountOptions

DEVICE: Final = Path("/dev/fuse")
HELPER: Final = "fusermount3"
READ_AHEAD_KB: Final = 1024
HELPER_S: Final = 30.0

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
_ON: Final = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "dirsync": 128, "noatime": 1024}
_OFF: Final = {"rw": 1, "suid": 2, "dev": 4, "exec": 8, "async": 16, "atime": 1024}
_NOT_FOR_THE_KERNEL: Final = ("_netdev", "auto", "noauto", "nofail", "user", "users", "defaults", "nonempty", "fsname=")
_ELSEWHERE: Final = ("x-", "comment=", "subtype=", "fsname=")
"""Words that fstab, mount(8) and libfuse know and that mean nothing here."""


def open_mount(mountpoint: Path, options: MountOptions) -> int:
    """Mount, and return the descriptor on which the kernel's requests arrive.

    Raises SettingError, in one line that says what to do, for whatever stands in the way.
    """
    target = _checked(mountpoint)
    if not DEVICE.exists():
        raise SettingError(f"{DEVICE} is missing: load the kernel's fuse module, or give the container the device")
    if _may_mount():
        return _mount(target, options)
    return _by_helper(target, options)


def tune_read_ahead(mountpoint: Path) -> None:
    """Let the kernel read ahead by 1 MiB: as it comes, it is 128 KiB whatever INIT says. Root only, best effort."""
    mount = mount_at(canonical(mountpoint))
    if mount is None:
        return
    place = Path("/sys/class/bdi") / mount.device / "read_ahead_kb"
    try:
        if int(place.read_text()) < READ_AHEAD_KB:
            place.write_text(str(READ_AHEAD_KB))
    except (OSError, ValueError):
        return


def _checked(mountpoint: Path) -> Path:
    target = canonical(mountpoint)
    if is_dead(target):
        raise SettingError(f"{target} is a mount whose process is gone: run `fscore umount --force {target}` first")
    if not target.is_dir():
        raise SettingError(f"{target} is no directory: make it first")
    mount = mount_at(target)
    if mount is not None and mount.fstype.startswith("fuse."):
        raise SettingError(f"{target} is mounted already ({mount.source}, {mount.fstype}): unmount it first")
    return target


def _may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN (bit 21)."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return os.geteuid() == 0


def _mount(target: Path, options: MountOptions) -> int:
    fd = _open_device()
    flags, data = kernel_words(options, fd, stat.S_IFMT(target.stat().st_mode))
    source = (options.fsname or "fscore").encode()
    if _libc.mount(source, os.fsencode(target), FSTYPE.encode(), flags, data.encode()) == 0:
        return fd
    number = ctypes.get_errno()
    os.close(fd)
    hint = f" (its options: {data})" if number == errno.EINVAL else ""
    raise SettingError(f"the kernel does not mount {target}: {os.strerror(number)}{hint}")


def kernel_words(options: MountOptions, fd: int, root_mode: int) -> tuple[int, str]:
    """The flags and the option string of mount(2)."""
    flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if options.read_only else 0)
    data = [f"fd={fd}", f"rootmode={root_mode:o}", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
    if options.default_permissions:
        data.append("default_permissions")
    if options.allow_other or options.allow_root:
        data.append("allow_other")
    for word in options.fuse_options:
        if word in _ON:
            flags |= _ON[word]
        elif word in _OFF:
            flags &= ~_OFF[word]
        elif word not in _NOT_FOR_THE_KERNEL and not word.startswith(_ELSEWHERE) and word not in data:
            data.append(word)
    return flags, ",".join(data)


def _open_device() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SettingError(
            f"{DEVICE} cannot be opened ({os.strerror(error.errno or 0)}): who mounts must be able to read and write"
            " it; a container needs the device and CAP_SYS_ADMIN"
        ) from error


def _by_helper(target: Path, options: MountOptions) -> int:
    helper = shutil.which(HELPER)
    if helper is None:
        raise SettingError(f"only root mounts without {HELPER}: install the package fuse3")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        chosen = [word for word in sorted(words(options)) if not word.startswith(("x-", "comment=", "_netdev"))]
        with subprocess.Popen(  # noqa: S603 - the helper that PATH has, with a path for its argument
            [helper, "-o", ",".join(chosen), "--", str(target)],
            env=os.environ | {"_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            theirs.close()
            ours.settimeout(HELPER_S)
            fd = _received(ours)
            _, said = process.communicate(timeout=HELPER_S)
    if fd is None:
        raise SettingError(_explained(target, said))
    os.set_inheritable(fd, False)
    return fd


def _received(channel: socket.socket) -> int | None:
    """The descriptor that the helper sends with one byte; None when it gives up."""
    room = array.array("i")
    try:
        message, extras, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(room.itemsize))
    except OSError:
        return None
    for level, kind, data in extras:
        if message and level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            room.frombytes(data[: room.itemsize])
            return room[0]
    return None


def _explained(target: Path, said: str) -> str:
    lines = said.strip().splitlines()
    reason = lines[-1].rpartition(f"{HELPER}: ")[2] if lines else "it says nothing"
    hint = ""
    if "allow_other" in reason or "allow_root" in reason:
        hint = "; write user_allow_other into /etc/fuse.conf, or leave --allow-other out"
    elif "/dev/fuse" in reason or "device not found" in reason:
        hint = f"; {DEVICE} must be readable and writable for everybody (mode 0666)"
    elif "no write access" in reason or "no permission" in reason:
        hint = "; you must own the directory"
    return f"{HELPER} does not mount {target}: {reason}{hint}"


_libc: Final = ctypes.CDLL(None, use_errno=True)
