"""What an object store promises, and what it may offer beyond that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from fscore.domain.errors import Invalid
from fscore.runtime.buffer import Buffer, as_view

__all__ = [
    "Buffer",
    "ObjectInfo",
    "ObjectStore",
    "SupportsMetadata",
    "SupportsPutIfAbsent",
    "SupportsSync",
    "as_view",
    "check_key",
    "filled",
]


Durable = bool | Literal["fsync"]
"""When what is put survives a power cut: True, when the put returns; `fsync`, when `sync` does; False, some time."""


class ObjectInfo(NamedTuple):
    """One object as a listing shows it. `etag` is empty where the store has none."""

    key: str
    size: int
    mtime_ns: int
    etag: str = ""


class ObjectStore(ABC):
    """Keys to bytes. Keys are relative to the store's root, `/` separates, none is empty or climbs out.

    Every method may be called from any thread. Only errors of `domain.errors` come out: NotFound, Denied,
    NoSpace, Invalid (a key that cannot be one), TransientError (try again), UnavailableError, CorruptError,
    SettingError (the bucket or the credentials are wrong).
    """

    location: str = ""
    """Where the objects are, for people and messages; holds no secret."""

    @property
    def reads_parts(self) -> bool:
        """Whether a part of an object can be read without the rest."""
        return True

    @property
    def fills(self) -> bool:
        """Whether `fill` lays bytes where they are wanted at once; else it copies what `get` gives."""
        return False

    @abstractmethod
    def put(self, key: str, data: Buffer) -> None:
        """Store `data` whole; when this returns it is durable, when it raises the key is as before or whole."""

    @abstractmethod
    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """Bytes from `offset`, up to `length` or to the end; shorter at the object's end. NotFound.

        Nobody changes them any more: they are `bytes`, or a view that is only for reading.
        """

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer at the object's end. NotFound."""
        data = self.get(key, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """A whole object into `buffer`; returns its size and what is kept beside it, where that comes with it.

        When the size is more than `buffer` takes, nothing is promised about the bytes. NotFound.
        """
        return filled(buffer, self.get(key)), {}

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size and time of an object. NotFound."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; that it is absent already is fine."""

    @abstractmethod
    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, after `start_after`, ascending by the key's UTF-8 bytes."""

    def close(self) -> None:  # noqa: B027  most stores hold nothing open
        """Give back what the store holds open."""


@runtime_checkable
class SupportsPutIfAbsent(Protocol):
    """A store on which exactly one of many writers of a key wins."""

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store `data` unless the key exists; whether this call did it."""
        ...


@runtime_checkable
class SupportsSync(Protocol):
    """A store that may hold back what a power cut would take; one that never does need not have this."""

    def sync(self) -> None:
        """Return when everything that was put before survives a power cut."""
        ...


@runtime_checkable
class SupportsMetadata(Protocol):
    """A store that keeps small text beside an object."""

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """As put, with `metadata`."""
        ...

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """The whole object and its metadata, names in lower case. NotFound."""
        ...


def check_key(key: str) -> str:
    """`key` if it can name an object; Invalid for an empty one and for one that climbs out."""
    if not key or "\0" in key or key[0] == "/" or any(part in {"", ".", ".."} for part in key.split("/")):
        raise Invalid(f"object key {key!r} is empty or leaves the store's root")
    return key


def filled(buffer: memoryview, data: Buffer) -> int:
    """Lay `data` into `buffer` if it fits; its size."""
    size = len(data)
    if size <= len(buffer):
        buffer[:size] = data
    return size
