"""Directory statistics of a client: what becomes of a flush that failed, or whose outcome nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from fscore.domain.attr import Attr, Kind
from fscore.domain.errors import CorruptError, UnavailableError
from fscore.meta.engines.memory.engine import MemoryEngine
from fscore.meta.records import DirStat, Edge
from fscore.meta.stats import DirStats

FOLDER = Attr(Kind.DIRECTORY, 0o755, parent=1)
FILE = Attr(Kind.FILE, 0o644, parent=2)
ONE = DirStat(0, 4096, 1)
TWO = DirStat(0, 8192, 2)


class Doubtful(MemoryEngine):
    """An engine that stores statistics, or does not, and says what it is told to say of it."""

    stores = True
    raises: BaseException | None = None
    silent = False
    unreadable = 0

    def add_dir_stats(self, deltas: Mapping[int, DirStat]) -> list[int] | None:  # type: ignore[override] # as promised
        """As told."""
        wrong = super().add_dir_stats(deltas) if self.stores else []
        if self.raises is not None:
            raise self.raises
        return None if self.silent else wrong

    def dir_stat(self, ino: int) -> DirStat | None:
        """As stored."""
        if ino == self.unreadable:
            raise CorruptError("unreadable")
        return super().dir_stat(ino)


@pytest.fixture
def engine() -> Iterator[Doubtful]:
    """The folders 2 and 3, each with a file whose statistics are not stored yet."""
    made = Doubtful("stats")
    for folder in (2, 3):
        made.transact(lambda t, folder=folder: t.put_node(folder, FOLDER))  # type: ignore[misc] # mypy cannot infer it
        made.set_dir_stat(folder, DirStat(0, 0, 0))
        fill(made, folder, 10 * folder)
    yield made
    made.close()


def fill(engine: MemoryEngine, folder: int, ino: int) -> None:
    """One more file."""
    engine.transact(lambda t: t.put_node(ino, FILE))
    engine.transact(lambda t: t.put_edge(folder, b"%d" % ino, Edge(Kind.FILE, ino)))


@pytest.fixture
def stats(engine: Doubtful) -> DirStats:
    """What a client has gathered of the folder 2."""
    made = DirStats(engine, lambda *_: None)
    made.add([(2, *ONE)])
    return made


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("raises", [None, KeyboardInterrupt(), CorruptError("half")])
def test_a_doubtful_flush_is_counted_anew(
    engine: Doubtful, stats: DirStats, raises: BaseException | None, *, stored: bool
) -> None:
    engine.stores, engine.raises, engine.silent = stored, raises, raises is None
    if raises is None:
        stats.flush()
    else:
        with pytest.raises(type(raises)):
            stats.flush()
    assert engine.dir_stat(2) == (ONE if stored else (0, 0, 0)), "it may still arrive"
    engine.stores, engine.raises, engine.silent = True, None, False
    stats.flush(heal=False)
    assert engine.dir_stat(2) == (ONE if stored else (0, 0, 0)), "a client that goes leaves it to its peers"
    fill(engine, 2, 21)
    stats.add([(2, *ONE)])
    stats.flush()
    assert engine.dir_stat(2) == TWO
    engine.set_dir_stat(2, DirStat(7, 7, 7))
    stats.flush()
    assert engine.dir_stat(2) == (7, 7, 7), "once"


def test_a_doubtful_flush_is_counted_anew_by_the_last_client(engine: Doubtful, stats: DirStats) -> None:
    engine.stores, engine.silent = False, True
    stats.flush(heal=False)
    stats.settle()
    assert engine.dir_stat(2) == ONE


def test_what_was_not_stored_is_kept(engine: Doubtful, stats: DirStats) -> None:
    engine.stores, engine.raises = False, UnavailableError("away")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            stats.flush()
    stats.add([(2, *ONE), (3, *ONE)])
    fill(engine, 2, 21)
    engine.stores, engine.raises = True, None
    stats.flush()
    assert engine.dir_stat(2) == TWO
    assert engine.dir_stat(3) == ONE


def test_a_folder_that_cannot_be_counted_keeps_nothing_back(engine: Doubtful, stats: DirStats) -> None:
    stats.add([(3, *ONE)])
    engine.stores, engine.silent = False, True
    stats.flush()
    engine.stores, engine.silent, engine.unreadable = True, False, 2
    fill(engine, 3, 31)
    stats.add([(3, *ONE)])
    with pytest.raises(CorruptError):
        stats.flush()
    assert engine.dir_stat(3) == ONE, "stored; counted anew when its turn comes"
    with pytest.raises(CorruptError):
        stats.flush()
    assert engine.dir_stat(3) == TWO
    engine.unreadable = 0
    stats.flush()
    assert engine.dir_stat(2) == ONE


def test_negative_statistics_wait_for_a_peer(engine: Doubtful, stats: DirStats) -> None:
    stats.flush()
    stats.add([(2, -10, 0, 0)])
    stats.flush()
    assert engine.dir_stat(2) == (-10, 4096, 1)
    engine.add_dir_stats({2: DirStat(12, 0, 0)})
    stats.flush()
    assert engine.dir_stat(2) == (2, 4096, 1), "whole, if wrong in this test"
    stats.add([(2, -10, 0, 0)])
    stats.flush()
    stats.flush()
    assert engine.dir_stat(2) == ONE
