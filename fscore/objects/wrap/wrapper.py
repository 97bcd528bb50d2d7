"""The shape of a wrapper: passes every call on. Subclasses change what they are about and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from fscore.domain.errors import Unsupported
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore, SupportsMetadata, SupportsPutIfAbsent, SupportsSync


class Wrapper(ObjectStore):
    """An object store on another one. Capabilities are passed on; Unsupported where `inner` lacks them."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.location = inner.location

    @property
    def reads_parts(self) -> bool:
        """Passed on."""
        return self.inner.reads_parts

    @property
    def fills(self) -> bool:
        """Passed on."""
        return self.inner.fills

    def put(self, key: str, data: Buffer) -> None:
        """Passed on."""
        self.inner.put(key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Passed on."""
        return self.inner.get(key, offset, length)

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Passed on."""
        return self.inner.get_into(key, buffer, offset)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """Passed on."""
        return self.inner.fill(key, buffer)

    def head(self, key: str) -> ObjectInfo:
        """Passed on."""
        return self.inner.head(key)

    def delete(self, key: str) -> None:
        """Passed on."""
        self.inner.delete(key)

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Passed on."""
        return self.inner.scan(prefix, start_after)

    def close(self) -> None:
        """Passed on."""
        self.inner.close()

    def sync(self) -> None:
        """Passed on; a store without it holds nothing back."""
        if isinstance(self.inner, SupportsSync):
            self.inner.sync()

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Passed on; Unsupported if the store cannot."""
        if not isinstance(self.inner, SupportsPutIfAbsent):
            raise Unsupported(f"{self.location} has no exclusive put")
        return self.inner.put_if_absent(key, data)

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Passed on; Unsupported if the store cannot."""
        if not isinstance(self.inner, SupportsMetadata):
            raise Unsupported(f"{self.location} keeps no metadata beside objects")
        self.inner.put_with(key, data, metadata)

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """Passed on; Unsupported if the store cannot."""
        if not isinstance(self.inner, SupportsMetadata):
            raise Unsupported(f"{self.location} keeps no metadata beside objects")
        return self.inner.get_with(key)


def unwrap(store: ObjectStore) -> ObjectStore:
    """The driver below all wrappers."""
    while isinstance(store, Wrapper):
        store = store.inner
    return store
