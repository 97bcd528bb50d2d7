"""Quotas as values: what they allow, and that only growth is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.domain.quota import Load, Quota

NUMBERS = st.integers(-1, 100)


@pytest.mark.parametrize(
    ("quota", "space", "inodes", "allowed"),
    [
        (Quota(), 1 << 60, 1 << 60, True),
        (Quota(0, 0), 1, 1, True),
        (Quota(10, -1, 6, 0), 4, 9, True),
        (Quota(10, -1, 6, 0), 5, 0, False),
        (Quota(-1, 3, 0, 2), 99, 1, True),
        (Quota(-1, 3, 0, 2), 0, 2, False),
        (Quota(10, 3, 99, 99), 0, 0, True),
        (Quota(10, 3, 99, 99), -5, -1, True),
        (Quota(10, 3, 99, 99), 1, -1, False),
    ],
)
def test_what_is_allowed(quota: Quota, space: int, inodes: int, *, allowed: bool) -> None:
    assert quota.allows(space, inodes) is allowed


@given(NUMBERS, NUMBERS, st.integers(0, 100), st.integers(0, 100), st.integers(0, 50), st.integers(0, 50))
def test_growth_ends_at_the_limit(space: int, inodes: int, used: int, count: int, more: int, others: int) -> None:
    quota = Quota(space, inodes, used, count)
    if quota.allows(more, others):
        grown = quota.grown(more, others)
        assert space <= 0 or more == 0 or grown.used_space <= space
        assert inodes <= 0 or others == 0 or grown.used_inodes <= inodes
    assert quota.allows(-more, -others), "giving back is never refused"


def test_limits_are_kept_where_none_is_given() -> None:
    quota = Quota(5, 6, 7, 8)
    assert quota.limited(None, None) == quota
    assert quota.limited(0, None) == (0, 6, 7, 8)
    assert not Quota(0, -1).limits
    assert Load(1, 2).plus(3, 4) == (4, 6)
