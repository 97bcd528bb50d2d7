"""Telling the kernel what to forget: on a thread of its own, as the kernel may wait for a page that a worker owes.

What cannot be told is dropped: the kernel does not know the node (ENOENT), or the mount is gone. Time-outs do the rest.
"""

from __future__ import annotations

import os
from queue import SimpleQueue
from typing import Final

from fscore.mount.transports.kernel import wire
from fscore.runtime.threads import Task

ATTRIBUTES_ONLY: Final = -1


class KernelNotifier:
    """See `fscore.mount.api.Notifier`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._task = Task("notify", self._run)

    def inode(self, ino: int, *, data: bool = True) -> None:
        """Forget the attributes of a node, and with `data` its cached pages."""
        self._queue.put(wire.inval_inode(ino, 0 if data else ATTRIBUTES_ONLY))

    def entry(self, parent: int, name: bytes) -> None:
        """Forget a name."""
        self._queue.put(wire.inval_entry(parent, name))

    def close(self) -> None:
        """End the thread; what was not told by then is not told."""
        self._queue.put(None)
        self._task.join(1.0)

    def _run(self) -> None:
        while (notice := self._queue.get()) is not None:
            try:
                os.write(self._fd, notice)
            except OSError:
                continue
