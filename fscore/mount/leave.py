"""Unmounting from outside: have the mount commit, take it away, wait until its process is gone."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from fscore.domain.errors import SettingError
from fscore.mount.control import SYNC
from fscore.mount.mounts import FSTYPE, canonical, is_dead, mount_at, unmount, write_back
from fscore.runtime.clock import Clock, SystemClock

PREFIXES: Final = (".", ".jfs.")
POLL_S: Final = 0.02
SHOWN: Final = 3


class Holder(NamedTuple):
    """A process that keeps a mount from going."""

    pid: int
    name: str


def leave(directory: Path, *, lazy: bool = False, force: bool = False, clock: Clock | None = None) -> str:
    """Unmount; returns what was done, in one line. Raises OSError: EBUSY when programs use it, or why
    not everything could be committed.

    `lazy` takes it out of the tree and lets programs finish; `force` also ends its process, after it has committed.
    """
    target = _mountpoint(directory)
    if is_dead(target):
        unmount(target, lazy=True)
        return f"{target} was dead (its process is gone) and is unmounted"
    pid = _server(target)
    try:
        write_back(target)
        commit(target, clock or SystemClock())
    except OSError as error:
        if not force:
            text = f"not everything is committed, so it stays mounted: {error.strerror or error}"
            raise OSError(error.errno or errno.EIO, text, str(target)) from error
    try:
        unmount(target, lazy=lazy or force, force=force)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        text = f"in use by {_told(list(holders(target)))}: end that first, or add --lazy"
        raise OSError(errno.EBUSY, text, str(target)) from error
    if lazy and not force:
        return f"{target} is unmounted; its process ends when the last file in it is closed"
    if pid is not None:
        _await_end(pid, end=force)
    return f"{target} is unmounted, everything is committed"


def _mountpoint(directory: Path) -> Path:
    """The path of the mount of fscore there, as the system has it."""
    target = canonical(directory.absolute())
    if mount_at(target) is None and not is_dead(target):
        target = target.resolve()
    mount = mount_at(target)
    if mount is None:
        raise OSError(errno.EINVAL, "nothing is mounted here", str(target))
    if mount.fstype != FSTYPE:
        raise SettingError(f"{target} is a mount of {mount.fstype}, not of fscore: umount {target}")
    return target


def commit(target: Path, clock: Clock) -> None:
    """Have the mount's process commit everything that was written. Raises OSError with its errno."""
    if os.statvfs(target).f_flag & os.ST_RDONLY:
        return  # nothing was written, and no message can be
    fd = next(filter(None, map(_control, (target / f"{prefix}control" for prefix in PREFIXES))), None)
    if fd is None:
        raise OSError(errno.ENOENT, "this mount has no control file", str(target))
    try:
        message = struct.pack(">II", SYNC, 0)
        os.write(fd, message)
        while not (answer := os.read(fd, 4096)):
            clock.sleep(POLL_S)
    finally:
        os.close(fd)
    if answer[-1]:
        raise OSError(answer[-1], os.strerror(answer[-1]), str(target))


def holders(target: Path) -> Iterator[Holder]:
    """Processes that stand in the mount or have something open there, as far as this user can see."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and any(_inside(link, target) for link in _links(place)):
            with suppress(OSError):
                yield Holder(int(place.name), (place / "comm").read_text().strip())


def _links(process: Path) -> Iterator[str]:
    for name in ("cwd", "root", "exe"):
        with suppress(OSError):
            yield os.readlink(process / name)  # noqa: PTH115 - a link's text; pathlib would make a path of "pipe:[1]"
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(descriptor)  # noqa: PTH115
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            yield line.partition("/")[1] + line.partition("/")[2]


def _inside(link: str, target: Path) -> bool:
    return link == str(target) or link.startswith(f"{target}/")


def _told(found: list[Holder]) -> str:
    names = ", ".join(f"{holder.name} (pid {holder.pid})" for holder in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{names}{more}" if names else "a process of another user, or a mount below it"


def _control(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return None


def _server(target: Path) -> int | None:
    """The process that serves the mount, if `.config` may be read and it is one of this PID namespace."""
    for prefix in PREFIXES:
        with suppress(OSError, ValueError, KeyError):
            found: dict[str, Any] = json.loads((target / f"{prefix}config").read_bytes())
            pid = int(found["Pid"])
            return pid if Path(f"/proc/{pid}").exists() else None
    return None


def _await_end(pid: int, *, end: bool) -> None:
    """Wait until a process has ended; with `end` it is told to."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if end:
            with suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
