"""Threads that are bounded, named, joined and carry their errors. Nobody else starts one."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Self, TypeVar
from weakref import WeakSet

from fscore.runtime import log

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

logger = log.get(__name__)
_pools: WeakSet[Pool] = WeakSet()


class Pool:
    """At most `workers` calls at a time, started lazily. Use as a context manager or close it.

    A forked child (a data loader's worker, a task runner) has none of its parent's threads: there it begins anew.
    """

    def __init__(self, name: str, workers: int) -> None:
        self.workers = workers
        self._name = f"fscore-{name}"
        self._closed = False
        self._executor = self._begin()
        _pools.add(self)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `fn` on a thread of this pool; its error comes out of the future."""
        return self._executor.submit(fn, *args, **kwargs)

    def map_bounded(self, fn: Callable[[T], R], items: Iterable[T], inflight: int | None = None) -> Iterator[R]:
        """`fn` of each item, in order, with at most `inflight` under way or waiting to be taken.

        The first error is raised where its result would have come; what has not begun by then is cancelled
        and what runs is waited for, so nothing goes on behind the caller's back.
        """
        limit = inflight or 2 * self.workers
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                if len(waiting) >= limit:
                    yield waiting.popleft().result()
                waiting.append(self.submit(fn, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:
                if not future.cancelled():
                    future.exception()

    def close(self) -> None:
        """Cancel what has not begun, wait for what runs, join the threads."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=self.workers, thread_name_prefix=self._name)

    def begin_anew(self) -> None:
        """In a forked child: take fresh threads; what the parent had under way stays the parent's."""
        if not self._closed:
            self._executor = self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Ticker:
    """Calls `fn` every `interval_s` seconds on a thread of its own until stopped; errors are logged and it goes on."""

    def __init__(self, name: str, interval_s: float, fn: Callable[[], Any]) -> None:
        self._interval_s = interval_s
        self._fn = fn
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fscore-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and join. Safe to call twice, and from the ticking function itself."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._fn()
            except Exception:  # one failed beat must not end the heart
                logger.exception("%s failed; it goes on", self._name)


class Task:
    """One call on a daemon thread of its own, for loops that end when what they wait for ends; carries its error."""

    def __init__(self, name: str, fn: Callable[[], Any]) -> None:
        self._fn = fn
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"fscore-{name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; whether it has ended. Told to wait for itself, a task says no at once."""
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._fn()
        except Exception as error:
            self.error = error
            logger.exception("%s ended with an error", self._thread.name)


def _after_fork() -> None:
    for pool in list(_pools):
        pool.begin_anew()


os.register_at_fork(after_in_child=_after_fork)
