"""A store that fails when it is told to: for crash sweeps, which let the first, second, third ... call fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, TypeVar

from fscore.domain.errors import TransientError
from fscore.objects.api import Buffer, ObjectInfo, ObjectStore, as_view
from fscore.objects.wrap.wrapper import Wrapper

T = TypeVar("T")

CHANGES: Final = frozenset({"put", "delete"})
ALL: Final = frozenset({"put", "get", "head", "delete", "scan"})


class When(Enum):
    """Where in a call the fault strikes."""

    BEFORE = "before"  # nothing happened
    AFTER = "after"  # it happened, but the answer was lost
    TORN = "torn"  # a put stored half of its bytes; other calls as BEFORE


class FaultPlan:
    """Which call fails. Call numbers start at 1 and count the calls named in `calls`, over all threads."""

    def __init__(
        self,
        at: int = 0,
        *,
        persistent: bool = False,
        when: When = When.BEFORE,
        calls: frozenset[str] = CHANGES,
        error: Callable[[str], Exception] = TransientError,
    ) -> None:
        self.at = at
        self.persistent = persistent
        self.when = when
        self.calls = calls
        self.error = error
        self.seen = 0
        self.struck = 0
        self._lock = threading.Lock()

    def strikes(self, call: str) -> bool:
        """Count one `call`; whether it is one that fails. `at` 0 never fails, so it measures a run's length."""
        if call not in self.calls:
            return False
        with self._lock:
            self.seen += 1
            hit = self.at > 0 and (self.seen >= self.at if self.persistent else self.seen == self.at)
            self.struck += hit
            return hit

    def heal(self) -> None:
        """From now on nothing fails."""
        with self._lock:
            self.at = 0


class Faulty(Wrapper):
    """`inner` with the faults of a plan. It survives `close`, so that a test may look at what is left."""

    def __init__(self, inner: ObjectStore, plan: FaultPlan) -> None:
        super().__init__(inner)
        self.plan = plan

    def put(self, key: str, data: Buffer) -> None:
        """May fail, or store half."""
        self._run("put", key, lambda: self.inner.put(key, data), lambda: self._tear(key, data))

    def put_with(self, key: str, data: Buffer, metadata: dict[str, str]) -> None:
        """May fail, or store half."""
        whole = super().put_with
        self._run("put", key, lambda: whole(key, data, metadata), lambda: self._tear(key, data))

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """May fail."""
        whole = super().put_if_absent
        return self._run("put", key, lambda: whole(key, data))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
        """May fail."""
        return self._run("get", key, lambda: self.inner.get(key, offset, length))

    def get_into(self, key: str, buffer: memoryview, offset: int = 0) -> int:
        """May fail."""
        return self._run("get", key, lambda: self.inner.get_into(key, buffer, offset))

    def fill(self, key: str, buffer: memoryview) -> tuple[int, dict[str, str]]:
        """May fail."""
        return self._run("get", key, lambda: self.inner.fill(key, buffer))

    def get_with(self, key: str) -> tuple[Buffer, dict[str, str]]:
        """May fail."""
        whole = super().get_with
        return self._run("get", key, lambda: whole(key))

    def head(self, key: str) -> ObjectInfo:
        """May fail."""
        return self._run("head", key, lambda: self.inner.head(key))

    def delete(self, key: str) -> None:
        """May fail."""
        self._run("delete", key, lambda: self.inner.delete(key))

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """May fail at its beginning."""
        if self.plan.strikes("scan"):
            raise self.plan.error(f"scan of {prefix!r}: fault {self.plan.seen}")
        yield from self.inner.scan(prefix, start_after)

    def _tear(self, key: str, data: Buffer) -> None:
        view = as_view(data)
        self.inner.put(key, view[: len(view) // 2])

    def _run(self, call: str, key: str, effect: Callable[[], T], torn: Callable[[], None] | None = None) -> T:
        if not self.plan.strikes(call):
            return effect()
        if self.plan.when is When.AFTER:
            effect()
        elif self.plan.when is When.TORN and torn is not None:
            torn()
        raise self.plan.error(f"{call} of {key!r}: fault {self.plan.seen}")
