"""Histories of operations on the metadata service against the obvious model, on every engine.

An outcome is a value or the class of an error. Two forms: one client that trusts its cache for ever (the clock stands
still, so only its own changes may correct it), and two clients without cache on one volume.
"""

from __future__ import annotations

import itertools
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fscore.domain.attr import Kind
from fscore.domain.errors import FsError
from fscore.domain.geometry import CHUNK, by_chunk
from fscore.domain.ids import TRASH
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.registry import open_engine
from fscore.meta.service import AttrChange, Hole, MetaService, RenameFlag, SliceRange
from fscore.runtime.clock import FakeClock
from tests.kit.engines import META_ENGINES, REDIS_GROUPS, SQL_SERVERS, fresh_urls
from tests.kit.invariants import check_engine
from tests.kit.tree import SUPER
from tests.kit.tree_model import ROOT, Node, Pieces, TreeModel, glue

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff"])
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 5000, CHUNK - 10, CHUNK, CHUNK + 5, 2 * CHUNK + 7, 6 * CHUNK])
LENGTHS = st.sampled_from([1, 10, 4096, 5000, CHUNK, CHUNK + 11])
PICK = st.integers(0, 1 << 16)


class Histories(RuleBasedStateMachine):
    """Subclasses say where: `url` and `finish`."""

    clients = 1
    trash = False
    make_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.model = TreeModel(trash=self.trash)
        self.clock = FakeClock()
        self.url = type(self).make_url()
        engine = open_engine(self.url)
        setting = Setting(name="histories", uuid=str(uuid.UUID(int=7)), trash_days=int(self.trash))
        MetaService.format(engine, setting, self.clock)
        cache_s = 1e9 if self.clients == 1 else 0.0
        engines = [engine, *(open_engine(self.url) for _ in range(self.clients - 1))]
        self.services = [MetaService.open(each, self.clock, background=False, cache_s=cache_s) for each in engines]
        self.turn = 0
        self.files: list[int] = []
        self.folders: list[int] = [ROOT]
        self.handles: list[tuple[MetaService, int]] = []

    @property
    def meta(self) -> MetaService:
        self.turn += 1
        self.clock.advance(0.05)
        acting = self.turn % len(self.services)
        self.model.holder_acts = acting == 0
        return self.services[acting]

    def folder(self, pick: int) -> int:
        return self.folders[pick % len(self.folders)]

    def file(self, pick: int) -> int:
        return self.files[pick % len(self.files)]

    def any(self, pick: int) -> int:
        everything = self.folders[1:] + self.files
        return everything[pick % len(everything)] if everything else 999_999

    def same(self, real: Callable[[], Any], expected: Callable[[], Any]) -> Any:
        """Both answer alike; returns the real value, or None after an error."""
        try:
            value, error = real(), None
        except FsError as raised:
            value, error = None, raised
        try:
            wanted: type[FsError] | None = None
            expected()
        except FsError as raised:
            wanted = type(raised)
        assert (type(error) if error else None) is wanted, f"{error!r} instead of {wanted}"
        return value

    @initialize()
    def plant(self) -> None:
        """A file and a directory to begin with."""
        self._create(self.services[0], ROOT, b"a", Kind.FILE)
        self._create(self.services[0], ROOT, b"b", Kind.DIRECTORY)

    def _create(self, meta: MetaService, parent: int, name: bytes, kind: Kind) -> None:
        def real() -> int:
            return meta.mknod(SUPER, parent, name, kind, 0o755, target=b"t" if kind == Kind.SYMLINK else b"")[0]

        born: list[int] = []
        self.same(lambda: born.append(real()), lambda: self.model.check_place(parent, name))
        if born:
            self.model.create(parent, name, born[0], kind, b"t")
            (self.folders if kind == Kind.DIRECTORY else self.files).append(born[0])

    @rule(pick=PICK, name=NAMES, kind=st.sampled_from([Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO]))
    def create(self, pick: int, name: bytes, kind: Kind) -> None:
        self._create(self.meta, self.folder(pick), name, kind)

    @rule(pick=PICK, name=NAMES)
    def unlink(self, pick: int, name: bytes) -> None:
        parent, meta = self.folder(pick), self.meta
        self.same(lambda: meta.unlink(SUPER, parent, name), lambda: self.model.unlink(parent, name))

    @rule(pick=PICK, name=NAMES)
    def rmdir(self, pick: int, name: bytes) -> None:
        parent, meta = self.folder(pick), self.meta
        self.same(lambda: meta.rmdir(SUPER, parent, name), lambda: self.model.rmdir(parent, name))

    @rule(
        source=st.tuples(PICK, NAMES),
        goal=st.tuples(PICK, NAMES),
        flags=st.sampled_from([RenameFlag.NONE, RenameFlag.NONE, RenameFlag.NO_REPLACE, RenameFlag.EXCHANGE]),
    )
    def rename(self, source: tuple[int, bytes], goal: tuple[int, bytes], flags: RenameFlag) -> None:
        here, there = (self.folder(source[0]), source[1]), (self.folder(goal[0]), goal[1])
        meta = self.meta
        self.same(
            lambda: meta.rename(SUPER, *here, *there, flags=flags),
            lambda: self.model.rename(
                here, there, replace=flags != RenameFlag.NO_REPLACE, exchange=flags == RenameFlag.EXCHANGE
            ),
        )

    @precondition(lambda self: self.files)
    @rule(file=PICK, pick=PICK, name=NAMES)
    def link(self, file: int, pick: int, name: bytes) -> None:
        ino, parent, meta = self.file(file), self.folder(pick), self.meta
        self.same(lambda: meta.link(SUPER, ino, parent, name), lambda: self.model.link(ino, parent, name))

    @precondition(lambda self: self.files)
    @rule(file=PICK, offset=OFFSETS, length=LENGTHS)
    def write(self, file: int, offset: int, length: int) -> None:
        ino, meta = self.file(file), self.meta
        for index, pos, part in by_chunk(offset, length):
            slice_id = meta.new_slice_id()
            record = SliceRecord(pos, slice_id, part, 0, part)
            start = index * CHUNK + pos
            self.same(
                lambda: meta.write(ino, index, [record], 5, new_length=start + part),  # noqa: B023 - called at once
                lambda: self.model.write(ino, start, part, [(start, start + part, slice_id, 0)]),  # noqa: B023
            )

    @precondition(lambda self: self.files)
    @rule(file=PICK, length=OFFSETS)
    def truncate(self, file: int, length: int) -> None:
        ino, meta = self.file(file), self.meta
        self.same(lambda: meta.truncate(SUPER, ino, length), lambda: self.model.truncate(ino, length))

    @precondition(lambda self: self.files)
    @rule(source=PICK, start=OFFSETS, file=PICK, offset=OFFSETS, length=LENGTHS)
    def copy(self, source: int, start: int, file: int, offset: int, length: int) -> None:
        origin, ino, meta = self.file(source), self.file(file), self.meta
        counts: list[int] = []
        moved = self.same(
            lambda: meta.copy_file_range(SUPER, origin, start, ino, offset, length),
            lambda: counts.append(self.model.copy(origin, start, ino, offset, length)),
        )
        assert moved is None or moved == counts[0]

    @precondition(lambda self: self.files)
    @rule(
        file=PICK,
        offset=OFFSETS,
        parts=st.lists(st.tuples(st.one_of(st.none(), PICK), OFFSETS, LENGTHS), min_size=1, max_size=4),
    )
    def compose(self, file: int, offset: int, parts: list[tuple[int | None, int, int]]) -> None:
        ino, meta = self.file(file), self.meta
        ranges = [(0 if pick is None else self.file(pick), start, length) for pick, start, length in parts]
        if any(source == ino for source, _, _ in ranges):
            return
        pieces = [SliceRange(*part) if part[0] else Hole(part[2]) for part in ranges]
        self.same(lambda: meta.compose(SUPER, ino, offset, pieces), lambda: self.model.compose(ino, offset, ranges))

    @rule(pick=PICK, name=st.sampled_from([b"user.a", b"user.b"]), mode=st.sampled_from(["set", "create", "replace"]))
    def setxattr(self, pick: int, name: bytes, mode: Any) -> None:
        ino, meta, value = self.any(pick), self.meta, b"%d" % pick
        self.same(
            lambda: meta.setxattr(SUPER, ino, name, value, mode=mode),
            lambda: self.model.setxattr(ino, name, value, mode),
        )

    @rule(pick=PICK, name=st.sampled_from([b"user.a", b"user.b"]))
    def removexattr(self, pick: int, name: bytes) -> None:
        ino, meta = self.any(pick), self.meta
        self.same(lambda: meta.removexattr(SUPER, ino, name), lambda: self.model.removexattr(ino, name))

    @rule(pick=PICK, flags=st.sampled_from([0, 0, 1, 2]))
    def setflags(self, pick: int, flags: int) -> None:
        ino, meta = self.any(pick), self.meta
        change = AttrChange(flags=flags)
        self.same(lambda: meta.setattr(SUPER, ino, change), lambda: self.model.setflags(ino, flags))

    @precondition(lambda self: self.files)
    @rule(file=PICK, write=st.booleans())
    def open(self, file: int, *, write: bool) -> None:
        """Only the first client holds files open."""
        ino, meta = self.file(file), self.services[0]
        opened = self.same(lambda: meta.open_file(SUPER, ino, write=write), lambda: self.model.open(ino, write=write))
        if opened is not None:
            self.handles.append((meta, ino))

    @precondition(lambda self: self.handles)
    @rule(pick=PICK)
    def close(self, pick: int) -> None:
        meta, ino = self.handles.pop(pick % len(self.handles))
        meta.close_file(ino)
        self.model.close(ino)

    @rule(source=PICK, pick=PICK, name=NAMES)
    def clone(self, source: int, pick: int, name: bytes) -> None:
        origin, parent, meta = self.any(source), self.folder(pick), self.meta
        made = self.same(
            lambda: meta.clone(SUPER, origin, parent, name), lambda: self.model.clone(origin, parent, name)
        )
        if made is not None:
            planted = self._graft(meta, origin, made[0], parent)
            self.model.nodes[parent].entries[name] = made[0]
            self.model.nodes[parent].nlink += planted.is_dir

    def _graft(self, meta: MetaService, source: int, ino: int, parent: int) -> Node:
        """Take a clone into the model: what the model says of the source, with the new numbers."""
        old = self.model.nodes[source]
        new = Node(old.kind, parent, 2 if old.is_dir else 1, target=old.target, length=old.length)
        new.pieces, new.xattrs = list(old.pieces), dict(old.xattrs)
        made = {entry.name: entry.ino for entry in meta.readdir(SUPER, ino)} if old.is_dir else {}
        assert set(made) == set(old.entries) or ino in old.entries.values()
        for name, child in made.items():
            new.entries[name] = child
            new.nlink += self._graft(meta, old.entries[name], child, ino).is_dir
        self.model.nodes[ino] = new
        (self.folders if old.is_dir else self.files).append(ino)
        return new

    @precondition(lambda self: self.turn % 7 == 0)
    @rule()
    def collect(self) -> None:
        meta = self.meta
        meta.purge_deleted()
        meta.forget(meta.dead())

    @rule(pick=PICK)
    def look(self, pick: int) -> None:
        """A node from both sides."""
        self._compare(self.meta, self.any(pick))

    def _compare(self, meta: MetaService, ino: int) -> None:
        if ino not in self.model.nodes:
            self.same(lambda: meta.getattr(ino), lambda: self.model.node(ino))
            return
        node, attr = self.model.nodes[ino], meta.getattr(ino)
        length = 4096 if node.is_dir else node.length or len(node.target) * (node.kind == Kind.SYMLINK)
        assert (attr.kind, attr.nlink, attr.length, attr.flags) == (node.kind, node.nlink, length, node.flags)
        assert attr.parent > TRASH if node.trashed else attr.parent == node.parent
        assert {name: meta.getxattr(ino, name) for name in meta.listxattr(ino)} == node.xattrs
        if node.is_dir:
            assert {entry.name: entry.ino for entry in meta.readdir(SUPER, ino)} == node.entries
            for name, child in node.entries.items():
                assert meta.lookup(SUPER, ino, name)[0] == child
        elif node.kind == Kind.FILE:
            assert glue(self._content(meta, ino, node.length)) == glue(node.pieces)

    def _content(self, meta: MetaService, ino: int, length: int) -> Pieces:
        seen: Pieces = []
        for index in range((length + CHUNK - 1) // CHUNK):
            for piece in meta.read(ino, index):
                start = index * CHUNK + piece.pos
                if piece.id and start < length:
                    seen.append((start, min(start + piece.length, length), piece.id, piece.off))
        return seen

    def teardown(self) -> None:
        """Everything once more, and the audit."""
        try:
            for ino in self.folders + self.files:
                self._compare(self.services[0], ino)
            if self.trash:
                found: dict[bytes, int] = {}
                for hour in list(self.services[0].readdir(SUPER, TRASH)):
                    found |= {entry.name: entry.ino for entry in self.services[0].readdir(SUPER, hour.ino)}
                assert found == self.model.in_trash
        finally:
            for service in self.services:
                service.close()
        engine = open_engine(self.url)
        problems = check_engine(engine)
        engine.close()
        assert problems == []


def cases() -> Iterator[Any]:
    """Engine, number of clients, trash; servers that are slower to ask, less often."""
    for kind, clients, trash in itertools.product(META_ENGINES, (1, 2), (False, True)):
        if kind in REDIS_GROUPS and (clients, trash) != (2, True):
            continue  # they answer as one server does
        if kind in SQL_SERVERS and clients == 1:
            continue
        name, marks = (kind, ()) if isinstance(kind, str) else (str(kind.values[0]), kind.marks)
        words = (name, ("one-client", "two-clients")[clients - 1], ("no-trash", "trash")[trash])
        yield pytest.param(name, clients, trash, marks=marks, id="-".join(words))


@pytest.mark.parametrize(("kind", "clients", "trash"), list(cases()))
def test_histories(kind: str, clients: int, request: pytest.FixtureRequest, *, trash: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_url = fresh_urls(kind, request, Path(folder))
        machine = type(
            "Machine", (Histories,), {"clients": clients, "trash": trash, "make_url": staticmethod(make_url)}
        )
        share = settings().max_examples if kind == "memory" else max(settings().max_examples // 4, 5)
        run_state_machine_as_test(machine, settings=settings(max_examples=share, stateful_step_count=40))
