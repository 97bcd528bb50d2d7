"""From a volume's name to a directory: open it, put operations and a transport on it, serve, and go without a loss."""

from __future__ import annotations

import errno
import os
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from fscore.domain.errors import NotADir, NotFound, SettingError
from fscore.domain.ids import TRASH
from fscore.mount import about
from fscore.mount.api import Mounted
from fscore.mount.commands import Commands
from fscore.mount.control import Control
from fscore.mount.mounts import FSTYPE, canonical, detach, is_dead, mount_at, unmount, write_back
from fscore.mount.observer import Observer
from fscore.mount.operations import Operations, root_of
from fscore.mount.options import MountOptions
from fscore.runtime import log
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.threads import Task
from fscore.vfs.internal import Internal
from fscore.volume import Options, Volume, open_volume

TransportName = Literal["auto", "kernel", "pyfuse3"]
Say = Callable[[str], None]
"""Takes a remark for whoever mounts: what is off, and why."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ENDED: Final = 0
FUSE: Final = Path("/dev/fuse")

logger = log.get(__name__)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to mount, where and how."""

    volume: str
    mountpoint: Path
    transport: TransportName = "auto"
    options: MountOptions = MountOptions()
    asked: dict[str, Any] = {}
    """Options of `open_volume` that were asked for; they go before what volumes.toml says."""
    prefix: str = "."
    """What the names of the mount's own files begin with: `.` or `.jfs.`."""
    hide_internal: bool = False


class Running:
    """A volume that is mounted. `wait` until it is not any more; `stop` ends it."""

    def __init__(self, volume: Volume, internal: Internal, mounted: Mounted, transport: str) -> None:
        self.volume: Final = volume
        self.mountpoint: Final = mounted.mountpoint
        self.transport: Final = transport
        self._internal = internal
        self._mounted = mounted
        self._ending = threading.Lock()
        self._ended = False

    def wait(self) -> None:
        """Return when somebody unmounted it and all is committed. Raises what was lost, or what ended it."""
        try:
            self._mounted.wait()
        finally:
            self._end()

    def stop(self) -> None:
        """Commit, unmount, close. What programs hold open then fails for them; nothing that was written is lost.

        Raises the first error of what could not be committed.
        """
        with suppress(OSError):  # gone already, or dead: what this process holds is committed all the same
            if mount_at(self.mountpoint) is not None:
                write_back(self.mountpoint)
        try:
            self.volume.sync()
        finally:
            self._internal.close()
            try:
                self._mounted.stop()
            finally:
                self._end()

    def abandon(self) -> None:
        """Take the mount away without committing anything: the last resort when the volume does not answer."""
        detach(self.mountpoint)

    def _end(self) -> None:
        with self._ending:  # whoever comes second returns when all is committed, too
            if self._ended:
                return
            self._ended = True
            self._internal.close()
            self.volume.close()
            logger.info("%s is unmounted, everything is committed", self.mountpoint)


def start(plan: Plan, say: Say, *, clock: Clock | None = None, default_cache: str | None = None) -> Running:
    """Mount and serve on threads. Raises SettingError or FsError for what cannot be mounted, in one line."""
    clock = clock or SystemClock()
    mountpoint = ready(plan.mountpoint)
    options = Options(cache_dir=default_cache, place=str(mountpoint), whole="auto", durable="fsync")
    volume = open_volume(plan.volume, options=options, clock=clock, **plan.asked)
    read_only = plan.options.read_only or volume.options.read_only
    own = msgspec.structs.replace(plan.options, read_only=read_only)
    try:
        return _serve(volume, msgspec.structs.replace(plan, mountpoint=mountpoint, options=own), say, clock)
    except BaseException:
        volume.close()
        raise


