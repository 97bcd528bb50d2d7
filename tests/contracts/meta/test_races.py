"""Threads and clients at the same time: nothing lost, nothing doubled, every count exact; on every engine."""

from __future__ import annotations

from fscore.domain.errors import Exists, FsError, Invalid, NotEmpty, NotFound
from fscore.domain.geometry import CHUNK
from fscore.domain.ids import ROOT
from fscore.domain.slices import SliceRecord
from fscore.meta.service import MetaService, RenameFlag, SliceRange
from tests.kit.engines import MakeMeta
from tests.kit.threads import together
from tests.kit.tree import SUPER, mkdir, mkfile, names

THREADS = 4


def test_creates_and_removes_in_one_directory(make_meta: MakeMeta) -> None:
    clients = [make_meta(cache_s=0.0), make_meta(cache_s=0.0)]
    shared = mkdir(clients[0], b"shared")

    def work(number: int) -> None:
        meta = clients[number % 2]
        for index in range(25):
            name = b"%d-%d" % (number, index)
            mkdir(meta, name, parent=shared)
            ino = mkfile(meta, b"f" + name, 5000, parent=shared)
            meta.link(SUPER, ino, ROOT, b"l" + name)
            if index % 2:
                meta.rmdir(SUPER, shared, name)
                meta.unlink(SUPER, shared, b"f" + name)

    together(*[lambda number=number: work(number) for number in range(THREADS)])
    assert len(names(clients[0], shared)) == THREADS * 25 + THREADS * 1
    assert clients[1].getattr(shared).nlink == 2 + THREADS * 13
    assert len(names(clients[0])) == 1 + THREADS * 25


def test_one_name_has_one_winner(make_meta: MakeMeta) -> None:
    clients = [make_meta(cache_s=0.0), make_meta(cache_s=0.0)]
    won: list[tuple[int, int]] = []

    def work(number: int) -> None:
        for index in range(30):
            try:
                won.append((index, mkfile(clients[number % 2], b"n%d" % index)))
            except Exists:
                continue

    together(*[lambda number=number: work(number) for number in range(THREADS)])
    assert sorted(index for index, _ in won) == list(range(30))
    assert names(clients[0]) == {b"n%d" % index: ino for index, ino in won}


def test_a_rename_that_may_not_replace_has_one_winner(make_meta: MakeMeta) -> None:
    clients = [make_meta(cache_s=0.0), make_meta(cache_s=0.0)]
    for number in range(THREADS):
        mkdir(clients[0], b"draft-%d" % number)
    won: list[int] = []

    def publish(number: int) -> None:
        try:
            clients[number % 2].rename(
                SUPER, ROOT, b"draft-%d" % number, ROOT, b"published", flags=RenameFlag.NO_REPLACE
            )
            won.append(number)
        except Exists:
            return

    together(*[lambda number=number: publish(number) for number in range(THREADS)])
    assert len(won) == 1
    assert len(names(clients[0])) == THREADS


def test_directories_never_end_up_in_a_loop(make_meta: MakeMeta) -> None:
    clients = [make_meta(cache_s=0.0), make_meta(cache_s=0.0)]
    a, b = mkdir(clients[0], b"a"), mkdir(clients[0], b"b")

    def shuffle(meta: MetaService, source: bytes, below: int) -> None:
        for _ in range(30):
            for one, other, flags in ((ROOT, below, RenameFlag.NONE), (below, ROOT, RenameFlag.NO_REPLACE)):
                try:
                    meta.rename(SUPER, one, source, other, source, flags=flags)
                except (Invalid, NotFound, Exists, NotEmpty):
                    continue

    together(lambda: shuffle(clients[0], b"a", b), lambda: shuffle(clients[1], b"b", a))
    tops = names(clients[0])
    assert tops, "at least one of them hangs below the root"


def test_commits_to_one_chunk_are_all_there(make_meta: MakeMeta) -> None:
    clients = [make_meta(cache_s=0.0), make_meta(cache_s=0.0)]
    ino = mkfile(clients[0], b"f")

    def work(number: int) -> None:
        meta = clients[number % 2]
        for index in range(25):
            record = SliceRecord((number * 25 + index) * 100, meta.new_slice_id(), 100, 0, 100)
            meta.write(ino, 0, [record], 5, new_length=record.end)

    together(*[lambda number=number: work(number) for number in range(THREADS)])
    records = clients[0].records(ino, 0)
    assert sorted(record.pos for record in records) == [100 * index for index in range(THREADS * 25)]
    assert len({record.id for record in records}) == THREADS * 25
    assert clients[1].open_file(SUPER, ino, write=False).length == THREADS * 2500
    clients[1].close_file(ino)


def test_copies_survive_the_death_of_their_source(make_meta: MakeMeta) -> None:
    """Sources are deleted while they are copied: either there was a source, or there is no copy."""
    clients = [make_meta(cache_s=0.0), make_meta(cache_s=0.0)]
    target = mkfile(clients[0], b"target")
    for index in range(30):
        mkfile(clients[0], b"s%d" % index, 1000)
    sources = names(clients[0])
    copied: list[int] = []

    def copy() -> None:
        for index in range(30):
            piece = SliceRange(sources[b"s%d" % index], 0, 1000)
            try:
                clients[0].compose(SUPER, target, index * CHUNK, [piece])
                copied.append(index)
            except FsError:
                continue

    def delete() -> None:
        for index in range(30):
            clients[1].unlink(SUPER, ROOT, b"s%d" % index)
            clients[1].purge_deleted()
            clients[1].forget(clients[1].dead())

    together(copy, delete)
    for index in range(30):
        assert len(clients[0].read(target, index)) == (index in copied)
    kept = {record[0] for _, _, records in clients[0].engine.scan_chunks() for record in records}
    assert kept == ({0} if copied else set())
