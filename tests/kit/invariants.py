"""What must hold in a volume's records whatever was done to it. An auditor of its own: shares no code with fsck."""

from __future__ import annotations

from collections import Counter, defaultdict

from fscore.domain.attr import Attr, Kind, space_of
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT, TRASH
from fscore.domain.slices import SliceRecord, overlay
from fscore.meta.engine import MetaEngine
from fscore.meta.records import Edge


def check_engine(engine: MetaEngine, *, stats: bool = True) -> list[str]:
    """Every rule that the volume breaks, in words; empty when it is sound. Flush the service before."""
    return Audit(engine).run(stats=stats)


class Audit:
    """One look at all records of a volume nobody is changing."""

    def __init__(self, engine: MetaEngine) -> None:
        self.engine = engine
        self.nodes: dict[int, Attr] = dict(engine.scan_nodes())
        self.edges: list[tuple[int, bytes, Edge]] = list(engine.scan_edges())
        self.chunks: list[tuple[int, int, tuple[SliceRecord, ...]]] = list(engine.scan_chunks())
        self.into: dict[int, Counter[int]] = defaultdict(Counter)
        for parent, _, edge in self.edges:
            self.into[edge.ino][parent] += 1
        self.sustained = {ino for _, ino in engine.scan_sustained()}
        self.detached = {ino for ino, _ in engine.scan_detached()}
        self.problems: list[str] = []

    def run(self, *, stats: bool) -> list[str]:
        """All checks."""
        self._edges()
        self._links()
        self._reach()
        self._usage()
        self._records()
        self._references()
        self._rules()
        self._counters()
        if stats:
            self._stats()
        return self.problems

    def _say(self, text: str) -> None:
        self.problems.append(text)

    def _edges(self) -> None:
        names = Counter((parent, name) for parent, name, _ in self.edges)
        self.problems += [f"entry {key} exists {count} times" for key, count in names.items() if count > 1]
        for parent, name, edge in self.edges:
            node = self.nodes.get(edge.ino)
            if node is None:
                self._say(f"entry {name!r} of {parent} names inode {edge.ino}, which is missing")
            elif node.kind != edge.kind:
                self._say(f"entry {name!r} of {parent} says {edge.kind}, inode {edge.ino} is {node.kind}")
            above = self.nodes.get(parent)
            if above is None or above.kind != Kind.DIRECTORY:
                self._say(f"entry {name!r} lies in {parent}, which is no directory")

    def _links(self) -> None:
        subdirs = Counter(parent for parent, _, edge in self.edges if edge.kind == Kind.DIRECTORY)
        hard = dict(self.engine.scan_parents())
        self.problems += [f"parents of inode {ino}, which is missing" for ino in hard if ino not in self.nodes]
        for ino, node in self.nodes.items():
            if ino in {ROOT, TRASH}:
                continue
            into = self.into.get(ino, Counter())
            if node.kind == Kind.DIRECTORY:
                self._directory(ino, node, into, subdirs[ino])
                continue
            if node.nlink != into.total():
                self._say(f"inode {ino} counts {node.nlink} links and has {into.total()} entries")
            if node.nlink == 0 and ino not in self.sustained:
                self._say(f"inode {ino} has no link and nobody holds it")
            if node.parent > 0 and node.nlink and dict(into) != {node.parent: 1}:
                self._say(f"inode {ino} says its parent is {node.parent}, entries are in {dict(into)}")
            if node.parent == 0 and dict(into) != hard.get(ino, {}):
                self._say(f"inode {ino} has parents {hard.get(ino, {})}, entries are in {dict(into)}")

    def _directory(self, ino: int, node: Attr, into: Counter[int], subdirs: int) -> None:
        if ino in self.detached:
            return
        if dict(into) != {node.parent: 1}:
            self._say(f"directory {ino} says its parent is {node.parent}, entries are in {dict(into)}")
        if ino < TRASH and node.nlink != 2 + subdirs:
            self._say(f"directory {ino} counts {node.nlink} links and has {subdirs} subdirectories")
        if node.length != 4096:
            self._say(f"directory {ino} has length {node.length}")

    def _reach(self) -> None:
        children: dict[int, list[int]] = defaultdict(list)
        for parent, _, edge in self.edges:
            children[parent].append(edge.ino)
        seen: set[int] = set()
        pending: list[int] = [ROOT, TRASH, *self.detached, *self.sustained]
        while pending:
            ino = pending.pop()
            if ino not in seen:
                seen.add(ino)
                pending += children[ino]
        self.problems += [f"inode {ino} cannot be reached" for ino in sorted(set(self.nodes) - seen)]
        with self.engine.view() as view:
            for ino, node in self.nodes.items():
                if node.kind == Kind.SYMLINK and len(view.symlink(ino) or b"") != node.length:
                    self._say(f"link {ino} has no target of {node.length} bytes")

    def _usage(self) -> None:
        charged = [node for ino, node in self.nodes.items() if ino not in {ROOT, TRASH}]
        space = sum(space_of(node.kind, node.length) for node in charged)
        with self.engine.view() as view:
            usage = view.usage()
        if usage != (space, len(charged)):
            self._say(f"usage says {tuple(usage)}, nodes say {(space, len(charged))}")

    def _records(self) -> None:
        doomed = {ino for ino, _ in self.engine.scan_delfiles()}
        sizes: dict[int, int] = {}
        for ino, index, records in self.chunks:
            node = self.nodes.get(ino)
            if node is None and ino not in doomed:
                self._say(f"chunk {index} of inode {ino}, which is missing")
            for record in records:
                inside = record.id == 0 or record.off + record.length <= record.size <= CHUNK
                if record.length <= 0 or record.end > CHUNK or not inside:
                    self._say(f"inode {ino} chunk {index}: impossible {record}")
                if record.id and sizes.setdefault(record.id, record.size) != record.size:
                    self._say(f"slice {record.id} has sizes {sizes[record.id]} and {record.size}")
            if node is None:
                continue
            past = [piece for piece in overlay(records) if piece.id and index * CHUNK + piece.end > node.length]
            if past:
                self._say(f"inode {ino} of {node.length} bytes has data past its end: {past}")

    def _references(self) -> None:
        counted: Counter[tuple[int, int]] = Counter()
        for _, _, records in self.chunks:
            counted.update((record.id, record.size) for record in records if record.id)
        counted.update(self.engine.scan_delayed())
        stored = {(slice_id, size): refs for slice_id, size, refs in self.engine.scan_refs()}
        for key, refs in stored.items():
            if max(refs, 0) != counted[key]:
                self._say(f"slice {key} has {refs} references and {counted[key]} records")
        for key, count in counted.items():
            if key not in stored and count != 1:
                self._say(f"slice {key} has {count} records and no stored references")

    def _rules(self) -> None:
        stored = self.engine.acls()
        for ino, node in self.nodes.items():
            missing = {node.access_acl, node.default_acl} - {0, *stored}
            if missing:
                self._say(f"inode {ino} refers to ACL rules {sorted(missing)}, which are not stored")

    def _counters(self) -> None:
        counters = self.engine.counters()
        highest = max((ino for ino in self.nodes if ino < TRASH), default=1)
        if highest > 1 and counters.get("nextInode", 0) <= highest:
            self._say(f"next inode is {counters.get('nextInode')}, {highest} is in use")
        slices = max((record.id for _, _, records in self.chunks for record in records), default=0)
        if slices and counters.get("nextChunk", 0) <= slices:
            self._say(f"next slice is {counters.get('nextChunk')}, {slices} is in use")

    def _stats(self) -> None:
        counted: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        for parent, _, edge in self.edges:
            node = self.nodes.get(edge.ino)
            size = node.length if node is not None and edge.kind == Kind.FILE else 0
            for place, more in enumerate((size, space_of(edge.kind, size), 1)):
                counted[parent][place] += more
        for ino, stat in self.engine.scan_dir_stats():
            if ino not in self.nodes:
                self._say(f"statistics of directory {ino}, which is missing")
            elif list(stat) != counted[ino]:
                self._say(f"directory {ino} has statistics {tuple(stat)}, entries say {tuple(counted[ino])}")