def until_unmounted(running: Running) -> None:
    """Serve until it is unmounted or a signal says so: the first one commits and unmounts, a second SIGINT gives up.

    Call it from the main thread. Raises what could not be committed.
    """
    events: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = {number: signal.signal(number, lambda number, _frame: events.put(number)) for number in SIGNALS}
    errors: list[Exception] = []

    def told(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - raised below, by the thread that was asked
            errors.append(error)
        finally:
            events.put(ENDED)

    Task("mount-wait", lambda: told(running.wait))
    stopping: Task | None = None
    try:
        while (number := events.get()) != ENDED:
            if stopping is None:
                logger.warning("%s: committing and unmounting %s", signal.Signals(number).name, running.mountpoint)
                stopping = Task("mount-stop", lambda: told(running.stop))
            elif number == signal.SIGINT:
                running.abandon()
                logger.error("given up: what was not committed is lost")
                os._exit(1)
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
    if stopping is not None:
        stopping.join()
    if errors:
        raise errors[0]


def ready(mountpoint: Path) -> Path:
    """The mountpoint as an absolute path without links, made if it is missing. Raises what stands against mounting.

    A mount of ours whose process is gone is taken away first: whoever restarts the process needs no second command.
    """
    path = canonical(mountpoint.absolute())
    while is_dead(path):
        dead = mount_at(path) or mount_at(path.resolve())
        if dead is None or dead.fstype != FSTYPE:
            raise OSError(errno.ENOTCONN, f"a mount whose process is gone lies here: umount -l {path}", str(path))
        logger.warning("%s was mounted at %s by a process that is gone: that mount is taken away", dead.source, path)
        unmount(dead.target, lazy=True)
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise NotADir(path=str(path))
    path.mkdir(parents=True, exist_ok=True)
    there = mount_at(path)
    if there is not None and there.fstype == FSTYPE:
        raise OSError(errno.EBUSY, f"{there.source} is mounted here already: fscore umount {path}", str(path))
    return path


def _serve(volume: Volume, plan: Plan, say: Say, clock: Clock) -> Running:
    began = clock.monotonic()
    chosen: list[str] = [plan.transport]
    options = plan.options
    if not options.fsname:
        options = msgspec.structs.replace(options, fsname=f"fscore:{volume.name}")
    root = root_of(volume.meta, options)

    def forget(parent: int, name: bytes) -> None:
        if operations.notifier is not None:
            operations.notifier.entry(parent, name)

    internal = Internal(
        clock,
        lambda: about.stats(volume, observer.snapshot(), clock.monotonic() - began),
        lambda: about.config(volume, plan.mountpoint, options, lambda: chosen[0]),
        Control(Commands(volume.vfs, forget, root), clock),
        prefix=plan.prefix.encode(),
        hidden=plan.hide_internal,
        trash=not options.subdir and _has_trash(volume),
        root=root,
    )
    operations = Operations(volume.vfs, options, internal, root=root)
    operations.observer = observer = Observer(internal.log)
    try:
        mounted, chosen[0] = _transport(operations, plan.mountpoint, options, plan.transport, say)
    except BaseException:
        internal.close()
        raise
    logger.info("%s is mounted at %s (%s)", volume.name, plan.mountpoint, chosen[0])
    return Running(volume, internal, mounted, chosen[0])


def _has_trash(volume: Volume) -> bool:
    """A volume that was formatted to keep none has no such directory."""
    try:
        volume.meta.getattr(TRASH)
    except NotFound:
        return False
    return True


def _transport(
    operations: Operations, mountpoint: Path, options: MountOptions, wanted: TransportName, say: Say
) -> tuple[Mounted, str]:
    """The transport that was asked for; `auto` takes our own where it works."""
    if not FUSE.exists():
        raise SettingError(f"{FUSE} is missing: load the module fuse, or give the container that device")
    refusal: Exception | None = None
    if wanted != "pyfuse3":
        from fscore.mount.transports.kernel import session

        try:
            mounted: Mounted = session.serve(operations, mountpoint, options)
            if operations.meta.sid is None:
                say("locks are this machine's only (no session)")
            return mounted, "kernel"
        except (SettingError, OSError) as error:
            if wanted == "kernel" or not _can_pyfuse3():
                raise
            refusal = error
    if not _can_pyfuse3():
        raise SettingError("pyfuse3 is not installed: pip install 'fscore[mount]' (needs libfuse3-dev and a compiler)")
    from fscore.mount.transports import pyfuse3

    try:
        mounted = pyfuse3.serve(operations, mountpoint, options)
    except SettingError:
        if refusal is not None:  # what stands in the way is the same, and was said better
            raise refusal from None
        raise
    if refusal is not None:
        say(f"the kernel transport does not work here: {refusal}")
    lacks = [*pyfuse3.LACKS, *([pyfuse3.LACKS_WITH_ACL] if operations.meta.setting.enable_acl else [])]
    say(f"mounted through pyfuse3: {'; '.join(lacks)}")
    return mounted, "pyfuse3"


def _can_pyfuse3() -> bool:
    try:
        import pyfuse3  # noqa: F401
    except ImportError:
        return False
    return True
