"""Large sets of numbers in little memory: eight bytes each, for checks that look at every record of a volume."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

_BITS: Final = 16
_MASK: Final = (1 << _BITS) - 1


class IntMap:
    """Non-negative numbers to small ones (below 2^48): filled first, asked afterwards. The first value stays.

    Numbers that lie near each other share an array, which is sorted when it is asked for the first time.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._sorted: set[int] = set()

    def add(self, number: int, value: int = 0) -> None:
        """Remember a number; one that is added again costs room again."""
        high = number >> _BITS
        bucket = self._buckets.get(high)
        if bucket is None:
            bucket = self._buckets[high] = array("Q")
        bucket.append((number & _MASK) << 48 | value)
        self._sorted.discard(high)

    def update(self, numbers: Iterable[int]) -> None:
        """Remember many."""
        for number in numbers:
            self.add(number)

    def get(self, number: int) -> int | None:
        """The value of a number; None when it was not added."""
        high, low = number >> _BITS, (number & _MASK) << 48
        if high not in self._buckets:
            return None
        bucket = self._settle(high)
        place = bisect_left(bucket, low)
        if place == len(bucket) or bucket[place] >> 48 != low >> 48:
            return None
        return bucket[place] & (1 << 48) - 1

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.get(number) is not None

    def __len__(self) -> int:
        """How many different numbers there are."""
        return sum(len(self._settle(high)) for high in self._buckets)

    def _settle(self, high: int) -> array[int]:
        if high not in self._sorted:
            self._buckets[high] = _settled(self._buckets[high])
            self._sorted.add(high)
        return self._buckets[high]


def _settled(bucket: array[int]) -> array[int]:
    """Sorted, each number once."""
    settled = array("Q")
    last = -1
    for item in sorted(bucket):
        if item >> 48 != last:
            settled.append(item)
            last = item >> 48
    return settled
