"""Unmounting from outside: have the mount commit, take it away, wait until its process is gone."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from fscore.domain.errors import SettingError
from fscore.mount.about import pid_namespace
from fscore.mount.control import SYNC
from fscore.mount.mounts import FSTYPE, canonical, is_dead, mount_at, unmount, write_back
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.threads import Task

PREFIXES: Final = (".", ".jfs.")
POLL_S: Final = 0.02
SHOWN: Final = 3
FORCE_S: Final = 30.0
"""How long each step waits for a mount that is unmounted by force."""
ELSEWHERE: Final = "its process is in a container or elsewhere, and is not waited for"

T = TypeVar("T")


class Holder(NamedTuple):
    """A process that keeps a mount from going."""

    pid: int
    name: str


class Server(NamedTuple):
    """The process behind a mount, as far as this one can see it."""

    pid: int | None
    elsewhere: bool = False


def leave(directory: Path, *, lazy: bool = False, force: bool = False, clock: Clock | None = None) -> str:
    """Unmount; returns what was done, in one line. Raises OSError: EBUSY when programs use it, or why
    not everything could be committed.

    `lazy` takes it out of the tree and lets programs finish; `force` also ends its process, after it has committed, or
    has not for `FORCE_S`.
    """
    patience_s = FORCE_S if force else None
    target = _mountpoint(directory)
    if _within(patience_s, lambda: is_dead(target)):
        unmount(target, lazy=True)
        return f"{target} was dead (its process is gone) and is unmounted"
    server = _within(patience_s, lambda: _server(target)) or Server(None)
    lost = _commit_all(target, clock or SystemClock(), patience_s)
    if lost is not None and not force:
        text = f"not everything is committed, so it stays mounted: {lost.strerror or lost}"
        raise OSError(lost.errno or errno.EIO, text, str(target)) from lost
    try:
        unmount(target, lazy=lazy or force, force=force)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        text = f"in use by {_told(list(holders(target)))}: end that first, or add --lazy"
        raise OSError(errno.EBUSY, text, str(target)) from error
    if lazy and not force:
        return f"{target} is unmounted; its process ends when the last file in it is closed"
    killed = server.pid is not None and _await_end(server.pid, patience_s)
    where = f"; {ELSEWHERE}" if server.elsewhere else ""
    if killed:
        return f"{target} is unmounted; its process did not end in {FORCE_S:.0f} s and was killed: changes may be lost"
    if lost is not None:
        return f"{target} is unmounted; not everything could be committed before: {lost.strerror or lost}{where}"
    return f"{target} is unmounted, everything is committed{where}"


def _commit_all(target: Path, clock: Clock, patience_s: float | None) -> OSError | None:
    """Have everything committed; what stood in the way."""

    def attempt() -> bool:
        write_back(target)
        commit(target, clock)
        return True

    try:
        done = _within(patience_s, attempt)
    except OSError as error:
        return error
    return None if done else OSError(errno.ETIMEDOUT, "the mount does not answer", str(target))


def _within(patience_s: float | None, call: Callable[[], T]) -> T | None:
    """The result of a call that may never return, None when it takes longer. It is left behind then."""
    if patience_s is None:
        return call()
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised below, by the thread that asked
            errors.append(error)

    Task("umount", run).join(patience_s)
    if errors:
        raise errors[0]
    return results[0] if results else None


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


def _server(target: Path) -> Server:
    """The process that serves the mount, if `.config` may be read and its number means the same here."""
    for prefix in PREFIXES:
        with suppress(OSError, ValueError, KeyError):
            found: dict[str, Any] = json.loads((target / f"{prefix}config").read_bytes())
            pid = int(found["Pid"])
            theirs, ours = found["Fscore"].get("PidNamespace"), pid_namespace()
            if theirs and ours and theirs != ours:
                return Server(None, elsewhere=True)
            return Server(pid if Path(f"/proc/{pid}").exists() else None)
    return Server(None)


def _await_end(pid: int, patience_s: float | None) -> bool:
    """Wait until a process has ended; with a patience it is told to, and killed after that: whether it was."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if patience_s is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if select.select([descriptor], [], [], patience_s)[0]:
            return False
        with suppress(OSError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], patience_s)
        return True
    finally:
        os.close(descriptor)
