"""One mount served by a crew of threads: INIT, who reads, who waits for locks, how it ends."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fscore.domain.errors import SettingError
from fscore.mount.api import DAY_S, Callers
from fscore.mount.mounts import canonical, detach, mount_at, unmount
from fscore.mount.operations import Operations
from fscore.mount.operations_locks import FIRST_WAIT_S, LONGEST_WAIT_S
from fscore.mount.options import MountOptions
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.backing import BackingIoctls
from fscore.mount.transports.kernel.mounting import open_mount, tune_read_ahead
from fscore.mount.transports.kernel.notify import KernelNotifier
from fscore.mount.transports.kernel.protocol import BODY, HEADER, MINOR, OLDEST_MINOR, Init, Opcode
from fscore.mount.transports.kernel.waiters import LockWaiters
from fscore.mount.transports.kernel.worker import AGAIN, Worker, reply
from fscore.mount.watched import watched
from fscore.runtime import log
from fscore.runtime.threads import Task

FIRST_WORKERS: Final = 2
PAGE: Final = 4096
STOP_S: Final = 10.0
CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
LEFT_S: Final = 0.5
"""For workers that are still blocked in a read when the connection could not be cut: the process's end frees them."""

WANTED: Final = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.EXPORT_SUPPORT
    | Init.BIG_WRITES
    | Init.DONT_MASK
    | Init.AUTO_INVAL_DATA
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.HANDLE_KILLPRIV_V2
    | Init.INIT_EXT
    | Init.DIRECT_IO_ALLOW_MMAP
)
"""No WRITEBACK_CACHE: the kernel would keep what programs wrote past their close(2), and its own idea of a file's
length and times; close-to-open between clients would be gone."""

_log = log.get(__name__)


def serve(operations: Operations, mountpoint: Path, options: MountOptions) -> KernelMount:
    """Mount, and answer requests until somebody unmounts. Raises SettingError for what stands in the way."""
    fd = open_mount(mountpoint, options)
    try:
        return KernelMount(fd, operations, mountpoint, options)
    except BaseException:
        os.close(fd)
        detach(mountpoint)
        raise


