"""A part of a store that looks like a whole one: every key gets a prefix."""

from __future__ import annotations

from collections.abc import Iterator

from fscore.objects.api import Buffer, ObjectInfo, ObjectStore
from fscore.objects.wrap.wrapper import Wrapper


class Prefixed(Wrapper):
    """The objects of `inner` below `prefix`, which usually ends with `/`: a volume's `<Name>/`."""

    def __init__(self, inner: ObjectStore, prefix: str) -> None:
        super().__init__(inner)
        self._prefix = prefix
        self.location = f"{inner.location.rstrip('/')}/{prefix}"

    def put(self, key: str, data: Buffer) -> None:
        """Put below the prefix."""
        self.inner.put(self._prefix + key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Get from below the prefix."""
        return self.inner.get(self._prefix + key, offset, length)

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Get from below the prefix."""
        return self.inner.get_into(self._prefix + key, buffer, offset)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """Get from below the prefix."""
        return self.inner.fill(self._prefix + key, buffer)

    def head(self, key: str) -> ObjectInfo:
        """Head below the prefix."""
        return self.inner.head(self._prefix + key)._replace(key=key)

    def delete(self, key: str) -> None:
        """Delete below the prefix."""
        self.inner.delete(self._prefix + key)

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Scan below the prefix; keys come without it."""
        cut = len(self._prefix)
        after = self._prefix + start_after if start_after else ""
        for info in self.inner.scan(self._prefix + prefix, after):
            yield info._replace(key=info.key[cut:])

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Put below the prefix unless it exists."""
        return super().put_if_absent(self._prefix + key, data)

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Put below the prefix, with metadata."""
        super().put_with(self._prefix + key, data, metadata)

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """Get from below the prefix, with metadata."""
        return super().get_with(self._prefix + key)
