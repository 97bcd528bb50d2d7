"""What is told about a path: its attributes, and where its bytes are."""

from __future__ import annotations

import msgspec

from fscore.domain.attr import Attr, Kind
from fscore.domain.slices import SliceRecord
from fscore.files import paths


class Stat(msgspec.Struct, frozen=True):
    """A path and its node's attributes, at one moment."""

    path: str
    ino: int
    attr: Attr

    @property
    def name(self) -> str:
        """The last name of the path."""
        return paths.name_of(self.path)

    @property
    def kind(self) -> Kind:
        """File, directory, symlink ..."""
        return self.attr.kind

    @property
    def size(self) -> int:
        """Length in bytes; of a directory 4096, of a symlink its target's length."""
        return self.attr.length

    @property
    def mode(self) -> int:
        """Permission bits, 12 of them."""
        return self.attr.mode

    @property
    def mtime_ns(self) -> int:
        """Time of the last change of the content."""
        return self.attr.mtime_ns

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.attr.kind == Kind.DIRECTORY

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.attr.kind == Kind.FILE

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.attr.kind == Kind.SYMLINK

    @property
    def immutable(self) -> bool:
        """Whether it carries the immutable flag."""
        return self.attr.immutable


class ObjectRef(msgspec.Struct, frozen=True):
    """Bytes of one object that a piece of a file reads: `length` from `offset` of a block of `size` plain bytes."""

    key: str
    size: int
    offset: int
    length: int


class ChunkInfo(msgspec.Struct, frozen=True):
    """One chunk: its records as stored, oldest first, and what a reader sees."""

    index: int
    records: list[SliceRecord]
    view: list[SliceRecord]
    objects: list[ObjectRef]


class Info(msgspec.Struct, frozen=True):
    """Everything about a path. `slices` counts distinct slices that readers see."""

    path: str
    ino: int
    attr: Attr
    chunks: list[ChunkInfo]
    slices: int
    objects: int
    target: str = ""
