"""Keeps a store's use below a bandwidth and a number of calls at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fscore.objects.api import Buffer, ObjectInfo, ObjectStore
from fscore.objects.wrap.wrapper import Wrapper
from fscore.runtime.clock import Clock
from fscore.runtime.limiter import Limiter


class Limited(Wrapper):
    """At most `upload` and `download` bytes a second and `calls` calls at a time; 0 = no limit.

    A limiter in place of a rate may be shared with other stores, and changed.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        upload: float | Limiter = 0,
        download: float | Limiter = 0,
        calls: int = 0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(inner)
        self._up = upload if isinstance(upload, Limiter) else Limiter(upload, clock=clock)
        self._down = download if isinstance(download, Limiter) else Limiter(download, clock=clock)
        self._slots = threading.BoundedSemaphore(calls) if calls else None

    def put(self, key: str, data: Buffer) -> None:
        """Waits for its share of the upload first."""
        self._up.take(len(data))
        with self._slot():
            self.inner.put(key, data)

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Waits for its share of the upload first."""
        self._up.take(len(data))
        with self._slot():
            super().put_with(key, data, metadata)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Waits for its share of the upload first."""
        self._up.take(len(data))
        with self._slot():
            return super().put_if_absent(key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Pays for what came afterwards, for only then its size is known."""
        with self._slot():
            data = self.inner.get(key, offset, length)
        self._down.take(len(data))
        return data

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Pays for what came afterwards."""
        with self._slot():
            n = self.inner.get_into(key, buffer, offset)
        self._down.take(n)
        return n

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """Pays for what came afterwards."""
        with self._slot():
            size, metadata = self.inner.fill(key, buffer)
        self._down.take(size)
        return size, metadata

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """Pays for what came afterwards."""
        with self._slot():
            data, metadata = super().get_with(key)
        self._down.take(len(data))
        return data, metadata

    def head(self, key: str) -> ObjectInfo:
        """Takes a slot."""
        with self._slot():
            return self.inner.head(key)

    def delete(self, key: str) -> None:
        """Takes a slot."""
        with self._slot():
            self.inner.delete(key)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._slots is None:
            yield
            return
        with self._slots:
            yield
