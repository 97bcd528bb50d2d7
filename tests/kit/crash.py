"""The crash sweep: let the first, second, third ... call below fail, until the story survives; look at what is left.

A story is told to a volume whose store and metadata fail by one shared plan. Afterwards another client, with nothing
failing, must find one of the states that the story allows: everything that was acknowledged, and of the operation
that was under way all or nothing, as far as that operation promises it. fsck may show leaks, never a problem.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.domain.errors import FsError, StoreError, UnavailableError
from fscore.files.filesystem import Filesystem
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import forget_memory, open_engine
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import FaultPlan, Faulty, When
from fscore.volume import Volume, open_volume

State = Mapping[str, bytes]

STEPS: Final = frozenset({"put", "delete", "transact", "reserve", "forget_dead", "forget_delfile", "add_dir_stats"})
"""Calls of the store and of the engine that change something; each is one step."""

_TEMPORARY: Final = re.compile(r"/\.[^/]*\.[0-9a-f]{12}\.tmp$")


class Ledger:
    """What the story was told is true. `change` brackets one operation."""

    def __init__(self) -> None:
        self.state: dict[str, bytes] = {}
        self.allowed: list[dict[str, bytes]] = [{}]

    @contextmanager
    def change(self, after: Mapping[str, bytes | None], *between: Mapping[str, bytes | None]) -> Iterator[None]:
        """The body makes `after` true (None = removed); if it fails, before, after and `between` are allowed."""
        outcomes = [self._with(changes) for changes in (after, *between)]
        self.allowed = [dict(self.state), *outcomes]
        yield
        self.state = outcomes[0]
        self.allowed = [self.state]

    def _with(self, changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
        merged: dict[str, bytes | None] = {**self.state, **changes}
        return {path: content for path, content in merged.items() if content is not None}


Story = Callable[[Volume, Ledger], None]


def sweep(story: Story, *, when: When = When.BEFORE, persistent: bool = False, **setting: Any) -> int:
    """Tell the story again and again, failing at step 1, 2, 3 ...; returns the number of steps it has."""
    for step in count(1):
        if not _one(
            story, FaultPlan(step, persistent=persistent, when=when, calls=STEPS, error=UnavailableError), setting
        ):
            return step - 1
    raise AssertionError("unreachable")


def _one(story: Story, plan: FaultPlan, setting: dict[str, Any]) -> bool:
    """One telling; whether the fault struck."""
    name = uuid.uuid4().hex
    url = f"memory://{name}"
    store = MemoryStore(name)
    step, plan.at = plan.at, 0
    chosen: dict[str, Any] = {"block_size": "64K", "trash_days": 0} | setting
    format_volume(url, "crash", storage="memory", bucket=name, object_store=store, **chosen)
    options: dict[str, Any] = {"background": False, "attempts": 1, "patience_s": (0.0,)}
    engine = open_engine(url)
    volume = open_volume(url, object_store=Faulty(store, plan), meta_engine=faulty_engine(engine, plan), **options)
    plan.seen, plan.at = 0, step
    ledger = Ledger()
    failed = False
    try:
        story(volume, ledger)
    except (FsError, StoreError):
        failed = True
    with suppress(FsError, StoreError):
        volume.close()
    struck = plan.struck > 0
    assert struck or not failed
    plan.heal()
    try:
        with open_volume(url, object_store=store, **options) as after:
            _verify(after, ledger, f"step {step} ({plan.when.value}, persistent={plan.persistent})")
    finally:
        forget_memory(name)
    return struck


def _verify(volume: Volume, ledger: Ledger, where: str) -> None:
    report = fsck(volume)
    assert report.problems == [], where
    found = contents(volume.files)
    assert found in ledger.allowed, f"{where}: found {_short(found)}, allowed {[_short(one) for one in ledger.allowed]}"
    volume.collect()
    assert fsck(volume).problems == [], f"{where}, after collecting"
    assert contents(volume.files) == found, f"{where}, after collecting"


def contents(files: Filesystem, top: str = "/") -> dict[str, bytes]:
    """Every file below a path with its bytes; temporary files of writers that died are nobody's."""
    return {
        stat.path: files.read_bytes(stat.path)
        for _, _, others in files.walk(top)
        for stat in others
        if stat.is_file and not _TEMPORARY.search(stat.path)
    }


def faulty_engine(inner: MetaEngine, plan: FaultPlan) -> MetaEngine:
    """`inner` whose changing calls fail by the plan, before or after they take effect."""

    def passed_on(name: str) -> Any:
        if isinstance(getattr(MetaEngine, name, None), property):
            return property(lambda _: getattr(inner, name))

        def call(_: MetaEngine, *args: Any, **kwargs: Any) -> Any:
            if not plan.strikes(name):
                return getattr(inner, name)(*args, **kwargs)
            if plan.when is When.AFTER:
                getattr(inner, name)(*args, **kwargs)
                if name == "add_dir_stats":
                    return None  # as an engine says that nobody can tell
            raise plan.error(f"{name}: fault {plan.seen}")

        return call

    names = set(MetaEngine.__abstractmethods__) | ({"walk"} if hasattr(inner, "walk") else set())
    engine: MetaEngine = type("FaultyEngine", (MetaEngine,), {name: passed_on(name) for name in names})()
    return engine


def _short(state: State) -> dict[str, str]:
    return {path: f"{len(content)} bytes {content[:8]!r}" for path, content in state.items()}
