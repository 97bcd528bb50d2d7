"""Short words for tests of metadata: callers, files with content, what a directory holds."""

from __future__ import annotations

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.geometry import CHUNK, by_chunk
from fscore.domain.ids import ROOT
from fscore.domain.slices import SliceRecord
from fscore.meta.service import MetaService

SUPER = Caller.root()
ALICE = Caller(uid=1000, gid=1000, gids=(100,))
BOB = Caller(uid=2000, gid=2000)


def mkfile(meta: MetaService, name: bytes, length: int = 0, parent: int = ROOT, who: Caller = SUPER) -> int:
    """A file with `length` bytes of fresh slices, one a chunk; returns its inode."""
    ino, _ = meta.create(who, parent, name, 0o644)
    if length:
        put(meta, ino, 0, length)
    return ino


def put(meta: MetaService, ino: int, offset: int, length: int) -> list[int]:
    """Commit a write of fresh slices; returns their ids."""
    ids = []
    for index, pos, part in by_chunk(offset, length):
        ids.append(meta.new_slice_id())
        record = SliceRecord(pos, ids[-1], part, 0, part)
        meta.write(ino, index, [record], 1_700_000_000_000_000_000, new_length=index * CHUNK + pos + part)
    return ids


def mkdir(meta: MetaService, name: bytes, parent: int = ROOT, who: Caller = SUPER, mode: int = 0o755) -> int:
    """A directory; returns its inode."""
    return meta.mkdir(who, parent, name, mode)[0]


def names(meta: MetaService, ino: int = ROOT) -> dict[bytes, int]:
    """Name to inode of a directory's entries."""
    return {entry.name: entry.ino for entry in meta.readdir(SUPER, ino)}


def kinds(meta: MetaService, ino: int = ROOT) -> dict[bytes, Kind]:
    """Name to kind of a directory's entries."""
    return {entry.name: entry.kind for entry in meta.readdir(SUPER, ino)}


def shape(meta: MetaService, ino: int, length: int) -> list[tuple[int, int, int, int]]:
    """What a reader of a file sees: (slice id, offset in it, length) pieces with their file offset, holes left out."""
    pieces = []
    for index in range((length + CHUNK - 1) // CHUNK):
        pieces += [
            (index * CHUNK + piece.pos, piece.id, piece.off, piece.length)
            for piece in meta.read(ino, index)
            if piece.id
        ]
    return pieces
