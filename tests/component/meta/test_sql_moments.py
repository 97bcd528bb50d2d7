"""Clients of database servers in bad moments: interrupted users, lost outcomes, races for a first record."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from fscore.domain.errors import SettingError, UnavailableError
from fscore.domain.quota import Quota, QuotaKey, QuotaKind
from fscore.meta.engines.sql.links import Call
from fscore.meta.engines.sql.optimistic import ServerTxn
from fscore.meta.engines.sql.server_engine import ServerEngine
from fscore.meta.engines.sql.servers import COMMIT, Answer, DatabaseError, Fault, Wire
from fscore.meta.records import DirStat
from fscore.meta.txn import MetaTxn
from tests.kit.bodies import FILE, bump, create
from tests.kit.sql_clients import Interrupted, cut, grow, link_of


@pytest.mark.parametrize("at", ["SELECT", "ROLLBACK"])
def test_a_connection_whose_user_was_interrupted_is_given_up(engine: ServerEngine, at: str) -> None:
    engine.transact(create(b"warm", 2))
    link = link_of(engine)
    wire = link._wire = Interrupted(link.steal(), at)
    if at == "SELECT":
        with pytest.raises(KeyboardInterrupt):
            engine.load_setting()
    else:
        with pytest.raises(KeyboardInterrupt):
            engine._write(lambda link: link.run("SELECT nothing FROM nowhere"))
    assert wire.closed
    assert not engine._links._writers
    assert engine.load_setting() == b"{}"


def test_whose_outcome_is_lost_too_is_not_run_again(engine: ServerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks at the commit, and again while it is found out what became of it."""
    engine.transact(create(b"warm", 2))
    cut(engine, "after")

    def lost(*_: object) -> None:
        raise DatabaseError(Fault.LOST, "cut again")

    monkeypatch.setattr(type(engine._dialect), "outcome", lost)
    monkeypatch.setattr(ServerTxn, "happened", lost)
    with pytest.raises(UnavailableError, match="unknown"):
        engine.transact(grow)
    monkeypatch.undo()
    with engine.view() as view:
        assert view.node(2) == msgspec.structs.replace(FILE, length=1)


USER = QuotaKey(QuotaKind.USER, 7)


@pytest.mark.parametrize("key", [USER, QuotaKey(QuotaKind.DIRECTORY, 1)])
def test_two_first_records_of_a_quota(engine: ServerEngine, other: ServerEngine, key: QuotaKey) -> None:
    """Both have found none when they write: the second does not overwrite what the first has counted."""

    def count(txn: MetaTxn) -> None:
        if key in txn.quotas([key]):
            txn.add_quota(key, 4096, 1)
        else:
            txn.put_quota(key, Quota().grown(4096, 1))

    late: list[bool] = []

    class Late(Interrupted):
        """The other client's record comes between the comparison and the intents."""

        def batch(self, calls: Sequence[Call]) -> list[Answer]:
            """As the real one, late with a commit."""
            if calls[-1] is COMMIT and not late:
                late.append(True)
                other.transact(count)
            return self.real.batch(calls)

    engine.transact(bump)
    link = link_of(engine)
    link._wire = Late(link.steal(), "")
    engine.transact(count)
    assert engine.load_quotas(key.kind) == {key: Quota().grown(8192, 2)}


def test_a_quota_that_is_put_twice(engine: ServerEngine) -> None:
    def body(txn: MetaTxn) -> None:
        assert not txn.quotas([USER])
        txn.put_quota(USER, Quota(1, 2, 3, 4))
        txn.put_quota(USER, Quota(5, 6, 7, 8))

    engine.transact(body)
    assert engine.load_quotas(USER.kind) == {USER: Quota(5, 6, 7, 8)}


def test_totals_are_locked_in_the_official_order(engine: ServerEngine) -> None:
    orders: list[list[object]] = []

    def body(txn: MetaTxn) -> None:
        txn.add_usage(4096, 1)
        assert isinstance(txn, ServerTxn)
        orders.append([args[0] for _, args in txn._record.intents])

    engine.transact(body)
    assert orders == [["totalInodes", "usedSpace"]]


@pytest.mark.parametrize("at", [2, -1], ids=["compared", "committed"])
def test_a_comparison_that_failed_leaves_no_open_transaction(engine: ServerEngine, at: int) -> None:
    """What was read is compared in a transaction of its own: whoever has the link next is not inside of it."""
    engine.transact(create(b"warm", 2))
    link = link_of(engine)
    snapshot = link._dialect.snapshot

    class Failing(Interrupted):
        """The server refuses a statement of the comparison."""

        def batch(self, calls: Sequence[Call]) -> list[Answer]:
            """As the real one, with one statement more."""
            if calls[0] == snapshot[0]:
                calls = [*calls[:at], ("SELECT nothing FROM nowhere", ()), *calls[at:]]
            return self.real.batch(calls)

    def body(txn: MetaTxn) -> None:
        txn.node(1)
        txn.node(2)

    wire = link._wire = Failing(link.steal(), "")
    with pytest.raises(SettingError, match="nowhere"):
        engine.transact(body)
    assert wire.closed
    engine.transact(body)
    engine.transact(grow)
    with engine.view() as view:
        assert view.node(2) == msgspec.structs.replace(FILE, length=1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_statistics_whose_commit_was_cut_are_not_added_twice(engine: ServerEngine, when: str) -> None:
    engine.set_dir_stat(2, DirStat(1, 4096, 1))
    cut(engine, when)
    told = engine.add_dir_stats({2: DirStat(10, 4096, 1)})
    added = engine.dir_stat(2) == DirStat(11, 8192, 2)
    assert added or engine.dir_stat(2) == DirStat(1, 4096, 1)
    if engine.name == "postgres":  # which remembers
        assert (told, added) == ([], True)
    else:
        assert (told, added) == (None, when == "after")
    assert engine.add_dir_stats({3: DirStat(1, 1, 1)}) == [3]


def test_an_outcome_that_no_connection_is_to_be_had_for_is_unknown(engine: ServerEngine) -> None:
    """The server went away at the commit and stays away: nobody says that nothing was stored."""
    engine.transact(create(b"warm", 2))
    engine.set_dir_stat(2, DirStat(1, 4096, 1))

    def away() -> Wire:
        raise UnavailableError("nobody is there")

    cut(engine, "after")
    link_of(engine).reopen = away
    assert engine.add_dir_stats({2: DirStat(10, 4096, 1)}) is None
    engine.transact(grow)
    cut(engine, "after")
    link_of(engine).reopen = away
    with pytest.raises(UnavailableError, match="unknown"):
        engine.transact(grow)
    with engine.view() as view:
        assert view.node(2) == msgspec.structs.replace(FILE, length=2)
    assert engine.dir_stat(2) == DirStat(11, 8192, 2)
