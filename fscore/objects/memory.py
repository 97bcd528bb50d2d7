"""Objects in this process's memory: the reference for every other store. One store a name, shared by the process."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator

from fscore.domain.errors import NotFound
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore, check_key, filled
from fscore.runtime.clock import Clock, SystemClock


class MemoryStore(ObjectStore):
    """A dictionary with the promises of an object store."""

    def __init__(self, name: str = "", clock: Clock | None = None) -> None:
        self.location = f"memory://{name}"
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, int, dict[str, str]]] = {}

    def put(self, key: str, data: Buffer) -> None:
        """Store a copy of `data`."""
        self.put_with(key, data, {})

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Store a copy of `data` and its metadata."""
        kept = {name.lower(): value for name, value in metadata.items()}
        whole = bytes(data)
        with self._lock:
            self._objects[check_key(key)] = (whole, self._clock.now_ns(), kept)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store a copy of `data` unless the key exists."""
        with self._lock:
            if check_key(key) in self._objects:
                return False
            self._objects[key] = (bytes(data), self._clock.now_ns(), {})
            return True

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Bytes of an object."""
        data = self._find(key)[0]
        if offset == 0 and (length is None or length >= len(data)):
            return data
        return data[offset:] if length is None else data[offset : offset + length]

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """The object and its metadata."""
        data, _, metadata = self._find(key)
        return data, dict(metadata)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """The object and its metadata."""
        data, metadata = self.get_with(key)
        return filled(buffer, data), metadata

    def head(self, key: str) -> ObjectInfo:
        """Size and time."""
        data, mtime_ns, _ = self._find(key)
        return ObjectInfo(key, len(data), mtime_ns)

    def delete(self, key: str) -> None:
        """Forget the object."""
        with self._lock:
            self._objects.pop(check_key(key), None)

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects as they were when the scan began."""
        with self._lock:
            found = sorted((key.encode(), key, len(item[0]), item[1]) for key, item in self._objects.items())
        first = bisect.bisect_left(found, (start_after.encode() + b"\0",)) if start_after else 0
        for _, key, size, mtime_ns in found[first:]:
            if key.startswith(prefix):
                yield ObjectInfo(key, size, mtime_ns)

    def _find(self, key: str) -> tuple[bytes, int, dict[str, str]]:
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise NotFound(f"no object {key!r} in {self.location}") from None


_shared: dict[str, MemoryStore] = {}
_shared_lock = threading.Lock()


def shared(name: str) -> MemoryStore:
    """The store of that name in this process, made at first use."""
    with _shared_lock:
        store = _shared.get(name)
        if store is None:
            store = _shared[name] = MemoryStore(name)
        return store
