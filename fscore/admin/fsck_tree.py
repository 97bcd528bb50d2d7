"""Checks of the tree: nodes, entries, link counts, parents, loops, symlinks, usage, directory statistics.

Holds a few numbers for each node of the volume, no names and no attributes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fscore.admin.report import Findings
from fscore.domain.attr import Kind, space_of
from fscore.domain.ids import MAX_NAME, ROOT, TRASH, in_trash
from fscore.domain.setting import Setting
from fscore.meta.engine import MetaEngine
from fscore.meta.records import DirStat, want_symlink

BATCH: Final = 1000


class Node(NamedTuple):
    """What is remembered of a node."""

    kind: Kind
    nlink: int
    parent: int
    length: int


class TreeCheck:
    """One pass over nodes and entries; `run` adds to the findings, `nodes` stays for the checks of data."""

    def __init__(self, engine: MetaEngine, setting: Setting, findings: Findings) -> None:
        self._engine = engine
        self._setting = setting
        self._found = findings
        self.nodes: dict[int, Node] = {}
        self.sustained: set[int] = set()
        self.detached: set[int] = set()
        self._links: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._subdirs: defaultdict[int, int] = defaultdict(int)
        self._stats: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])

    def run(self) -> None:
        """Everything there is to check about the tree."""
        self.sustained = {ino for _, ino in self._engine.scan_sustained()}
        self.detached = {ino for ino, _ in self._engine.scan_detached()}
        for ino, attr in self._engine.scan_nodes():
            self.nodes[ino] = Node(attr.kind, attr.nlink, attr.parent, attr.length)
        for parent, name, edge in self._engine.scan_edges():
            self._take_edge(parent, name, edge.kind, edge.ino)
        self._check_roots()
        parents = dict(self._engine.scan_parents())
        for ino, node in self.nodes.items():
            if node.kind == Kind.DIRECTORY:
                self._check_dir(ino, node)
            else:
                self._check_leaf(ino, node, parents.pop(ino, {}))
        for ino in parents:
            self._found.leak("parents", f"inode {ino}", "parents are kept of a node that is not there")
        self._check_loops()
        self._check_symlinks()
        self._check_usage()
        if self._setting.dir_stats:
            self._check_stats()
        for kind in Kind:
            count = sum(node.kind == kind for node in self.nodes.values())
            if count:
                self._found.counts[f"nodes_{kind.name.lower()}"] = count

    def _take_edge(self, parent: int, name: bytes, kind: Kind, ino: int) -> None:
        where = f"{name!r} in inode {parent}"
        self._found.counts["entries"] = self._found.counts.get("entries", 0) + 1
        holder = self.nodes.get(parent)
        if holder is None:
            self._found.problem("orphan_entry", where, "its directory does not exist")
        elif holder.kind != Kind.DIRECTORY:
            self._found.problem("orphan_entry", where, f"it is held by a {holder.kind.name.lower()}")
        if not name or len(name) > MAX_NAME or b"/" in name or b"\0" in name:
            self._found.problem("bad_name", where, "no entry may have this name")
        node = self.nodes.get(ino)
        if node is None:
            self._found.problem("dangling_entry", where, f"inode {ino} does not exist")
            return
        if node.kind != kind:
            self._found.problem("wrong_kind", where, f"says {kind.name}, inode {ino} is {node.kind.name}")
        links = self._links[ino]
        links[parent] = links.get(parent, 0) + 1
        if node.kind == Kind.DIRECTORY:
            self._subdirs[parent] += 1
        stat = self._stats[parent]
        stat[0] += node.length if node.kind == Kind.FILE else 0
        stat[1] += space_of(node.kind, node.length)
        stat[2] += 1

    def _check_roots(self) -> None:
        root = self.nodes.get(ROOT)
        if root is None or root.kind != Kind.DIRECTORY:
            self._found.problem("no_root", "inode 1", "the root directory is missing")
        if self._setting.trash_days > 0 and TRASH not in self.nodes:
            self._found.problem("no_trash", f"inode {TRASH}", "the trash is on and its root is missing")

    def _check_dir(self, ino: int, node: Node) -> None:
        where = f"inode {ino}"
        links = self._links.get(ino, {})
        if not in_trash(ino):
            expected = 2 + self._subdirs.get(ino, 0)
            if node.nlink != expected:
                self._found.problem("nlink", where, f"is {node.nlink}, a directory with these entries has {expected}")
        if ino in (ROOT, TRASH):
            if links:
                self._found.problem("loop", where, "a root is listed in a directory")
            return
        if ino in self.detached:
            self._found.leak("detached", where, "a tree that was being cloned and is linked nowhere")
            return
        if sum(links.values()) != 1:
            kind = "orphan_node" if not links else "two_parents"
            self._found.problem(kind, where, f"a directory listed {sum(links.values())} times")
        elif node.parent not in links:
            self._found.problem("parent", where, f"says {node.parent}, is listed in {next(iter(links))}")

    def _check_leaf(self, ino: int, node: Node, parents: dict[int, int]) -> None:
        where = f"inode {ino}"
        links = self._links.get(ino, {})
        total = sum(links.values())
        if total == 0:
            if ino in self.sustained:
                self._found.counts["sustained"] = self._found.counts.get("sustained", 0) + 1
                if node.nlink:
                    self._found.problem("nlink", where, f"is {node.nlink} of a deleted file that is kept open")
            elif ino in self.detached:
                self._found.leak("detached", where, "a clone that is linked nowhere")
            else:
                self._found.problem("orphan_node", where, "no directory lists it")
            return
        if node.nlink != total:
            self._found.problem("nlink", where, f"is {node.nlink}, {total} entries lead to it")
        if node.parent:
            if list(links) != [node.parent]:
                self._found.problem("parent", where, f"says {node.parent}, is listed in {sorted(links)}")
        elif {parent: count for parent, count in parents.items() if count > 0} != links:
            self._found.problem("parents", where, f"are kept as {parents}, entries say {links}")

    def _check_loops(self) -> None:
        """Every directory leads up to a root."""
        safe = {int(ROOT), int(TRASH), *self.detached}
        for ino, node in self.nodes.items():
            if node.kind != Kind.DIRECTORY:
                continue
            trail = []
            here = ino
            while here not in safe and here in self.nodes:
                trail.append(here)
                if len(trail) > len(self.nodes):
                    self._found.problem("loop", f"inode {ino}", "its parents never reach the root")
                    break
                here = self.nodes[here].parent
            safe.update(trail)

    def _check_symlinks(self) -> None:
        inos = [ino for ino, node in self.nodes.items() if node.kind == Kind.SYMLINK]
        for batch in _batches(inos):
            with self._engine.view() as view:
                view.prefetch(*(want_symlink(ino) for ino in batch))
                for ino in batch:
                    target = view.symlink(ino)
                    if target is None or len(target) != self.nodes[ino].length:
                        self._found.problem("symlink", f"inode {ino}", f"its target is {target!r}")

    def _check_usage(self) -> None:
        """One charge an inode, the roots free (volume-format.md 2.5)."""
        charged = [node for ino, node in self.nodes.items() if ino not in (ROOT, TRASH)]
        space = sum(space_of(node.kind, node.length) for node in charged)
        with self._engine.view() as view:
            usage = view.usage()
        if usage.space == space and usage.inodes == len(charged):
            return
        detail = f"says {usage.space} bytes and {usage.inodes} inodes, the nodes add up to {space} and {len(charged)}"
        if lazy_usage(self._engine):
            self._found.leak("usage", "counters", detail)
        else:
            self._found.problem("usage", "counters", detail)

    def _check_stats(self) -> None:
        stored = dict(self._engine.scan_dir_stats())
        for ino, node in self.nodes.items():
            if node.kind != Kind.DIRECTORY or ino == TRASH:
                continue
            stat = stored.pop(ino, None)
            where = f"inode {ino}"
            if stat is None:
                if ino == ROOT or in_trash(ino) or in_trash(node.parent):  # rmdir into the trash drops them
                    self._found.note("dir_stat", where, "has no statistics")
                else:
                    self._found.problem("dir_stat", where, "has no statistics")
                continue
            expected = DirStat(*self._stats.get(ino, (0, 0, 0)))
            if min(stat) < 0:
                self._found.problem("dir_stat", where, f"is negative: {tuple(stat)}")
            elif stat != expected:
                self._found.note("dir_stat", where, f"is {tuple(stat)}, its entries add up to {tuple(expected)}")
        for ino in stored:
            self._found.note("dir_stat", f"inode {ino}", "statistics of a directory that is not there")


def lazy_usage(engine: MetaEngine) -> bool:
    """Whether the engine adds up usage once a second, so that a crash loses the last second (volume-format.md 3.3)."""
    return engine.name not in ("redis", "rediss", "unix", "memory")


def _batches(items: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
