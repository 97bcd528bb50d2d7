"""ACL rules: the form of the kernel, chmod, inheritance, and who may do what, by the formulas of acl(5)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.acl import ABSENT, NOTHING, Named, Rule
from fscore.domain.errors import Invalid

BITS = st.integers(0, 7)
NAMED = st.dictionaries(st.integers(0, (1 << 32) - 1), BITS, max_size=3).map(lambda found: tuple(found.items()))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Complete rules; a mask stands wherever somebody is named."""
    users, groups = draw(NAMED), draw(NAMED)
    mask = draw(BITS if users or groups else st.one_of(BITS, st.just(ABSENT)))
    return Rule(draw(BITS), draw(BITS), mask, draw(BITS), users, groups)


def wire(*entries: tuple[int, int, int]) -> bytes:
    """The kernel's form."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ID = 0xFFFFFFFF


def test_the_form_of_the_kernel() -> None:
    """As setfacl -m u:1000:rw writes it on a file of mode 0755."""
    value = wire((1, 7, ID), (2, 6, 1000), (4, 5, ID), (16, 7, ID), (32, 5, ID))
    rule = Rule.from_xattr(value)
    assert rule == Rule(7, 5, 7, 5, ((1000, 6),), ())
    assert rule.to_xattr() == value
    assert Rule.from_xattr(struct.pack("<I", 2)) == NOTHING
    assert NOTHING.is_empty


@given(rules())
def test_rules_come_back_from_the_form_of_the_kernel(rule: Rule) -> None:
    assert Rule.from_xattr(rule.to_xattr()) == rule


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0",
        struct.pack("<I", 1),
        wire((1, 7, ID))[:-1],
        wire((3, 7, ID)),
        wire((1, 8, ID)),
        wire((1, 7, ID), (1, 7, ID)),
        wire((2, 7, 5), (2, 6, 5), (16, 7, ID)),
        wire((1, 7, ID), (2, 6, 1000), (4, 5, ID), (32, 5, ID)),
    ],
    ids=["empty", "short", "version", "cut", "tag", "bits", "two owners", "one user twice", "no mask"],
)
def test_what_is_no_acl(value: bytes) -> None:
    with pytest.raises(Invalid):
        Rule.from_xattr(value)


@given(rules(), st.integers(0, 0o777))
def test_after_a_chmod_the_mode_is_what_was_asked_for(rule: Rule, mode: int) -> None:
    changed = rule.with_mode(mode)
    assert changed.mode == mode
    assert (changed.users, changed.groups) == (rule.users, rule.groups)
    assert changed.is_minimal or changed.group == rule.group, "the group's own bits stay, the mask covers them"


@given(rules(), st.integers(0, 0o777))
def test_what_is_inherited_grants_no_more_than_was_asked_for(rule: Rule, mode: int) -> None:
    if rule.is_minimal:
        return
    child = rule.inherited(mode)
    assert child.mode == rule.mode & mode
    assert (child.group, child.users, child.groups) == (rule.group, rule.users, rule.groups)


def test_what_a_rule_leaves_out_comes_from_the_mode() -> None:
    users: Named = ((5, 7),)
    assert Rule(ABSENT, ABSENT, 7, ABSENT, users, ()).filled(0o640) == Rule(6, 4, 7, 0, users, ())
    assert Rule(1, 2, 3, 4, users, ()).filled(0o777) == Rule(1, 2, 3, 4, users, ())
