"""The obvious model of a tree: dictionaries and lists of painted pieces, no transaction, no record, no cache.

Errors are part of the answer. Only the superuser acts: permissions have tests of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fscore.domain.attr import Kind
from fscore.domain.errors import (
    Exists,
    Invalid,
    IsADir,
    NoAttribute,
    NotADir,
    NotEmpty,
    NotFound,
    NotPermitted,
)

ROOT = 1
FIXED = 3
Pieces = list[tuple[int, int, int, int]]
"""(start, end, slice id, offset in the slice) of what is not a hole, ascending."""


@dataclass
class Node:
    """What a node is."""

    kind: Kind
    parent: int
    nlink: int = 1
    entries: dict[bytes, int] = field(default_factory=dict)
    pieces: Pieces = field(default_factory=list)
    length: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    flags: int = 0
    trashed: bool = False

    @property
    def is_dir(self) -> bool:
        return self.kind == Kind.DIRECTORY


def cut(pieces: Pieces, start: int, end: int) -> Pieces:
    """The pieces inside a range."""
    return [
        (max(lo, start), min(hi, end), slice_id, off + max(lo, start) - lo)
        for lo, hi, slice_id, off in pieces
        if lo < end and hi > start
    ]


def paint(pieces: Pieces, start: int, end: int, new: Pieces) -> Pieces:
    """`pieces` with [start, end) replaced by `new`."""
    return cut(pieces, 0, start) + new + cut(pieces, end, 1 << 62)


def glue(pieces: Pieces) -> Pieces:
    """Pieces that continue each other as one."""
    out: Pieces = []
    for piece in sorted(pieces):
        if out and out[-1][1] == piece[0] and out[-1][2] == piece[2]:
            lo, hi, slice_id, off = out[-1]
            if off + hi - lo == piece[3]:
                out[-1] = (lo, piece[1], slice_id, off)
                continue
        out.append(piece)
    return out


class TreeModel:
    """A whole volume. `trash` tells whether removed things are kept."""

    def __init__(self, *, trash: bool) -> None:
        self.trash = trash
        self.nodes: dict[int, Node] = {ROOT: Node(Kind.DIRECTORY, ROOT, nlink=2)}
        self.in_trash: dict[bytes, int] = {}
        self.opened: dict[int, int] = {}
        self.holder_acts = True
        """Whether the client that has files open acts now: what another one deletes, it does not keep."""

    def node(self, ino: int) -> Node:
        if ino not in self.nodes:
            raise NotFound
        return self.nodes[ino]

    def folder(self, ino: int) -> Node:
        node = self.node(ino)
        if not node.is_dir:
            raise NotADir
        return node

    def child(self, parent: int, name: bytes) -> int:
        entries = self.folder(parent).entries
        if name not in entries:
            raise NotFound
        return entries[name]

    def check_place(self, parent: int, name: bytes) -> Node:
        folder = self.folder(parent)
        if name in folder.entries:
            raise Exists
        self.check_growable(folder)
        return folder

    @staticmethod
    def check_growable(folder: Node) -> None:
        if folder.flags & 1:
            raise NotPermitted
        if folder.trashed:
            raise NotFound

    def create(self, parent: int, name: bytes, ino: int, kind: Kind, target: bytes = b"") -> None:
        folder = self.check_place(parent, name)
        folder.entries[name] = ino
        is_dir = kind == Kind.DIRECTORY
        self.nodes[ino] = Node(kind, parent, nlink=2 if is_dir else 1, target=target)
        folder.nlink += is_dir

    def link(self, ino: int, parent: int, name: bytes) -> None:
        self.folder(parent)
        node = self.node(ino)
        if node.is_dir:
            raise NotPermitted
        folder = self.check_place(parent, name)
        if node.flags & FIXED or node.trashed:
            raise NotPermitted
        if node.nlink == 0:
            raise NotFound
        node.nlink += 1
        node.parent = 0
        folder.entries[name] = ino

    def unlink(self, parent: int, name: bytes) -> None:
        ino = self.child(parent, name)
        if self.nodes[ino].is_dir:
            raise NotPermitted
        if (self.nodes[parent].flags | self.nodes[ino].flags) & FIXED:
            raise NotPermitted
        del self.nodes[parent].entries[name]
        self.drop(parent, name, ino)

    def rmdir(self, parent: int, name: bytes) -> None:
        ino = self.child(parent, name)
        if not self.nodes[ino].is_dir:
            raise NotADir
        if (self.nodes[parent].flags | self.nodes[ino].flags) & FIXED:
            raise NotPermitted
        if self.nodes[ino].entries:
            raise NotEmpty
        del self.nodes[parent].entries[name]
        self.nodes[parent].nlink -= 1
        self.drop(parent, name, ino)

    def drop(self, parent: int, name: bytes, ino: int) -> None:
        node = self.nodes[ino]
        kept = b"%d-%d-%s" % (parent, ino, name)
        if self.trash and not (node.nlink > 1 and not node.is_dir and kept in self.in_trash):
            self.in_trash[kept] = ino
            node.trashed = node.parent > 0
            return
        if node.is_dir:
            del self.nodes[ino]
            return
        node.nlink -= 1
        if node.nlink == 0:
            node.xattrs = {}
            if not (self.holder_acts and self.opened.get(ino) and node.kind == Kind.FILE):
                del self.nodes[ino]

    def rename(self, source: tuple[int, bytes], target: tuple[int, bytes], *, replace: bool, exchange: bool) -> None:
        here, there = self.folder(source[0]), self.folder(target[0])
        ino = self.child(*source)
        old = there.entries.get(target[1])
        if old is not None and not replace:
            raise Exists
        if old == ino:
            return
        node = self.nodes[ino]
        if here.flags & FIXED:
            raise NotPermitted
        self.check_growable(there)
        if node.flags & FIXED:
            raise NotPermitted
        if node.is_dir and self.below(target[0], ino):
            raise Invalid
        if exchange:
            self.exchange(source, target, old)
            return
        if old is not None:
            self.check_replaceable(node, self.nodes[old], there)
        del here.entries[source[1]]
        if old is not None:
            there.nlink -= self.nodes[old].is_dir
            self.drop(target[0], target[1], old)
        there.entries[target[1]] = ino
        self.move(node, here, there, target[0])

    @staticmethod
    def check_replaceable(node: Node, victim: Node, there: Node) -> None:
        if node.is_dir and not victim.is_dir:
            raise NotADir
        if victim.is_dir and not node.is_dir:
            raise IsADir
        if victim.entries:
            raise NotEmpty
        if (there.flags | victim.flags) & FIXED:
            raise NotPermitted

    def exchange(self, source: tuple[int, bytes], target: tuple[int, bytes], old: int | None) -> None:
        if old is None:
            raise NotFound
        here, there = self.nodes[source[0]], self.nodes[target[0]]
        other = self.nodes[old]
        if here.trashed:
            raise NotFound
        if (there.flags | other.flags) & FIXED:
            raise NotPermitted
        if other.is_dir and self.below(source[0], old):
            raise Invalid
        ino = here.entries[source[1]]
        here.entries[source[1]], there.entries[target[1]] = old, ino
        self.move(self.nodes[ino], here, there, target[0])
        self.move(other, there, here, source[0])

    @staticmethod
    def move(node: Node, here: Node, there: Node, parent: int) -> None:
        here.nlink -= node.is_dir
        there.nlink += node.is_dir
        if node.parent:
            node.parent = parent

    def below(self, ino: int, top: int) -> bool:
        while ino != top:
            if ino == ROOT or ino not in self.nodes or self.nodes[ino].trashed:
                return False
            ino = self.nodes[ino].parent
        return True

    def file(self, ino: int) -> Node:
        node = self.node(ino)
        if node.is_dir:
            raise IsADir
        if node.kind != Kind.FILE:
            raise Invalid
        return node

    def write(self, ino: int, offset: int, length: int, slices: Pieces) -> None:
        node = self.file(ino)
        if node.flags & 1:
            raise NotPermitted
        node.pieces = paint(node.pieces, offset, offset + length, slices)
        node.length = max(node.length, offset + length)

    def truncate(self, ino: int, length: int) -> None:
        node = self.file(ino)
        if node.flags & FIXED or node.trashed:
            raise NotPermitted
        node.pieces = cut(node.pieces, 0, length)
        node.length = length

    def copy(self, source: int, start: int, ino: int, offset: int, length: int) -> int:
        length = max(min(length, self.file(source).length - start), 0)
        if source == ino and start < offset + length and offset < start + length and length:
            raise Invalid
        if length:
            self.compose(ino, offset, [(source, start, length)])
        return length

    def compose(self, ino: int, offset: int, ranges: list[tuple[int, int, int]]) -> None:
        """`ranges` are (source, offset, length); source 0 is a hole."""
        if not ranges:
            return
        laid: Pieces = []
        at = offset
        for source, start, length in ranges:
            if source:
                origin = self.file(source)
                if start + length > origin.length:
                    raise Invalid
                shift = at - start
                laid += [(lo + shift, hi + shift, s, o) for lo, hi, s, o in cut(origin.pieces, start, start + length)]
            at += length
        node = self.file(ino)
        if node.flags & FIXED:
            raise NotPermitted
        node.pieces = paint(node.pieces, offset, at, laid)
        node.length = max(node.length, at)

    def clone(self, source: int, parent: int, name: bytes) -> None:
        """Only whether it may be; what it makes is compared by walking both trees."""
        self.node(source)
        folder = self.folder(parent)
        if folder.flags & 1:
            raise NotPermitted
        if folder.trashed:
            raise NotFound
        if name in folder.entries:
            raise Exists

    def setxattr(self, ino: int, name: bytes, value: bytes, mode: str) -> None:
        node = self.node(ino)
        if node.trashed or node.flags & FIXED:
            raise NotPermitted
        if mode == "create" and name in node.xattrs:
            raise Exists
        if mode == "replace" and name not in node.xattrs:
            raise NoAttribute
        node.xattrs[name] = value

    def removexattr(self, ino: int, name: bytes) -> None:
        node = self.node(ino)
        if node.trashed or node.flags & FIXED:
            raise NotPermitted
        if name not in node.xattrs:
            raise NoAttribute
        del node.xattrs[name]

    def setflags(self, ino: int, flags: int) -> None:
        node = self.node(ino)
        if node.trashed:
            raise NotPermitted
        node.flags = flags

    def open(self, ino: int, *, write: bool) -> None:
        node = self.node(ino)
        if node.is_dir and write:
            raise IsADir
        if write and (node.trashed or node.flags & FIXED):
            raise NotPermitted
        self.opened[ino] = self.opened.get(ino, 0) + 1

    def close(self, ino: int) -> None:
        self.opened[ino] -= 1
        if not self.opened[ino] and ino in self.nodes and self.nodes[ino].nlink == 0:
            del self.nodes[ino]
