"""The subject of `fsx` in process: files of a volume by handles of its Vfs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle

from fscore.domain.caller import Caller
from fscore.domain.errors import PastEnd
from fscore.domain.ids import ROOT
from fscore.volume import Volume

WHO = Caller.root()


class OpenFiles:
    """Files of a volume by handles; each time one is opened it is the next client's turn."""

    def __init__(self, clients: Sequence[Volume], files: int) -> None:
        self._turns = cycle(clients)
        self._clients: list[Volume] = [clients[0]] * files
        self._inos: list[int] = []
        self._fhs: list[int] = []
        for file in range(files):
            ino, _, fh = clients[0].vfs.create(WHO, ROOT, b"fsx-%d" % file, 0o644, os.O_RDWR)
            self._inos.append(ino)
            self._fhs.append(fh)

    def write(self, file: int, offset: int, data: bytes) -> None:
        request = bytearray(data)
        self._clients[file].vfs.write(self._fhs[file], offset, memoryview(request))
        request[:] = bytes(len(request))  # as a transport does, which uses its buffer again

    def append(self, file: int, data: bytes) -> None:
        vfs = self._clients[file].vfs
        fh = vfs.open(WHO, self._inos[file], os.O_WRONLY | os.O_APPEND)
        vfs.write(fh, 0, data)
        vfs.release(fh)

    def read(self, file: int, offset: int, length: int) -> bytes:
        return self._clients[file].vfs.read(self._fhs[file], offset, length)

    def truncate(self, file: int, length: int) -> None:
        self._clients[file].vfs.truncate_open(self._fhs[file], length)

    def punch(self, file: int, offset: int, length: int) -> None:
        self._clients[file].vfs.fallocate(self._fhs[file], 3, offset, length)

    def zero(self, file: int, offset: int, length: int, *, keep: bool) -> None:
        self._clients[file].vfs.fallocate(self._fhs[file], 16 | keep, offset, length)

    def allocate(self, file: int, offset: int, length: int, *, keep: bool) -> None:
        self._clients[file].vfs.fallocate(self._fhs[file], int(keep), offset, length)

    def copy(self, source: int, at: int, file: int, offset: int, length: int) -> int:
        if self._clients[source] is not self._clients[file]:
            self._open(source, self._clients[file])
        return self._clients[file].vfs.copy_file_range(self._fhs[source], at, self._fhs[file], offset, length)

    def seek(self, file: int, offset: int, *, hole: bool) -> int | None:
        with suppress(PastEnd):
            return self._clients[file].vfs.seek(self._fhs[file], offset, 4 if hole else 3)
        return None

    def size(self, file: int) -> int:
        vfs = self._clients[file].vfs
        size = vfs.length(self._fhs[file])
        assert vfs.getattr(self._inos[file]).length == size
        return size

    def sync(self, file: int) -> None:
        self._clients[file].vfs.fsync(self._fhs[file])

    def reopen(self, file: int) -> None:
        self._open(file, next(self._turns))

    def _open(self, file: int, client: Volume) -> None:
        self._clients[file].vfs.release(self._fhs[file])
        self._clients[file] = client
        self._fhs[file] = client.vfs.open(WHO, self._inos[file], os.O_RDWR)

    def map_write(self, file: int, offset: int, data: bytes) -> None:
        raise NotImplementedError("there is no kernel here")

    def map_read(self, file: int, offset: int, length: int) -> bytes:
        raise NotImplementedError("there is no kernel here")

    def close(self) -> None:
        for client, fh in zip(self._clients, self._fhs, strict=True):
            client.vfs.release(fh)
