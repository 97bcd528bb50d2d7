"""Each wrapper changes what it is about, and passes on everything else."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest
from crc32c import crc32c

from fscore.domain.errors import CorruptError, NotFound, TransientError, UnavailableError, Unsupported
from fscore.objects.api import ObjectInfo, ObjectStore, SupportsMetadata
from fscore.objects.file import FileStore
from fscore.objects.memory import MemoryStore
from fscore.objects.wrap.checksum import Checksummed
from fscore.objects.wrap.faulty import ALL, FaultPlan, Faulty, When
from fscore.objects.wrap.limit import Limited
from fscore.objects.wrap.meter import Metered
from fscore.objects.wrap.prefixed import Prefixed
from fscore.objects.wrap.retry import Retrying
from fscore.objects.wrap.wrapper import Wrapper, unwrap
from fscore.runtime.buffer import Buffer
from fscore.runtime.clock import FakeClock
from fscore.runtime.metrics import Metrics
from fscore.runtime.retry import Retry
from fscore.runtime.threads import Pool

WRAPPERS: dict[str, Callable[[ObjectStore], ObjectStore]] = {
    "wrapper": Wrapper,
    "retry": lambda inner: Retrying(inner, Retry(clock=FakeClock())),
    "limit": lambda inner: Limited(inner, upload=1e12, download=1e12, calls=3),
    "checksum": Checksummed,
    "meter": lambda inner: Metered(inner, Metrics()),
    "faulty": lambda inner: Faulty(inner, FaultPlan()),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_wrapper_is_a_store(name: str) -> None:
    driver = MemoryStore()
    store = WRAPPERS[name](driver)
    assert isinstance(store, Wrapper)
    store.put("a/k", b"0123456789")
    assert store.get("a/k") == b"0123456789"
    assert store.get("a/k", 2, 3) == b"234"
    buffer = bytearray(4)
    assert store.get_into("a/k", memoryview(buffer), 8) == 2
    assert buffer == b"89\0\0"
    whole = bytearray(12)
    assert store.fill("a/k", memoryview(whole))[0] == 10
    assert whole == b"0123456789\0\0"
    assert store.fill("a/k", memoryview(buffer))[0] == 10, "more than there is room for"
    assert store.head("a/k").size == 10
    assert store.put_if_absent("a/k", b"x") is False
    assert store.put_if_absent("b", b"x") is True
    store.put_with("c", b"meta", {"Colour": "red"})
    assert store.get_with("c")[0] == b"meta"
    assert store.get_with("c")[1]["colour"] == "red"
    assert [info.key for info in store.scan()] == ["a/k", "b", "c"]
    assert [info.key for info in store.scan("", "a/k")] == ["b", "c"]
    store.delete("b")
    with pytest.raises(NotFound):
        store.get("b")
    assert store.location == driver.location
    assert store.reads_parts
    assert unwrap(store) is driver
    store.close()


def test_capabilities_that_the_store_lacks() -> None:
    store = Wrapper(FileStore("/nonexistent"))
    with pytest.raises(Unsupported):
        store.put_with("k", b"x", {})
    with pytest.raises(Unsupported):
        store.get_with("k")
    assert not isinstance(FileStore("/nonexistent"), SupportsMetadata)
    with pytest.raises(TypeError):
        Checksummed(FileStore("/nonexistent"))


def flaky(at: int, *, persistent: bool = False, when: When = When.BEFORE) -> tuple[ObjectStore, MemoryStore, FakeClock]:
    clock, driver = FakeClock(), MemoryStore()
    plan = FaultPlan(at, persistent=persistent, when=when, calls=ALL)
    return Retrying(Faulty(driver, plan), Retry(4, clock=clock, rng=random.Random(1))), driver, clock


@pytest.mark.parametrize("when", list(When))
def test_retry_of_every_call(when: When) -> None:
    for call in ("put", "get", "get_into", "head", "delete", "put_with", "get_with"):
        clock, driver = FakeClock(), MemoryStore()
        driver.put("k", b"0123456789")
        store = Retrying(Faulty(driver, FaultPlan(1, when=when, calls=ALL)), Retry(4, clock=clock))
        arguments: dict[str, tuple[object, ...]] = {
            "put": ("k", b"new value!"),
            "put_with": ("k", b"new value!", {"a": "b"}),
            "get_into": ("k", memoryview(bytearray(10))),
        }
        getattr(store, call)(*arguments.get(call, ("k",)))
        assert len(clock.slept) == 1, call
        if "put" in call:
            assert driver.get("k") == b"new value!"


def test_retry_gives_up_with_the_cause() -> None:
    store, _, clock = flaky(1, persistent=True)
    with pytest.raises(UnavailableError, match=r"put of 'k' in memory:// failed 4 times, last: put of 'k': fault 4"):
        store.put("k", b"x")
    assert len(clock.slept) == 3


def test_retry_of_an_exclusive_put_whose_answer_was_lost() -> None:
    clock, driver = FakeClock(), MemoryStore()
    store = Retrying(Faulty(driver, FaultPlan(1, when=When.AFTER)), Retry(clock=clock))
    assert store.put_if_absent("k", b"mine") is True
    driver.put("other", b"theirs")
    store = Retrying(Faulty(driver, FaultPlan(1)), Retry(clock=clock))
    assert store.put_if_absent("other", b"mine") is False


class Choppy(MemoryStore):
    """Listings that break off after a few keys."""

    def __init__(self, each: int, breaks: int) -> None:
        super().__init__()
        self.each, self.breaks = each, breaks

    def scan(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        for number, info in enumerate(super().scan(prefix, start_after)):
            if number == self.each and self.breaks:
                self.breaks -= 1
                raise TransientError("503")
            yield info


@pytest.mark.parametrize(("each", "breaks"), [(3, 2), (3, 5), (0, 3), (1, 11)])
def test_a_broken_listing_goes_on_where_it_was(each: int, breaks: int) -> None:
    driver = Choppy(each, breaks)
    names = [f"k{number:02d}" for number in range(12)]
    for name in names:
        driver.put(name, b"x")
    clock = FakeClock()
    store = Retrying(driver, Retry(4, clock=clock))
    assert [info.key for info in store.scan("k")] == names
    assert clock.slept


def test_a_listing_that_stays_broken_ends_with_an_error() -> None:
    driver = Choppy(0, 99)
    driver.put("k", b"x")
    with pytest.raises(UnavailableError):
        list(Retrying(driver, Retry(4, clock=FakeClock())).scan())


def test_bandwidth_is_kept() -> None:
    clock = FakeClock()
    store = Limited(MemoryStore(), upload=1000, download=500, clock=clock)
    for _ in range(10):
        store.put("k", bytes(1000))
    assert clock.monotonic() == pytest.approx(9.75)
    for _ in range(5):
        store.get("k")
    assert clock.monotonic() == pytest.approx(9.75 + 9.75, rel=0.02)


def test_no_more_calls_at_a_time_than_allowed() -> None:
    class Slow(MemoryStore):
        now = most = 0
        lock = threading.Lock()

        def get(self, key: str, offset: int = 0, length: int | None = None) -> Buffer:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            threading.Event().wait(0.002)
            with self.lock:
                self.now -= 1
            return super().get(key, offset, length)

    driver = Slow()
    driver.put("k", b"x")
    store = Limited(driver, calls=2)
    with Pool("test", 8) as pool:
        list(pool.map_bounded(lambda _: store.get("k"), range(20)))
    assert driver.most == 2


def test_checksums_as_juicefs_keeps_them() -> None:
    driver = MemoryStore()
    store = Checksummed(driver)
    store.put("k", b"hello")
    assert driver.get_with("k")[1] == {"crc32c": "2591144780"}
    assert crc32c(b"123456789") == 0xE3069283
    driver.put_with("k", b"jello", driver.get_with("k")[1])
    with pytest.raises(CorruptError, match="CRC-32C"):
        store.get("k")
    with pytest.raises(CorruptError):
        store.get_with("k")
    with pytest.raises(CorruptError, match="CRC-32C"):
        store.fill("k", memoryview(bytearray(5)))
    assert store.get("k", 1, 3) == b"ell"  # a part cannot be checked
    driver.put("plain", b"from a client that keeps none")
    assert store.get("plain") == b"from a client that keeps none"


def test_the_meter_counts() -> None:
    metrics = Metrics()
    store = Metered(Faulty(MemoryStore(), FaultPlan(3)), metrics)
    store.put("a", bytes(100))
    store.put("b", bytes(50))
    with pytest.raises(TransientError):
        store.put("c", bytes(7))
    store.get("a", 10, 20)
    store.fill("b", memoryview(bytearray(64)))
    with pytest.raises(NotFound):
        store.get("nothing")
    shot = metrics.snapshot()
    assert shot["objects.put.bytes"] == 150
    assert shot["objects.put.count"] == 3
    assert shot["objects.put.errors"] == 1
    assert shot["objects.get.bytes"] == 70
    assert shot["objects.get.count"] == 3
    assert "objects.get.errors" not in shot


@pytest.mark.parametrize(
    ("when", "left"),
    [(When.BEFORE, [b"1", None, b"3"]), (When.AFTER, [b"1", b"22", b"3"]), (When.TORN, [b"1", b"2", b"3"])],
)
def test_faults_strike_where_they_are_planned(when: When, left: list[bytes | None]) -> None:
    driver = MemoryStore()
    plan = FaultPlan(2, when=when)
    store = Faulty(driver, plan)
    store.put("k1", b"1")
    store.get("k1")  # reads are not counted by default
    with pytest.raises(TransientError, match="fault 2"):
        store.put("k2", b"22")
    store.put("k3", b"3")
    found = {info.key: driver.get(info.key) for info in driver.scan()}
    assert [found.get(f"k{number}") for number in (1, 2, 3)] == left
    assert (plan.seen, plan.struck) == (3, 1)


def test_a_persistent_fault_lasts_until_healed() -> None:
    plan = FaultPlan(2, persistent=True, error=UnavailableError)
    store = Faulty(MemoryStore(), plan)
    store.put("a", b"1")
    for _ in range(3):
        with pytest.raises(UnavailableError):
            store.delete("a")
    plan.heal()
    store.delete("a")
    assert (plan.seen, plan.struck) == (5, 3)


def test_prefixes_nest() -> None:
    driver = MemoryStore("deep")
    store = Prefixed(Prefixed(driver, "a/"), "b/")
    store.put("k", b"x")
    assert driver.get("a/b/k") == b"x"
    assert store.location == "memory://deep/a/b/"
