"""A store that answers 503 for a minute, and a disk that is full: ridden through, or told in one line."""

from __future__ import annotations

import uuid

import pytest

from fscore.admin.format import format_volume
from fscore.domain.errors import NoSpace, TransientError
from fscore.meta.engines.registry import forget_memory
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.faulty import ALL, FaultPlan, Faulty
from fscore.runtime.clock import FakeClock
from fscore.volume import open_volume
from tests.kit.volumes import assert_sound


class HealingClock(FakeClock):
    """Time after which the store works again."""

    def __init__(self, plan: FaultPlan, after_s: float) -> None:
        super().__init__()
        self._plan = plan
        self._after_s = after_s

    def advance(self, seconds: float) -> None:
        """Let time pass, and the outage with it."""
        super().advance(seconds)
        if self.monotonic() >= self._after_s:
            self._plan.heal()


def unavailable(_: str) -> TransientError:
    return TransientError("503 Slow Down")


def test_a_minute_of_503_is_ridden_through() -> None:
    name = uuid.uuid4().hex
    store = MemoryStore(name)
    format_volume(f"memory://{name}", "vol", storage="memory", bucket=name, object_store=store, trash_days=0)
    plan = FaultPlan(at=1, persistent=True, calls=ALL, error=unavailable)
    clock = HealingClock(plan, 60)
    with open_volume(
        f"memory://{name}", object_store=Faulty(store, plan), clock=clock, background=False, upload_threads=1
    ) as volume:
        volume.files.write_bytes("/f", b"x" * 100_000)
        assert clock.monotonic() >= 60
        assert plan.struck > 3
        assert volume.files.read_bytes("/f") == b"x" * 100_000
        assert_sound(volume)
    forget_memory(name)


def test_a_full_disk_is_told_and_leaves_nothing_behind() -> None:
    name = uuid.uuid4().hex
    store = MemoryStore(name)
    format_volume(f"memory://{name}", "vol", storage="memory", bucket=name, object_store=store, trash_days=0)
    plan = FaultPlan(at=2, persistent=True, calls=frozenset({"put"}), error=NoSpace)
    with open_volume(f"memory://{name}", object_store=Faulty(store, plan), background=False) as volume:
        with pytest.raises(NoSpace) as caught:
            volume.files.write_atomic("/f", b"x" * (9 << 20), replace=False)
        assert "no space left" in str(caught.value)
        assert volume.files.listdir("/") == []
        volume.collect()
        assert [info.key for info in store.scan("vol/chunks/")] == []
        assert_sound(volume)
    forget_memory(name)
