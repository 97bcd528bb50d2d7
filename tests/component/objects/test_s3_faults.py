"""A real S3 server with faults in front of it: what the driver and the retry wrapper make of them."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from fscore.domain.errors import CorruptError, Denied, NotFound, SettingError, TransientError, UnavailableError
from fscore.objects.api import ObjectStore
from fscore.objects.registry import open_store
from fscore.objects.s3.store import S3Store
from fscore.objects.wrap.checksum import Checksummed
from fscore.objects.wrap.retry import Retrying
from fscore.objects.wrap.wrapper import unwrap
from fscore.runtime.clock import FakeClock
from fscore.runtime.retry import Retry
from tests.kit.fault_proxy import FaultProxy, fault_proxy
from tests.kit.s3_server import S3Server, on_s3

pytestmark = on_s3


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(s3_server: S3Server, proxy: FaultProxy) -> Iterator[ObjectStore]:
    bucket = s3_server.new_bucket().replace(s3_server.endpoint, proxy.url)
    store = open_store("s3", bucket, access_key=s3_server.access_key, secret_key=s3_server.secret_key)
    yield store
    store.close()


def test_503_is_transient_and_the_driver_does_not_retry_by_itself(store: ObjectStore, proxy: FaultProxy) -> None:
    for call in (
        lambda: store.put("k", b"x"),
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: list(store.scan()),
    ):
        proxy.refuse = 1
        seen = proxy.seen
        with pytest.raises(TransientError, match="503"):
            call()
        assert proxy.seen == seen + 1


def test_the_retry_rides_through_a_minute_of_503(store: ObjectStore, proxy: FaultProxy) -> None:
    clock = FakeClock()
    default = Retry(clock=clock, rng=random.Random(1))
    patient = Retrying(store, default)
    data = os.urandom(1 << 20)
    proxy.refuse = default.attempts - 1  # as many as the default outlasts
    patient.put("k", data)
    assert proxy.refused == default.attempts - 1
    assert sum(clock.slept) > 60
    proxy.refuse = 5
    assert patient.get("k") == data
    proxy.refuse = 3
    assert [info.key for info in patient.scan()] == ["k"]
    proxy.refuse = 10_000
    with pytest.raises(UnavailableError, match=r"head of 'k' in http://.* failed 14 times, last: .*503"):
        patient.head("k")


def test_an_answer_that_breaks_off_is_transient(store: ObjectStore, proxy: FaultProxy) -> None:
    data = os.urandom(1 << 20)
    store.put("k", data)
    proxy.cut = 1
    with pytest.raises(TransientError):
        store.get("k")
    proxy.cut = 1
    with pytest.raises(TransientError):
        store.get("k", 100, 500_000)
    proxy.cut = 1
    assert Retrying(store, Retry(clock=FakeClock())).get("k") == data


def test_a_lying_answer_is_found_by_its_checksum(store: ObjectStore, proxy: FaultProxy) -> None:
    summed = Checksummed(store)
    data = os.urandom(100_000)
    summed.put("k", data)
    buffer = memoryview(bytearray(len(data)))

    def filled() -> bytes:
        return bytes(buffer[: summed.fill("k", buffer)[0]])

    reads: list[Callable[[], bytes]] = [lambda: bytes(summed.get("k")), filled]
    for read in reads:
        assert read() == data
        proxy.flip = 1
        with pytest.raises(CorruptError, match="CRC-32C"):
            read()
        assert read() == data


def test_blocks_that_go_straight_into_memory_fail_as_others_do(store: ObjectStore, proxy: FaultProxy) -> None:
    data = os.urandom(1 << 20)
    store.put("k", data)
    buffer = memoryview(bytearray(len(data)))
    seen = proxy.seen
    assert store.fill("k", buffer)[0] == len(data)
    assert proxy.seen == seen + 1
    proxy.refuse = 1
    with pytest.raises(TransientError, match=r"get of 'k' in http://.*: 503"):
        store.fill("k", buffer)
    assert proxy.seen == seen + 2, "a server that is busy is not asked twice"
    proxy.cut = 1
    with pytest.raises(TransientError, match="of 1048576 bytes"):
        store.fill("k", buffer)
    proxy.refuse = proxy.cut = 1
    buffer[:] = bytes(len(buffer))
    assert Retrying(store, Retry(clock=FakeClock())).fill("k", buffer)[0] == len(data)
    assert buffer == data


def test_a_connection_that_was_closed_meanwhile_costs_nothing_but_a_try(store: ObjectStore) -> None:
    data = os.urandom(1000)
    store.put("k", data)
    buffer = memoryview(bytearray(len(data)))
    driver = unwrap(store)
    assert isinstance(driver, S3Store)
    assert driver.fill("k", buffer)[0] == len(data)
    assert driver._straight is not None
    for _, connection in driver._straight._idle:
        connection.sock.shutdown(socket.SHUT_RDWR)
    assert driver.fill("k", buffer)[0] == len(data)
    assert buffer == data


def test_who_may_not_read_is_told_so(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    wrong = open_store("s3", bucket, access_key=s3_server.access_key, secret_key="wrong")
    worth = [wrong.fills]
    for _ in range(6):
        with pytest.raises(Denied):
            wrong.fill("k", memoryview(bytearray(10)))
        worth.append(wrong.fills)
    assert worth == [True] * 4 + [False] * 3, "the way past the client is not tried any more"
    wrong.close()


def test_a_server_that_is_gone(store: ObjectStore) -> None:
    gone = open_store("s3", "http://127.0.0.1:1/models", access_key="a", secret_key="b")
    with pytest.raises(TransientError):
        gone.get("k")
    with pytest.raises(UnavailableError):
        Retrying(gone, Retry(3, clock=FakeClock())).put("k", b"x")


def test_wrong_credentials_and_buckets(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    stranger = open_store("s3", bucket, access_key=s3_server.access_key, secret_key="wrong")
    with pytest.raises(Denied, match="check the access key"):
        stranger.put("k", b"x")
    nowhere = open_store(
        "s3", f"{s3_server.endpoint}/no-such-bucket", access_key=s3_server.access_key, secret_key=s3_server.secret_key
    )
    for call in (lambda: nowhere.put("k", b"x"), lambda: nowhere.get("k"), lambda: list(nowhere.scan())):
        with pytest.raises(SettingError, match="NoSuchBucket"):
            call()


def test_credentials_from_the_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    store = open_store("s3", s3_server.new_bucket())
    store.put("k", b"x")
    assert store.get("k") == b"x"


def test_credentials_from_a_profile(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    profile = tmp_path_factory.mktemp("aws") / "credentials"
    profile.write_text(
        f"[lab]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = open_store("s3", s3_server.new_bucket())
    store.put("k", b"x")
    assert store.get("k") == b"x"


def test_anonymous(s3_server: S3Server) -> None:
    store = open_store("s3", s3_server.new_bucket(), access_key="anonymous")
    with pytest.raises((Denied, NotFound)):
        store.get("k")
