"""Volumes on real database servers: what was read is true at commit, lost connections, outcomes, tables of theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Literal

import msgspec
import pytest

from fscore.domain.attr import Kind
from fscore.domain.errors import CorruptError, Exists, NotFound, UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import SupportsResolve
from fscore.meta.engines.sql.server_engine import ServerEngine
from fscore.meta.records import Edge, want_lineage, want_node
from fscore.meta.txn import MetaTxn
from tests.kit.bodies import FILE, ROOT_ATTR, bump, create
from tests.kit.mariadb import MariadbServer
from tests.kit.postgres import PostgresServer
from tests.kit.sql_clients import cut, grow, link_of

SETTING = Setting(name="sql", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0)


def trips(engine: ServerEngine, work: Callable[[], object]) -> int:
    """Round trips of some transactions, one after the other."""
    before = link_of(engine).trips
    work()
    return link_of(engine).trips - before


def test_a_transaction_costs_three_round_trips(engine: ServerEngine) -> None:
    engine.transact(create(b"warm", 2))
    assert trips(engine, lambda: engine.transact(create(b"a", 3))) == 3
    before = link_of(engine).trips
    with pytest.raises(Exists):
        engine.transact(create(b"a", 3))
    assert link_of(engine).trips == before + 1


def test_all_ancestors_cost_one_round_trip(engine: ServerEngine) -> None:
    folder = msgspec.structs.replace(ROOT_ATTR, mode=0o755)
    for ino in range(2, 12):
        engine.transact(methodcaller("put_node", ino, msgspec.structs.replace(folder, parent=ino - 1)))

    def climb(txn: MetaTxn) -> list[int]:
        txn.prefetch(want_lineage(11))
        seen = [11]
        while seen[-1] != ROOT:
            attr = txn.node(seen[-1])
            assert attr is not None
            seen.append(attr.parent)
        return seen

    assert trips(engine, lambda: engine.transact(climb)) == 1
    assert engine.transact(climb) == list(range(11, 0, -1))
    with engine.view() as view:
        view.prefetch(want_lineage(5), want_node(3), want_node(99))
        link = view._memory.link  # type: ignore[attr-defined] # of a server's view
        before = link.trips
        assert [view.node(ino) for ino in (5, 4, 3)] == [msgspec.structs.replace(folder, parent=n) for n in (4, 3, 2)]
        assert view.node(99) is None
        assert link.trips == before


def test_walk(engine: ServerEngine) -> None:
    assert isinstance(engine, SupportsResolve)
    for number in range(2, 13):
        kind = Kind.DIRECTORY if number < 12 else Kind.FILE
        engine.transact(methodcaller("put_edge", number - 1, b"%d" % number, Edge(kind, number)))
        engine.transact(methodcaller("put_node", number, msgspec.structs.replace(FILE, kind=kind, uid=number)))
    engine.transact(methodcaller("put_edge", 3, b"lost", Edge(Kind.DIRECTORY, 99)))
    names = [b"%d" % number for number in range(2, 13)]
    assert [ino for ino, _ in engine.walk(1, [*names, b"below"])] == list(range(2, 13))
    assert engine.walk(1, names)[-1] == (12, msgspec.structs.replace(FILE, uid=12))
    for depth in range(len(names) + 1):
        assert [ino for ino, _ in engine.walk(1, names[:depth])] == list(range(2, depth + 2))
        assert [ino for ino, _ in engine.walk(1, [*names[:depth], b"none", b"x"])] == list(range(2, depth + 2))
    assert [ino for ino, _ in engine.walk(1, [b"2", b"3", b"lost", b"x"])] == [2, 3]


def test_a_tree_that_goes_round_in_circles(engine: ServerEngine) -> None:
    for ino, parent in ((2, 3), (3, 2)):
        engine.transact(methodcaller("put_node", ino, msgspec.structs.replace(ROOT_ATTR, parent=parent)))
    with engine.view() as view:
        view.prefetch(want_lineage(2))
        assert view.node(3) is not None


RACES: dict[str, tuple[Callable[[Any], object], Callable[[MetaTxn], None]]] = {
    "chunk": (lambda view: view.chunk(2, 0), lambda t: t.append(2, 0, [SliceRecord(0, 9, 9, 0, 9)])),
    "symlink": (lambda view: view.symlink(2), lambda t: t.put_symlink(2, b"else")),
    "xattr": (lambda view: view.xattr(2, b"user.a"), lambda t: t.put_xattr(2, b"user.a", b"x")),
    "xattrs": (lambda view: view.xattrs(2), lambda t: t.put_xattr(2, b"user.b", b"x")),
    "xattr gone": (lambda view: view.xattrs(2), lambda t: t.del_xattr(2, b"user.0")),
    "xattr value": (lambda view: view.xattrs(2), lambda t: t.put_xattr(2, b"user.0", b"1")),
    "parents": (lambda view: view.parents(2), lambda t: t.put_edge(7, b"x", Edge(Kind.FILE, 2))),
    "entry": (lambda view: view.edge(1, b"e"), lambda t: t.put_edge(1, b"e", Edge(Kind.FILE, 5))),
    "entry gone": (lambda view: view.edge(1, b"0"), lambda t: t.del_edge(1, b"0")),
    "entries": (lambda view: len(view.entries(1)), lambda t: t.put_edge(1, b"e", Edge(Kind.FILE, 5))),
    "emptiness": (lambda view: view.has_entries(3), lambda t: t.put_edge(3, b"e", Edge(Kind.FILE, 5))),
    "fullness": (lambda view: view.has_entries(1), lambda t: t.del_edge(1, b"0")),
    "node": (lambda view: view.node(2), grow),
    "node gone": (lambda view: view.node(2), lambda t: t.del_node(2)),
}


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "answers"])
@pytest.mark.parametrize("race", RACES)
def test_every_kind_of_read_is_compared(engine: ServerEngine, other: ServerEngine, race: str, *, writes: bool) -> None:
    reader, interfere = RACES[race]

    def prepare(txn: MetaTxn) -> None:
        txn.put_node(2, FILE)
        txn.put_xattr(2, b"user.0", b"0")
        txn.put_edge(1, b"0", Edge(Kind.FILE, 2))

    engine.transact(prepare)
    seen: list[object] = []

    def body(txn: MetaTxn) -> None:
        seen.append(reader(txn))
        if len(seen) == 1:
            other.transact(interfere)
        txn.symlink(98)  # a second trip of reads
        if writes:
            txn.put_symlink(99, b"%d" % len(seen))

    engine.transact(body)
    assert len(seen) == 2
    assert seen[0] != seen[1]
    with engine.view() as view:
        assert seen[1] == reader(view)
        assert view.symlink(99) == (b"2" if writes else None)


def test_an_error_is_said_of_one_moment(engine: ServerEngine, other: ServerEngine) -> None:
    """An entry moves while it is looked for: at no moment it is nowhere."""
    engine.transact(lambda t: t.put_edge(1, b"b", Edge(Kind.FILE, 2)))
    looked: list[int] = []

    def move(txn: MetaTxn) -> None:
        edge = txn.edge(1, b"b")
        assert edge is not None
        txn.del_edge(1, b"b")
        txn.put_edge(1, b"a", edge)

    def find(txn: MetaTxn) -> int:
        looked.append(1)
        for name in (b"a", b"b"):
            edge = txn.edge(1, name)
            if edge is not None:
                return edge.ino
            if len(looked) == 1:
                other.transact(move)
        raise NotFound("b")

    assert engine.transact(find) == 2
    assert len(looked) == 2


def test_what_moves_on_in_a_directory_disturbs_nobody(engine: ServerEngine, other: ServerEngine) -> None:
    runs: list[int] = []

    def body(txn: MetaTxn) -> None:
        bump(txn)
        if not runs:
            other.transact(create(b"theirs", 7))
            other.transact(bump)
        runs.append(1)

    engine.transact(body)
    assert runs == [1]
    with engine.view() as view:
        attr = view.node(1)
    assert attr == msgspec.structs.replace(ROOT_ATTR, nlink=4, mtime_ns=1)


def test_a_directory_whose_mode_changes_is_compared(engine: ServerEngine, other: ServerEngine) -> None:
    runs: list[int] = []

    def chmod(txn: MetaTxn) -> None:
        attr = txn.node(1)
        assert attr is not None
        txn.put_node(1, msgspec.structs.replace(attr, mode=0o700))

    def body(txn: MetaTxn) -> None:
        create(b"a", 2)(txn)
        if not runs:
            other.transact(chmod)
        runs.append(1)

    engine.transact(body)
    assert runs == [1, 1]


def test_columns_are_written_one_by_one(engine: ServerEngine, other: ServerEngine) -> None:
    """A client that changes other columns without locks (3.3) is not undone."""
    engine.transact(create(b"f", 2))

    def body(txn: MetaTxn) -> None:
        attr = txn.node(2)
        assert attr is not None
        txn.put_node(2, msgspec.structs.replace(attr, mode=0o600))

    engine.transact(body)
    other.transact(grow)
    with engine.view() as view:
        assert view.node(2) == msgspec.structs.replace(FILE, mode=0o600, length=1)


def test_two_who_swap_locks_both_get_through(engine: ServerEngine, other: ServerEngine) -> None:
    """Each changes what the other reads, many times: locks are taken in one order, and nothing is lost."""
    for ino in (2, 3):
        engine.transact(methodcaller("put_node", ino, FILE))

    def move(client: ServerEngine, read: int, write: int) -> None:
        def body(txn: MetaTxn) -> None:
            one, two = txn.node(read), txn.node(write)
            assert one is not None
            assert two is not None
            txn.put_node(write, msgspec.structs.replace(two, length=one.length + two.length + 1))

        for _ in range(40):
            client.transact(body)

    def total(client: ServerEngine) -> list[int]:
        with client.view() as view:
            return [attr.length for ino in (2, 3) if (attr := view.node(ino)) is not None]

    helper = threading.Thread(target=move, args=(other, 2, 3))
    helper.start()
    move(engine, 3, 2)
    helper.join()
    # Every history of such moves is a sequence of "x += y + 1", so that both numbers are odd or one is even; what
    # matters is that replaying the counts in some order gives them. A lost update would leave fewer than 80 steps.
    first, second = total(engine)
    steps = 0
    while first or second:
        if first > second:
            first -= second + 1
        else:
            second -= first + 1
        assert first >= 0
        assert second >= 0
        steps += 1
    assert steps == 80


def test_a_number_that_is_taken(engine: ServerEngine, other: ServerEngine) -> None:
    other.transact(lambda t: t.put_node(2, FILE))
    with pytest.raises(CorruptError, match="taken"):
        engine.transact(create(b"a", 2))
    with engine.view() as view:
        assert view.edge(1, b"a") is None
        assert view.usage() == (0, 0)


def remove(txn: MetaTxn) -> None:
    """The file 2 goes."""
    txn.edge(1, b"warm")
    txn.del_edge(1, b"warm")
    txn.del_node(2)


def write(txn: MetaTxn) -> None:
    """The file 2 gets a slice."""
    grow(txn)
    txn.append(2, 0, [SliceRecord(0, 9, 9, 0, 9)])
    txn.new_slice(9, 9)


BODIES: dict[str, Callable[[MetaTxn], object]] = {
    "create": create(b"new", 51),
    "grow": grow,
    "links": bump,
    "remove": remove,
    "slice": write,
}


@pytest.mark.parametrize("deed", BODIES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_was_cut_happens_once(
    engine: ServerEngine, url: str, deed: str, when: Literal["before", "after"]
) -> None:
    engine.transact(create(b"warm", 2))
    cut(engine, when)
    engine.transact(BODIES[deed])
    with engine.view() as view:
        file, root = view.node(2), view.node(1)
        assert root is not None
        assert view.usage().inodes == (2 if deed == "create" else 1)
        assert len(view.entries(1)) == {"create": 2, "remove": 0}.get(deed, 1)
        assert root.nlink == (3 if deed == "links" else 2)
        assert (file.length if file else -1) == {"grow": 1, "slice": 1, "remove": -1}.get(deed, 0)
        assert len(view.chunk(2, 0)) == (deed == "slice")


def test_an_outcome_that_nobody_can_tell_is_said(engine: ServerEngine, other: ServerEngine) -> None:
    engine.transact(create(b"warm", 2))
    cut(engine, "after", lambda: other.transact(grow))
    if engine.name == "postgres":  # which remembers
        engine.transact(grow)
    else:
        with pytest.raises(UnavailableError, match="unknown"):
            engine.transact(grow)
    with engine.view() as view:
        assert view.node(2) == msgspec.structs.replace(FILE, length=2)


@pytest.fixture
def hang_up(url: str, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Ends every connection to the database, from the server's side."""
    name = url.rpartition("/")[2].partition("?")[0]

    def end() -> None:
        if url.startswith("postgres"):
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            with postgres.client() as client:
                client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            return
        mariadb: MariadbServer = request.getfixturevalue("mariadb_server")
        for (ident,) in mariadb.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
            mariadb.execute(f"KILL {ident}")

    return end


def test_lost_connections_are_replaced(engine: ServerEngine, hang_up: Callable[[], None]) -> None:
    engine.transact(create(b"a", 2))
    hang_up()
    assert engine.load_setting() == b"{}"
    with engine.view() as view:
        assert view.node(2) == FILE
        hang_up()
        assert view.node(1) is not None
    hang_up()
    assert engine.transact(create(b"b", 3)) == 3
    runs: list[int] = []

    def body(txn: MetaTxn) -> None:
        runs.append(1)
        create(b"c", 4)(txn)
        if len(runs) == 1:
            hang_up()

    engine.transact(body)
    hang_up()
    engine.set_dir_stat(1, (1, 2, 3))  # type: ignore[arg-type] # a DirStat is a tuple
    assert engine.dir_stat(1) == (1, 2, 3)
    with engine.view() as view:
        assert view.usage().inodes == 3


def test_two_threads_of_one_process_wait_for_each_other(engine: ServerEngine) -> None:
    """A thread that waits for a row's lock lets the one that holds it run."""
    engine.transact(create(b"f", 2))

    def work() -> None:
        for _ in range(30):
            engine.transact(grow)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.view() as view:
        assert view.node(2) == msgspec.structs.replace(FILE, length=120)
