"""What is done to whole trees, and what is told about where bytes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fscore.blocks.store import Extent
from fscore.domain.attr import Attr, Flag, Kind
from fscore.domain.errors import NotFound
from fscore.domain.geometry import block_length, by_block, chunk_count
from fscore.domain.keys import block_key
from fscore.domain.slices import SliceRecord
from fscore.files import paths
from fscore.files.stat import ChunkInfo, Info, ObjectRef, Stat
from fscore.meta.service import AttrChange, MetaService
from fscore.runtime.progress import NoProgress, Progress
from fscore.vfs.warm import extents as file_extents


class Tree(Protocol):
    """What walks need of a Filesystem."""

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        """Attributes of a path."""

    def scandir(self, path: str = "/") -> Iterator[Stat]:
        """What a directory holds."""

    def walk(self, path: str = "/") -> Iterator[tuple[str, list[Stat], list[Stat]]]:
        """Directories, top down."""

    def unlink(self, path: str, *, skip_trash: bool = False) -> None:
        """Remove a file."""

    def rmdir(self, path: str, *, skip_trash: bool = False) -> None:
        """Remove a directory."""

    def change(self, ino: int, change: AttrChange) -> Attr:
        """Set attributes."""


def remove(files: Tree, path: str, *, skip_trash: bool, progress: Progress | None) -> int:
    """Remove a path and all below it, deepest first; returns how many entries went."""
    progress = progress or NoProgress()
    task = progress.start(f"remove {path}", None, "entries")
    try:
        return _remove(files, files.stat(path, follow=False), skip_trash=skip_trash, progress=progress, task=task)
    finally:
        progress.finish(task)


def _remove(files: Tree, top: Stat, *, skip_trash: bool, progress: Progress, task: int) -> int:
    removed = 0
    if top.is_dir:
        for stat in list(files.scandir(top.path)):
            try:
                removed += _remove(files, stat, skip_trash=skip_trash, progress=progress, task=task)
            except NotFound:  # somebody else removed it meanwhile
                continue
        files.rmdir(top.path, skip_trash=skip_trash)
    else:
        files.unlink(top.path, skip_trash=skip_trash)
    progress.advance(task, 1)
    return removed + 1


def set_immutable(files: Tree, path: str, *, on: bool, recursive: bool) -> int:
    """Set or clear the flag: children before their directory when setting, after it when clearing."""
    top = files.stat(path, follow=False)
    found = [top]
    if recursive and top.is_dir:
        for _, dirs, others in files.walk(top.path):
            found.extend(dirs)
            found.extend(others)
    changed = 0
    for stat in reversed(found) if on else found:
        flags = stat.attr.flags | Flag.IMMUTABLE if on else stat.attr.flags & ~Flag.IMMUTABLE
        if flags != stat.attr.flags and stat.kind in (Kind.FILE, Kind.DIRECTORY):
            files.change(stat.ino, AttrChange(flags=int(flags)))
            changed += 1
    return changed


def info(meta: MetaService, path: str, ino: int, attr: Attr) -> Info:
    """Inode, chunks, slices and objects of a node."""
    if attr.kind == Kind.SYMLINK:
        return Info(path, ino, attr, [], 0, 0, target=paths.decode(meta.readlink(ino)))
    if attr.kind != Kind.FILE:
        return Info(path, ino, attr, [], 0, 0)
    attr = meta.getattr(ino)
    setting = meta.setting
    chunks = []
    for index in range(chunk_count(attr.length)):
        view = meta.read(ino, index)
        objects = [
            ref
            for piece in view
            if piece.id
            for ref in _objects(piece, setting.block_size, hash_prefix=setting.hash_prefix)
        ]
        chunks.append(ChunkInfo(index, list(meta.records(ino, index)), view, objects))
    slices = {piece.id for chunk in chunks for piece in chunk.view if piece.id}
    keys = {ref.key for chunk in chunks for ref in chunk.objects}
    return Info(path, ino, attr, chunks, len(slices), len(keys))


def regular(files: Tree, tops: Sequence[str]) -> Iterator[Stat]:
    """The regular files among these paths, and below them."""
    for path in tops:
        top = files.stat(path)
        if top.is_file:
            yield top
        else:
            yield from (stat for _, _, others in files.walk(path) for stat in others if stat.is_file)


def extents(meta: MetaService, files: Tree, tops: Sequence[str]) -> Iterator[Extent]:
    """What readers of these paths, and of what lies below them, will ask the blocks for."""
    for stat in regular(files, tops):
        yield from file_extents(meta, stat.ino, stat.attr)


def _objects(piece: SliceRecord, block_size: int, *, hash_prefix: bool) -> list[ObjectRef]:
    found = []
    for index, pos, part in by_block(piece.off, piece.length, block_size):
        size = block_length(piece.size, index, block_size)
        key = block_key(piece.id, index, size, hash_prefix=hash_prefix)
        found.append(ObjectRef(key, size, pos, part))
    return found
