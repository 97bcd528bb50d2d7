"""The portable transport: pyfuse3 over libfuse3, one trio loop on a thread of its own.

What memory answers is answered on the loop (`peek_...`); the rest hops to a worker thread. What pyfuse3 does not pass
on never arrives here, and `LACKS` says it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from fscore.domain.errors import SettingError
from fscore.mount.mounts import detach, words
from fscore.mount.operations import Operations
from fscore.mount.options import MountOptions
from fscore.mount.transports.pyfuse3_requests import Requests, unless_unknown
from fscore.mount.watched import watched
from fscore.runtime import log
from fscore.runtime.threads import Pool

LACKS: Final = (
    "locks are this machine's only (flock and fcntl are not passed on)",
    "no fallocate, SEEK_DATA, SEEK_HOLE or copy_file_range",
    "no passthrough: every read goes through this process",
)

LACKS_WITH_ACL: Final = "new files in directories with a default ACL lose the bits of the umask, too"

logger = log.get(__name__)
_only_one = threading.Lock()


def serve(operations: Operations, mountpoint: Path, options: MountOptions) -> PyfuseMount:
    """Mount, and answer requests until somebody unmounts. libfuse serves one mount a process: SettingError for more."""
    if not _only_one.acquire(blocking=False):
        raise SettingError("the pyfuse3 transport serves one mount a process; the kernel transport serves more")
    try:
        _quietly(
            partial(pyfuse3.init, Requests(watched(operations), options), str(mountpoint), words(options)), mountpoint
        )
        return PyfuseMount(operations, mountpoint, options)
    except BaseException:
        _only_one.release()
        raise


class PyfuseMount:
    """The mount of this process through libfuse."""

    def __init__(self, operations: Operations, mountpoint: Path, options: MountOptions) -> None:
        self.mountpoint = mountpoint
        self._operations = operations
        self._most = options.max_workers
        self._token: trio.lowlevel.TrioToken | None = None
        self._up = threading.Event()
        self._pool = Pool("pyfuse3", 1)
        operations.notifier = self._notifier = Notices()
        self._loop = self._pool.submit(self._run)
        self._up.wait()

    def wait(self) -> None:
        """Return when it is unmounted. Raises what ended the loop otherwise."""
        self._loop.result()
        self._pool.close()

    def stop(self) -> None:
        """Unmount, answer what is under way, end the loop. Idempotent."""
        if not self._loop.done():
            detach(self.mountpoint)
            if self._token is not None:
                try:
                    self._token.run_sync_soon(_terminate)
                except trio.RunFinishedError:
                    logger.debug("the loop had ended already")
        self.wait()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException:
            detach(self.mountpoint)  # nobody answers there any more
            raise
        finally:
            self._up.set()
            self._notifier.close()
            pyfuse3.close(unmount=False)
            self._operations.destroy()
            _only_one.release()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        trio.to_thread.current_default_thread_limiter().total_tokens = self._most
        self._up.set()
        await pyfuse3.main(min_tasks=2, max_tasks=self._most)


class Notices:
    """Tells the kernel what it should forget, from a thread: the kernel may be waiting for one of our answers."""

    def __init__(self) -> None:
        self._pool = Pool("pyfuse3-notify", 1)
        self._closed = False

    def inode(self, ino: int, *, data: bool = True, wait_s: float = 0.0) -> None:
        """Forget a node's attributes, and with `data` its pages. Nobody waits: no lock comes through here."""
        del wait_s
        self._tell(partial(pyfuse3.invalidate_inode, ino, attr_only=not data))

    def entry(self, parent: int, name: bytes) -> None:
        """Forget a name."""
        self._tell(partial(pyfuse3.invalidate_entry, parent, name))

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        self._pool.close()

    def _tell(self, notice: Callable[[], None]) -> None:
        if not self._closed:
            self._pool.submit(unless_unknown, notice)


def _terminate() -> None:
    if pyfuse3.trio_token is not None:
        pyfuse3.terminate()


def _quietly(mount: Callable[[], None], mountpoint: Path) -> None:
    """Mount; what libfuse and fusermount3 print when they cannot becomes the error."""
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            mount()
        except RuntimeError as error:
            said.seek(0)
            reason = said.read().decode("utf-8", "replace").strip().splitlines()
            raise SettingError(f"libfuse cannot mount {mountpoint}: {reason[-1] if reason else error}") from None
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
