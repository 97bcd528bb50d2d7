"""Telling the kernel what to forget: on a thread of its own, as the kernel may wait for a page that a worker owes.

What cannot be told is dropped: the kernel does not know the node (ENOENT), or the mount is gone. Time-outs do the rest.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from fscore.mount.transports.kernel import wire
from fscore.runtime.threads import Task

ATTRIBUTES_ONLY: Final = -1


class KernelNotifier:
    """See `fscore.mount.api.Notifier`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: SimpleQueue[tuple[bytes, threading.Event | None] | None] = SimpleQueue()
        self._closed = False
        self._task = Task("notify", self._run)

    def inode(self, ino: int, *, data: bool = True, wait_s: float = 0.0) -> None:
        """Forget the attributes of a node, and with `data` its cached pages; `wait_s` seconds at most for that."""
        done = threading.Event() if wait_s and not self._closed else None
        self._queue.put((wire.inval_inode(ino, 0 if data else ATTRIBUTES_ONLY), done))
        if done is not None:
            done.wait(wait_s)

    def entry(self, parent: int, name: bytes) -> None:
        """Forget a name."""
        self._queue.put((wire.inval_entry(parent, name), None))

    def close(self) -> None:
        """End the thread; what was not told by then is not told."""
        self._closed = True
        self._queue.put(None)
        self._task.join(1.0)

    def _run(self) -> None:
        while (told := self._queue.get()) is not None:
            notice, done = told
            with suppress(OSError):
                os.write(self._fd, notice)
            if done is not None:
                done.set()
