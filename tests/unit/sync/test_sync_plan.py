"""What a sync has to do."""

from __future__ import annotations

from fscore.hub.names import Ref
from fscore.sync.plan import Holding, plan_sync

ONE, TWO = Ref("t", "m", 1), Ref("t", "m", 2)


def test_missing_versions_come_before_their_layouts() -> None:
    plan = plan_sync([Holding(TWO, "d2"), Holding(ONE, "d1", {"tp2-pp1": "l1"})], [])
    assert [(s.ref, s.what, s.action) for s in plan.steps] == [
        (ONE, "version", "copy"),
        (ONE, "layout", "compose"),
        (TWO, "version", "copy"),
    ]
    assert plan.conflicts == ()


def test_what_is_there_is_kept() -> None:
    both = [Holding(ONE, "d1", {"tp2-pp1": "l1"})]
    assert {s.action for s in plan_sync(both, both).steps} == {"keep"}
    added = plan_sync([Holding(ONE, "d1", {"tp2-pp1": "l1", "tp4-pp1": "l2"})], both)
    assert [(s.layout, s.action) for s in added.steps] == [("", "keep"), ("tp2-pp1", "keep"), ("tp4-pp1", "compose")]


def test_another_content_under_the_same_number_is_never_replaced() -> None:
    plan = plan_sync([Holding(ONE, "d1", {"tp2-pp1": "l1"}), Holding(TWO, "d2", {"tp2-pp1": "x"})],
                     [Holding(ONE, "other"), Holding(TWO, "d2", {"tp2-pp1": "y"})])  # fmt: skip
    assert [(s.ref, s.action) for s in plan.steps] == [(TWO, "keep")]
    assert len(plan.conflicts) == 2


def test_revoked_versions_are_withdrawn_where_they_are_shown() -> None:
    plan = plan_sync([], [Holding(ONE, "d1")], revoked=[ONE, TWO])
    assert plan.withdraw == (ONE,)
