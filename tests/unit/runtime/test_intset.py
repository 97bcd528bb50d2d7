"""Sets of numbers in eight bytes each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fscore.runtime.intset import IntMap

NUMBERS = st.one_of(st.integers(0, 300_000), st.integers(0, (1 << 63) + 100))


@given(st.lists(st.tuples(NUMBERS, st.integers(0, (1 << 48) - 1)), max_size=60), st.lists(NUMBERS, max_size=20))
def test_it_is_a_dict_whose_first_value_stays(pairs: list[tuple[int, int]], others: list[int]) -> None:
    found, model = IntMap(), dict[int, int]()
    for number, _ in pairs:
        value = model.setdefault(number, len(model))
        found.add(number, value)
    for number in [*others, *model]:
        assert found.get(number) == model.get(number)
        assert (number in found) == (number in model)
    assert len(found) == len(model)
    for number in others:
        found.add(number, model.setdefault(number, 7))
    assert all(found.get(number) == value for number, value in model.items())
