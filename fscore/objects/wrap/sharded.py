"""Several buckets that look like one: FNV-1a-32 of the whole key, with the volume's name, says which (format 5.1)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from fscore.domain.errors import Unsupported
from fscore.domain.keys import shard_of
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore, SupportsMetadata, SupportsPutIfAbsent, SupportsSync


class Sharded(ObjectStore):
    """Keys spread over `stores`, which are in the order of their shard numbers."""

    def __init__(self, stores: Sequence[ObjectStore]) -> None:
        self._stores = list(stores)
        self.location = f"{self._stores[0].location} and {len(self._stores) - 1} more shards"

    @property
    def reads_parts(self) -> bool:
        """Whether every shard does."""
        return all(store.reads_parts for store in self._stores)

    @property
    def fills(self) -> bool:
        """Whether every shard does."""
        return all(store.fills for store in self._stores)

    def put(self, key: str, data: Buffer) -> None:
        """Put on its shard."""
        self._of(key).put(key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Get from its shard."""
        return self._of(key).get(key, offset, length)

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Get from its shard."""
        return self._of(key).get_into(key, buffer, offset)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """Get from its shard."""
        return self._of(key).fill(key, buffer)

    def head(self, key: str) -> ObjectInfo:
        """Head on its shard."""
        return self._of(key).head(key)

    def delete(self, key: str) -> None:
        """Delete on its shard."""
        self._of(key).delete(key)

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """The listings of all shards, merged."""
        listings = [store.scan(prefix, start_after) for store in self._stores]
        return heapq.merge(*listings, key=lambda info: info.key.encode())

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Put on its shard unless it exists."""
        store = self._of(key)
        if not isinstance(store, SupportsPutIfAbsent):
            raise Unsupported(f"{store.location} has no exclusive put")
        return store.put_if_absent(key, data)

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Put on its shard, with metadata."""
        store = self._of(key)
        if not isinstance(store, SupportsMetadata):
            raise Unsupported(f"{store.location} keeps no metadata beside objects")
        store.put_with(key, data, metadata)

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """Get from its shard, with metadata."""
        store = self._of(key)
        if not isinstance(store, SupportsMetadata):
            raise Unsupported(f"{store.location} keeps no metadata beside objects")
        return store.get_with(key)

    def sync(self) -> None:
        """Of every shard that holds something back."""
        for store in self._stores:
            if isinstance(store, SupportsSync):
                store.sync()

    def close(self) -> None:
        """Close every shard."""
        for store in self._stores:
            store.close()

    def _of(self, key: str) -> ObjectStore:
        return self._stores[shard_of(key, len(self._stores))]
