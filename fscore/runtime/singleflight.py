"""Many ask for the same thing at the same time: one fetches it, all get it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one call a key at a time; those who come meanwhile share its result or its error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def do(self, key: Hashable, fn: Callable[[], T]) -> T:
        """`fn()`, or what the call under way for `key` brings."""
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leads:
            return flight.result()
        try:
            value = fn()
        except BaseException as error:
            self._land(key)
            flight.set_exception(error)
            raise
        self._land(key)
        flight.set_result(value)
        return value

    def flying(self, key: Hashable) -> bool:
        """Whether somebody is at it now."""
        return key in self._flights

    def _land(self, key: Hashable) -> None:
        with self._lock:
            del self._flights[key]
