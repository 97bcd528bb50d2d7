"""Who may do what."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fscore.domain.errors import HubError
from fscore.hub.access import Actor, Policy, TeamPolicy, as_actor

POLICY = Policy({"nlp": TeamPolicy(("ann",), ("bob",), ("root",))}, admins=("boss",))


@pytest.mark.parametrize(
    ("name", "member", "approver", "admin"),
    [("ann", True, False, False), ("bob", True, True, False), ("root", True, True, True), ("boss", True, True, True),
     ("eve", False, False, False)],
)  # fmt: skip
def test_roles_of_a_team(name: str, *, member: bool, approver: bool, admin: bool) -> None:
    who = Actor(name)
    checks: list[tuple[bool, Callable[[], None]]] = [
        (member, lambda: POLICY.check_member(who, "nlp")),
        (approver, lambda: POLICY.check_approver(who, "nlp", "decide")),
        (admin, lambda: POLICY.check_admin(who, "nlp", "clean")),
    ]
    for allowed, check in checks:
        if allowed:
            check()
        else:
            with pytest.raises(HubError) as refused:
                check()
            assert refused.value.kind == "denied"


def test_teams_that_a_caller_vouches_for() -> None:
    POLICY.check_member(Actor("eve", teams=("nlp",)), "nlp")
    POLICY.check_admin(Actor("eve", admin=True), "nlp", "clean")


def test_an_unknown_team_is_closed_and_no_policy_is_open() -> None:
    with pytest.raises(HubError):
        POLICY.check_member(Actor("ann"), "vision")
    Policy(open=True).check_admin(Actor("anybody"), "any", "do all")
    assert not Policy(open=True).team("any").require_approval
    assert POLICY.team("vision").require_approval


def test_somebody_must_act() -> None:
    assert as_actor("ann") == Actor("ann")
    with pytest.raises(HubError, match="nobody"):
        as_actor(" ")
