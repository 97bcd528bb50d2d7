"""CRC-32C beside every object, as JuiceFS keeps it on S3: metadata `Crc32c`, the decimal sum of the stored bytes.

Checked when a whole object comes back; one that lacks it is taken as it is (volume-format.md 5.1).
"""

from __future__ import annotations

from typing import Final

from fscore.domain.errors import CorruptError
from fscore.objects.api import Buffer, ObjectStore, SupportsMetadata
from fscore.objects.wrap.wrapper import Wrapper

NAME: Final = "Crc32c"


class Checksummed(Wrapper):
    """Sums what it puts and checks what it gets whole. Only for stores that keep metadata."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        if not isinstance(inner, SupportsMetadata):
            raise TypeError(f"{inner.location} keeps no metadata beside objects")
        self._rich: SupportsMetadata = inner

    def put(self, key: str, data: Buffer) -> None:
        """Put with its sum."""
        self.put_with(key, data, {})

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """Put with its sum and more."""
        self._rich.put_with(key, data, {**metadata, NAME: _sum(data)})

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """A whole object is checked, a part cannot be. CorruptError on a mismatch."""
        if offset or length is not None:
            return self.inner.get(key, offset, length)
        return self.get_with(key)[0]

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """A whole object, checked."""
        size, metadata = self.inner.fill(key, buffer)
        if size <= len(buffer):
            self._check(key, buffer[:size], metadata)
        return size, metadata

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """A whole object, checked, and its metadata."""
        data, metadata = self._rich.get_with(key)
        self._check(key, data, metadata)
        return data, metadata

    def _check(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        kept = metadata.get(NAME.lower())
        if kept is not None and kept != (found := _sum(data)):
            raise CorruptError(f"object {key!r} in {self.location}: CRC-32C is {found}, was stored with {kept}")


def _sum(data: Buffer) -> str:
    from crc32c import crc32c  # late: it takes 20 ms to import, and only stores with metadata need it

    return str(crc32c(data))
