"""Tries a store's calls again when they failed for a passing reason."""

from __future__ import annotations

from collections.abc import Iterator

from fscore.domain.errors import TransientError
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore
from fscore.objects.wrap.wrapper import Wrapper
from fscore.runtime.retry import Retry


class Retrying(Wrapper):
    """TransientError of `inner` becomes a later try, and UnavailableError when the tries are used up."""

    def __init__(self, inner: ObjectStore, retry: Retry | None = None) -> None:
        super().__init__(inner)
        self._retry = retry or Retry()

    def put(self, key: str, data: Buffer) -> None:
        """Again until it is stored: a put may be repeated."""
        self._retry.call(self._what("put", key), lambda: self.inner.put(key, data))

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Again until it is stored."""
        self._retry.call(self._what("put", key), lambda: super(Retrying, self).put_with(key, data, metadata))

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Again; an object with our bytes after a try that failed in the middle counts as ours."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            if super(Retrying, self).put_if_absent(key, data):
                return True
            return tries > 1 and self.inner.get(key) == bytes(data)

        return self._retry.call(self._what("put", key), once)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Again until it is read."""
        return self._retry.call(self._what("get", key), lambda: self.inner.get(key, offset, length))

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Again until it is read."""
        return self._retry.call(self._what("get", key), lambda: self.inner.get_into(key, buffer, offset))

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """Again until it is read."""
        return self._retry.call(self._what("get", key), lambda: self.inner.fill(key, buffer))

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """Again until it is read."""
        return self._retry.call(self._what("get", key), lambda: super(Retrying, self).get_with(key))

    def head(self, key: str) -> ObjectInfo:
        """Again until it is answered."""
        return self._retry.call(self._what("head", key), lambda: self.inner.head(key))

    def delete(self, key: str) -> None:
        """Again until it is gone."""
        self._retry.call(self._what("delete", key), lambda: self.inner.delete(key))

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Goes on after the last key it gave when a page fails; the tries count from the last page that came."""
        after = start_after
        while True:
            listing = self.inner.scan(prefix, after)
            try:
                for info in listing:
                    after = info.key
                    yield info
            except TransientError as error:
                first = self._resume(prefix, after, error)
                if first is None:
                    return
                after = first.key
                yield first
            else:
                return

    def _resume(self, prefix: str, after: str, error: TransientError) -> ObjectInfo | None:
        pending: TransientError | None = error

        def next_one() -> ObjectInfo | None:
            nonlocal pending
            if pending is not None:  # the failure that brought us here is the first try
                failure, pending = pending, None
                raise failure
            return next(iter(self.inner.scan(prefix, after)), None)

        return self._retry.call(self._what("scan", prefix), next_one)

    def _what(self, verb: str, key: str) -> str:
        return f"{verb} of {key!r} in {self.location}"
