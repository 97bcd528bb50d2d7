"""Counts a store's calls, bytes and errors, and how long calls take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from fscore.domain.errors import NotFound
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore
from fscore.objects.wrap.wrapper import Wrapper
from fscore.runtime.metrics import Metrics

T = TypeVar("T")


class Metered(Wrapper):
    """Moves `objects.<call>.bytes`, `.errors` and the histogram `objects.<call>` of `metrics`."""

    def __init__(self, inner: ObjectStore, metrics: Metrics) -> None:
        super().__init__(inner)
        self._metrics = metrics

    def put(self, key: str, data: Buffer) -> None:
        """Counted as put."""
        self._count("put", lambda: self.inner.put(key, data))
        self._metrics.add("objects.put.bytes", len(data))

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Counted as put."""
        self._count("put", lambda: super(Metered, self).put_with(key, data, metadata))
        self._metrics.add("objects.put.bytes", len(data))

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Counted as put."""
        done = self._count("put", lambda: super(Metered, self).put_if_absent(key, data))
        self._metrics.add("objects.put.bytes", len(data) if done else 0)
        return done

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Counted as get."""
        data = self._count("get", lambda: self.inner.get(key, offset, length))
        self._metrics.add("objects.get.bytes", len(data))
        return data

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Counted as get."""
        n = self._count("get", lambda: self.inner.get_into(key, buffer, offset))
        self._metrics.add("objects.get.bytes", n)
        return n

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """Counted as get."""
        size, metadata = self._count("get", lambda: self.inner.fill(key, buffer))
        self._metrics.add("objects.get.bytes", size)
        return size, metadata

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """Counted as get."""
        data, metadata = self._count("get", lambda: super(Metered, self).get_with(key))
        self._metrics.add("objects.get.bytes", len(data))
        return data, metadata

    def head(self, key: str) -> ObjectInfo:
        """Counted."""
        return self._count("head", lambda: self.inner.head(key))

    def delete(self, key: str) -> None:
        """Counted."""
        self._count("delete", lambda: self.inner.delete(key))

    def _count(self, call: str, fn: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            return fn()
        except NotFound:
            raise
        except Exception:
            self._metrics.add(f"objects.{call}.errors")
            raise
        finally:
            self._metrics.observe(f"objects.{call}", time.perf_counter() - start)
