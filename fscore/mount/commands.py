"""What a message to `.control` asks for, done by inode on the mounted volume, as the caller who asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from fscore.blocks.store import BlockStore, Extent
from fscore.domain.attr import Attr, Entry, Kind, align4k, space_of
from fscore.domain.caller import Caller
from fscore.domain.errors import FsError, Invalid, NotFound, NotPermitted
from fscore.domain.geometry import block_length, by_block, chunk_count
from fscore.domain.ids import ROOT
from fscore.domain.keys import block_key
from fscore.domain.slices import SliceRecord
from fscore.meta.ops.change import parents_of
from fscore.meta.service import MetaService
from fscore.runtime.progress import NoProgress
from fscore.runtime.threads import Pool
from fscore.vfs.vfs import Vfs

Count = Callable[[int, int], None]
"""Told as a command goes on: entries (or chunks), and bytes."""
Document = dict[str, Any]

_SUPER: Final = Caller.root()
_DEEP: Final = 4096
"""Directories above a node that are looked for before its path counts as unknown."""


class Commands:
    """The commands of one mount. `root` is the inode that the mount shows as its root, 1 in messages."""

    def __init__(self, vfs: Vfs, forget: Callable[[int, bytes], None], root: int = ROOT) -> None:
        self._vfs = vfs
        self._meta: MetaService = vfs.meta
        self._blocks: BlockStore = vfs.blocks
        self._forget = forget
        self._root = root

    def remove(self, who: Caller, parent: int, name: bytes, count: Count, *, skip_trash: bool, threads: int) -> None:
        """Remove an entry with all below it, deepest first. Only uid 0 may skip the trash."""
        if skip_trash and not who.is_root:
            raise NotPermitted("only root removes past the trash")
        above = self._ino(parent)
        ino, attr = self._meta.lookup(who, above, name)
        top = Entry(name, ino, attr.kind)
        with Pool("rmr", max(1, min(threads, 32))) as pool:
            self._remove(who, above, top, count, pool, skip_trash=skip_trash)
        self._forget(parent, name)

    def clone(self, who: Caller, source: int, parent: int, name: bytes, *, umask: int, preserve: bool) -> None:
        """Clone a node as `name` in `parent`; what this process has written to it is part of it."""
        self._vfs.sync()
        who = msgspec.structs.replace(who, umask=umask)
        self._meta.clone(who, self._ino(source), self._ino(parent), name, preserve=preserve)
        self._forget(parent, name)

    def info(self, who: Caller, ino: int, count: Count, *, recursive: bool, raw: bool) -> Document:
        """What lies at and below a node, its paths, and where the bytes of a file are: slices if `raw`, or objects."""
        ino = self._ino(ino)
        attr = self._meta.getattr(ino, fresh=True)
        self._vfs.settle(ino)
        tiers = self._meta.setting.tiers or {}
        document = self.no_info(ino, "") | {
            "Failed": False,
            "Summary": self._totals(who, ino, attr, count, recursive=recursive),
            "Paths": self.paths(ino),
            "Tier": tiers.get(str(attr.tier), {"ID": attr.tier, "StorageClass": "unknown", "Tag": ""}),
        }
        if attr.is_file:
            places = list(self._slices(ino, attr.length)) if raw else list(self._objects(ino, attr.length))
            document["Chunks" if raw else "Objects"] = places
        return document

    @staticmethod
    def no_info(ino: int, reason: str) -> Document:
        """What `info` answers when there is nothing to tell."""
        nothing = {"Length": 0, "Size": 0, "Files": 0, "Dirs": 0}
        empty: Document = dict.fromkeys(("Paths", "Chunks", "Objects", "PLocks", "FLocks"))
        return {"Ino": ino, "Failed": True, "Reason": reason, "Summary": nothing, "RestoreStatus": ""} | empty

    def info_text(self, who: Caller, ino: int, *, recursive: bool, raw: bool) -> bytes:
        """As `info`, as the text that clients before 1.1 print."""
        found = self.info(who, ino, lambda _entries, _bytes: None, recursive=recursive, raw=raw)
        total = found["Summary"]
        lines = [f"  inode: {found['Ino']}", f"  files: {total['Files']}", f"   dirs: {total['Dirs']}"]
        lines += [f" length: {total['Length']} Bytes", f"   size: {total['Size']} Bytes"]
        lines += [f"   path: {path}" for path in found["Paths"] or ["unknown"]]
        if found["Chunks"] is not None or found["Objects"] is not None:
            lines.append(" chunks:" if raw else "objects:")
        for part in found["Chunks"] or ():
            lines.append(f"\t{part['ChunkIndex']}:\t{part['Id']}\t{part['Size']}\t{part['Off']}\t{part['Len']}")
        for part in found["Objects"] or ():
            lines.append(f"\t{part['ChunkIndex']}:\t{part['Key']}\t{part['Size']}\t{part['Off']}\t{part['Len']}")
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def summary(self, who: Caller, ino: int, depth: int, top: int, count: Count) -> Document:
        """Totals of a tree and, `depth` levels down, of its `top` largest children; the others are one entry."""
        ino = self._ino(ino)
        attr = self._meta.getattr(ino, fresh=True)
        return self._tree(who, Entry(b"", ino, attr.kind, attr), "", depth, top, count)

    @staticmethod
    def no_summary(ino: int) -> Document:
        """What `summary` answers when there is nothing to tell."""
        return {"Inode": ino, "Path": "", "Type": int(Kind.DIRECTORY), "Size": 0, "Files": 0, "Dirs": 0}

    def cache(
        self, who: Caller, paths: Sequence[bytes], action: Literal["warm", "evict", "check"], count: Count
    ) -> Document:
        """Bring the blocks under paths (from the mount's root, or `inode:N`) into the cache, drop or count them."""
        report: Document = {"FileCount": 0, "SliceCount": 0, "TotalBytes": 0, "MissBytes": 0, "Locations": {}}
        if action == "warm":
            self._vfs.sync()
        cached = 0
        for path in paths:
            for ino, length in self._files(who, *self._resolve(who, path)):
                found = list(self._extents(ino, length))
                size = sum(part for _, _, _, part in found)
                if action == "warm":
                    report["MissBytes"] += self._vfs.warm([ino], _Beat(count)).failed
                elif action == "evict":
                    self._blocks.evict(found)
                else:
                    cached += min(size, self._blocks.cached_bytes(found))
                report["FileCount"] += 1
                report["SliceCount"] += len(found)
                report["TotalBytes"] += size
                count(1, size)
        if action == "check":
            report |= {"MissBytes": report["TotalBytes"] - cached, "Locations": {"fscore": cached} if cached else {}}
        return report

    def sync(self) -> None:
        """Commit everything that programs have written."""
        self._vfs.sync()

    def compact(self, who: Caller, ino: int, count: Count) -> None:
        """Rewrite chunks of many slices, of a file or of all files below a directory."""
        ino = self._ino(ino)
        attr = self._meta.getattr(ino, fresh=True)
        for file, length in self._files(who, ino, attr):
            self._vfs.settle(file)
            for index in range(chunk_count(length)):
                self._vfs.compact(file, index)
                count(1, 1)

    def paths(self, ino: int) -> list[str]:
        """Every path of a node from the root of the volume; none of one that has no name any more."""
        if ino == ROOT:
            return ["/"]
        try:
            found = [above + b"/" + name for parent, name in self._names(ino) for above in self._above(parent)]
        except FsError:  # it, or a directory above it, went meanwhile
            return []
        return sorted(path.decode("utf-8", "replace") for path in found)

    def _ino(self, ino: int) -> int:
        return self._root if ino == ROOT else ino

    def _remove(self, who: Caller, above: int, top: Entry, count: Count, pool: Pool, *, skip_trash: bool) -> None:
        """Children before their directory, without recursion: trees may be deeper than Python's stack."""
        pending: list[tuple[int, Entry, bool]] = [(above, top, False)]
        while pending:
            parent, entry, emptied = pending.pop()
            if entry.kind == Kind.DIRECTORY and not emptied:
                pending.append((parent, entry, True))
                children = list(self._meta.readdir(who, entry.ino, attrs=False))
                pending += [(entry.ino, child, False) for child in children if child.kind == Kind.DIRECTORY]
                files = [child.name for child in children if child.kind != Kind.DIRECTORY]
                for gone in pool.map_bounded(self._unlinker(who, entry.ino, skip_trash=skip_trash), files):
                    count(gone, 0)
            elif entry.kind == Kind.DIRECTORY:
                self._meta.rmdir(who, parent, entry.name, skip_trash=skip_trash)
                count(1, 0)
            else:
                self._meta.unlink(who, parent, entry.name, skip_trash=skip_trash)
                count(1, 0)

    def _unlinker(self, who: Caller, parent: int, *, skip_trash: bool) -> Callable[[bytes], int]:
        def unlink(name: bytes) -> int:
            try:
                self._meta.unlink(who, parent, name, skip_trash=skip_trash)
            except NotFound:  # somebody else was faster
                return 0
            return 1

        return unlink

    def _totals(self, who: Caller, ino: int, attr: Attr, count: Count, *, recursive: bool) -> Document:
        if not attr.is_dir:
            size = attr.length if attr.is_file else 0
            return {"Length": size, "Size": space_of(attr.kind, size), "Files": 1, "Dirs": 0}
        length, space, files, dirs = 0, space_of(attr.kind, 0), 0, 1
        for entry in self._below(who, ino) if recursive else self._meta.readdir(who, ino):
            size = entry.attr.length if entry.attr is not None and entry.kind == Kind.FILE else 0
            charged = space_of(entry.kind, size)
            length, space = length + size, space + charged
            files, dirs = files + (entry.kind != Kind.DIRECTORY), dirs + (entry.kind == Kind.DIRECTORY)
            count(1, charged)
        return {"Length": length, "Size": space, "Files": files, "Dirs": dirs}

    def _tree(self, who: Caller, at: Entry, path: str, depth: int, top: int, count: Count) -> Document:
        size = align4k(at.attr.length) if at.attr is not None and at.kind == Kind.FILE else 4096
        count(1, size)
        node = {"Inode": at.ino, "Path": path, "Type": int(at.kind), "Size": size, "Files": 1, "Dirs": 0}
        if at.kind != Kind.DIRECTORY:
            return node
        if depth <= 0:
            below = self._totals(who, at.ino, at.attr or self._meta.getattr(at.ino), count, recursive=True)
            return node | {total: below[total] for total in ("Size", "Files", "Dirs")}
        node |= {"Files": 0, "Dirs": 1}
        children = []
        for entry in self._meta.readdir(who, at.ino):
            name = entry.name.decode("utf-8", "replace")
            child = self._tree(who, entry, f"{path}/{name}" if path else name, depth - 1, top, count)
            for total in ("Size", "Files", "Dirs"):
                node[total] += child[total]
            children.append(child)
        if children:
            node["Children"] = _largest(children, top, path)
        return node

    def _below(self, who: Caller, ino: int) -> Iterator[Entry]:
        pending = [ino]
        while pending:
            for entry in self._meta.readdir(who, pending.pop()):
                if entry.kind == Kind.DIRECTORY:
                    pending.append(entry.ino)
                yield entry

    def _files(self, who: Caller, ino: int, attr: Attr) -> Iterator[tuple[int, int]]:
        """(inode, length) of a file, or of every file below a directory."""
        if attr.is_file:
            yield ino, attr.length
        if attr.is_dir:
            for entry in self._below(who, ino):
                if entry.kind == Kind.FILE and entry.attr is not None:
                    yield entry.ino, entry.attr.length

    def _resolve(self, who: Caller, path: bytes) -> tuple[int, Attr]:
        prefix, _, number = path.partition(b":")
        if prefix == b"inode" and number.isdigit():
            ino = self._ino(int(number))
            return ino, self._meta.getattr(ino)
        if b"\0" in path:
            raise Invalid("a path with a zero byte")
        return self._meta.resolve(who, path.strip(b"/"), parent=self._root)

    def _pieces(self, ino: int, length: int) -> Iterator[tuple[int, SliceRecord]]:
        for index in range(chunk_count(length)):
            for piece in self._meta.read(ino, index):
                yield index, piece

    def _extents(self, ino: int, length: int) -> Iterator[Extent]:
        for _, piece in self._pieces(ino, length):
            if piece.id:
                yield piece.id, piece.size, piece.off, piece.length

    def _slices(self, ino: int, length: int) -> Iterator[Document]:
        for index, piece in self._pieces(ino, length):
            yield {
                "ChunkIndex": index,
                "Id": piece.id,
                "Size": piece.size or piece.length,
                "Off": piece.off,
                "Len": piece.length,
            }

    def _objects(self, ino: int, length: int) -> Iterator[Document]:
        setting = self._meta.setting
        for index, piece in self._pieces(ino, length):
            if not piece.id:
                yield {"ChunkIndex": index, "Key": "", "Size": piece.length, "Off": piece.off, "Len": piece.length}
                continue
            for block, pos, part in by_block(piece.off, piece.length, setting.block_size):
                size = block_length(piece.size, block, setting.block_size)
                key = f"{setting.name}/{block_key(piece.id, block, size, hash_prefix=setting.hash_prefix)}"
                yield {"ChunkIndex": index, "Key": key, "Size": size, "Off": pos, "Len": part}

    def _above(self, ino: int) -> list[bytes]:
        """The path of a directory, in a list; an empty list when it cannot be reached from the root."""
        names: list[bytes] = []
        while ino != ROOT:
            place = next(self._names(ino), None)
            if place is None or len(names) > _DEEP:
                return []
            ino, name = place
            names.append(b"/" + name)
        return [b"".join(reversed(names))]

    def _names(self, ino: int) -> Iterator[tuple[int, bytes]]:
        """(directory, name) of every entry of a node."""
        attr = self._meta.getattr(ino)
        with self._meta.engine.view() as view:
            above = parents_of(view, ino, attr)
        for parent in above:
            for entry in self._meta.readdir(_SUPER, parent, attrs=False):
                if entry.ino == ino:
                    yield parent, entry.name


class _Beat(NoProgress):
    """Lets a count that says to stop be heard between the blocks of one large file."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def advance(self, task: int, n: int) -> None:
        """Counts nothing: a file counts when it is whole."""
        del task, n
        self._count(0, 0)


def _largest(children: list[Document], top: int, path: str) -> list[Document]:
    """The `top` largest, and the rest as one entry called `...`, as `juicefs summary` shows it."""
    children.sort(key=lambda child: (-child["Size"], child["Path"]))
    kept, rest = children[:top], children[top:]
    if rest:
        joined = {total: sum(child[total] for child in rest) for total in ("Size", "Files", "Dirs")}
        kept.append({"Inode": 0, "Path": f"{path}/..." if path else "...", "Type": int(Kind.FILE)} | joined)
    return kept