class KernelMount:
    """A mount of this process. See `fscore.mount.api.Mounted`."""

    def __init__(self, fd: int, operations: Operations, mountpoint: Path, options: MountOptions) -> None:
        self.mountpoint = mountpoint
        self._fd = fd
        self._operations = operations
        self._served = watched(operations)
        self._options = options
        self._callers = Callers()
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        self._free = 0
        self._ended = threading.Event()
        self._finished = threading.Event()
        self.flags = Init(0)
        self._room = options.max_write + PAGE
        self._greet()
        self._waiters = LockWaiters(fd, operations.number, FIRST_WAIT_S, LONGEST_WAIT_S)
        operations.notifier = self._notifier = KernelNotifier(fd)
        if self.flags & Init.PASSTHROUGH:
            operations.offer_backing(BackingIoctls(fd))
        mount = mount_at(canonical(mountpoint))
        self._device = mount.device if mount is not None else ""
        with self._lock:
            for _ in range(FIRST_WORKERS):
                self._hire()
        if os.geteuid() == 0:
            tune_read_ahead(mountpoint)

    def wait(self) -> None:
        """Return when it is unmounted, by whomever. Raises what ended it otherwise."""
        self._ended.wait()
        self._finish()

    def stop(self) -> None:
        """Unmount, answer what is under way, and return. Idempotent; from any thread but a worker's."""
        if not self._ended.is_set():
            target = canonical(self.mountpoint)
            patience = STOP_S
            if mount_at(target) is not None and not self._unmount(target):
                patience = LEFT_S
            if not self._ended.wait(patience):
                self._abort()
                self._ended.wait(LEFT_S)
        self._finish()

    def busy(self) -> None:
        """A worker is going to wait: the last one that is free calls in another."""
        with self._lock:
            self._free -= 1
            if self._free == 0 and len(self._tasks) < self._options.max_workers:
                self._hire()

    def idle(self) -> None:
        """It is back."""
        with self._lock:
            self._free += 1

    def put_aside(self, unique: int, attempt: Callable[[], None]) -> None:
        """Answer this request when its attempt succeeds."""
        self._waiters.add(unique, attempt)

    def interrupt(self, unique: int) -> None:
        """The program behind a request was signalled: one that waits for a lock stops."""
        self._waiters.interrupt(unique)

    def _greet(self) -> None:
        """The first exchange: which protocol, which features, how large requests are."""
        buffer = bytearray(self._room)
        while True:
            try:
                length = os.readv(self._fd, [buffer])
            except OSError as error:
                if error.errno in AGAIN:
                    continue
                raise
            _, opcode, unique, *_ = HEADER.unpack_from(buffer)
            if opcode != Opcode.INIT:
                reply(self._fd, wire.error(unique, errno.EIO))
                continue
            hello = wire.hello(memoryview(buffer)[BODY:length])
            if hello.major == 7 and hello.minor >= OLDEST_MINOR:
                break
            reply(self._fd, wire.error(unique, errno.EPROTO))
            raise SettingError(
                f"this kernel speaks FUSE {hello.major}.{hello.minor}, we need 7.{OLDEST_MINOR} or newer"
            )
        options = self._options
        self.flags = Init(hello.flags & self._wanted())
        answer = wire.init_reply(
            unique,
            min(hello.minor, MINOR),
            self.flags,
            max_readahead=min(hello.max_readahead, options.max_read_ahead),
            max_background=options.max_background,
            max_write=options.max_write,
            max_pages=options.max_write // PAGE,
            max_stack_depth=options.max_stack_depth if self.flags & Init.PASSTHROUGH else 0,
        )
        reply(self._fd, answer)

    def _wanted(self) -> Init:
        wanted = WANTED
        if self._operations.meta.sid is not None:  # without a session no lock can be held: the kernel does it by itself
            wanted |= Init.POSIX_LOCKS | Init.FLOCK_LOCKS
        if self._options.readdir_plus:
            wanted |= Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO
        if self._options.passthrough:
            wanted |= Init.PASSTHROUGH
        if self._operations.meta.setting.enable_acl:
            wanted |= Init.POSIX_ACL
        return wanted

    def _hire(self) -> None:
        options = self._options
        lifetimes = wire.Lifetimes(
            wire.seconds(options.entry_cache_s),
            wire.seconds(options.dir_entry_cache_s),
            wire.seconds(options.attr_cache_s),
            wire.seconds(options.entry_cache_s),
            wire.seconds(DAY_S),
        )
        worker = Worker(self._fd, self._room, self._served, lifetimes, self._callers, self)
        self._free += 1
        self._tasks.append(Task(f"fuse-{len(self._tasks)}", lambda: self._work(worker)))

    def _work(self, worker: Worker) -> None:
        try:
            worker.run()
        finally:
            self._ended.set()

    def _unmount(self, target: Path) -> bool:
        """Take the mount out of the tree; whether nobody used it."""
        try:
            unmount(target)
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _log.warning("%s is in use: it is taken out of the tree, and programs that have it open get errors", target)
            unmount(target, lazy=True, force=True)
            return False

    def _abort(self) -> None:
        """Cut the connection, where the control filesystem is there: workers return, programs get ENOTCONN."""
        with suppress(OSError):
            (CONNECTIONS / self._device.rpartition(":")[2] / "abort").write_text("1")

    def _finish(self) -> None:
        with self._lock:
            tasks, self._tasks = self._tasks, []
        if not tasks:
            self._finished.wait(STOP_S)
            return
        try:
            self._close(tasks)
        finally:
            self._finished.set()

    def _close(self, tasks: list[Task]) -> None:
        patience = time.monotonic() + (STOP_S if self._ended.is_set() else LEFT_S)
        left = [task for task in tasks if not task.join(max(0.0, patience - time.monotonic()))]
        self._waiters.close()
        self._notifier.close()
        self._operations.notifier = None
        self._operations.destroy()
        if not left:
            os.close(self._fd)
        for task in tasks:
            if task.error is not None:
                raise task.error
