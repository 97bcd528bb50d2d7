"""Passthrough: local files that the kernel reads by itself, registered by ioctls on /dev/fuse (Linux 6.9)."""

from __future__ import annotations

import fcntl
from struct import Struct
from typing import Final

_MAP: Final = Struct("=iIQ")
_ID: Final = Struct("=I")
_WRITE: Final = 1 << 30
_MAGIC: Final = 229 << 8
BACKING_OPEN: Final = _WRITE | _MAP.size << 16 | _MAGIC | 1
BACKING_CLOSE: Final = _WRITE | _ID.size << 16 | _MAGIC | 2


class BackingIoctls:
    """See `fscore.mount.api.BackingIds`. Needs CAP_SYS_ADMIN: without it the first `register` says EPERM."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def register(self, fd: int) -> int:
        """The kernel's number (> 0) for an open local file. Raises OSError."""
        return int(fcntl.ioctl(self._fd, BACKING_OPEN, bytearray(_MAP.pack(fd, 0, 0))))  # bytes would return themselves

    def close(self, backing_id: int) -> None:
        """Forget a number; opens that have it go on."""
        fcntl.ioctl(self._fd, BACKING_CLOSE, bytearray(_ID.pack(backing_id)))
