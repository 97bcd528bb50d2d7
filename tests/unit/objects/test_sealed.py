"""Encryption (volume-format.md 5.3), shards (5.1) and the registry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fscore.domain.errors import CorruptError, SettingError
from fscore.domain.keys import shard_of
from fscore.objects.file import FileStore
from fscore.objects.memory import MemoryStore
from fscore.objects.registry import open_store
from fscore.objects.s3.store import S3Store
from fscore.objects.wrap.encrypt import Encrypted, Sealer
from fscore.objects.wrap.prefixed import Prefixed
from fscore.objects.wrap.sharded import Sharded

KEY = rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = KEY, passphrase: str = "", *, old: bool = False) -> str:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, lock).decode()


@pytest.mark.parametrize("algorithm", ["", "aes256gcm-rsa", "chacha20-rsa", "AES256GCM-RSA"])
def test_sealed_and_opened(algorithm: str) -> None:
    driver = MemoryStore()
    store = Encrypted(driver, Sealer(pem(), algorithm))
    data = os.urandom(100_000)
    store.put("k", data)
    assert not store.reads_parts
    assert store.get("k") == data
    assert store.get("k", 5, 10) == data[5:15]
    assert store.get("k", 99_990) == data[99_990:]
    buffer = bytearray(7)
    assert store.get_into("k", memoryview(buffer), 3) == 7
    assert buffer == data[3:10]
    assert data[1000:1032] not in driver.get("k")
    store.put("again", data)
    assert driver.get("again")[300:] != driver.get("k")[300:]
    assert store.put_if_absent("k", b"x") is False
    store.put_with("meta", b"tiny", {"a": "b"})
    assert store.get_with("meta") == (b"tiny", {"a": "b"})


def test_the_frame_of_the_format() -> None:
    sealed = Sealer(pem()).seal(b"tiny")
    assert sealed[:3].hex() == "01000c"
    assert len(sealed) == 291


@pytest.mark.parametrize("at", [0, 2, 5, 200, 262, 270, -1])
def test_every_damage_is_found(at: int) -> None:
    driver = MemoryStore()
    store = Encrypted(driver, Sealer(pem()))
    store.put("k", b"some plain text")
    stored = bytearray(driver.get("k"))
    stored[at] ^= 0x40
    driver.put("k", stored)
    with pytest.raises(CorruptError, match="object 'k'"):
        store.get("k")
    driver.put("k", stored[:2])
    with pytest.raises(CorruptError):
        store.get("k")


@pytest.mark.parametrize("old", [True, False])
def test_passphrases(monkeypatch: pytest.MonkeyPatch, *, old: bool) -> None:
    text = pem(KEY, "open sesame", old=old)
    monkeypatch.delenv("JFS_RSA_PASSPHRASE", raising=False)
    with pytest.raises(SettingError, match="set JFS_RSA_PASSPHRASE"):
        Sealer(text)
    monkeypatch.setenv("JFS_RSA_PASSPHRASE", "wrong")
    with pytest.raises(SettingError, match="check JFS_RSA_PASSPHRASE"):
        Sealer(text)
    monkeypatch.setenv("JFS_RSA_PASSPHRASE", "open sesame")
    assert Sealer(pem()).open(Sealer(text).seal(b"x"), "it") == b"x"


def test_keys_that_cannot_be_used() -> None:
    with pytest.raises(SettingError, match="no PEM"):
        Sealer("not a key")
    with pytest.raises(SettingError, match="no RSA key"):
        Sealer(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(SettingError, match="'sm4gcm' is not one of"):
        Sealer(pem(), "sm4gcm")


def test_another_key_does_not_open_it() -> None:
    sealed = Sealer(pem()).seal(b"x")
    with pytest.raises(CorruptError):
        Sealer(pem(rsa.generate_private_key(65537, 2048))).open(sealed, "it")


def test_shards_by_the_vectors_of_the_format() -> None:
    assert shard_of("myjfs/chunks/123/123456/123456789_3_4194304", 4) == 0
    assert shard_of("myjfs/chunks/15/123/123456789_3_4194304", 4) == 3
    drivers = [MemoryStore(str(number)) for number in range(4)]
    store = Prefixed(Sharded(drivers), "myjfs/")
    keys = [f"chunks/0/0/{number}_0_1" for number in range(40)]
    for key in keys:
        store.put(key, b"x")
    store.put("chunks/123/123456/123456789_3_4194304", b"there")
    assert drivers[0].get("myjfs/chunks/123/123456/123456789_3_4194304") == b"there"
    assert all(len(list(driver.scan())) > 3 for driver in drivers)
    listed = [info.key for info in store.scan("chunks/0/")]
    assert listed == sorted(keys)
    assert [info.key for info in store.scan("chunks/0/", listed[10])] == listed[11:]
    assert store.head(keys[0]).size == 1
    assert store.put_if_absent(keys[0], b"y") is False
    store.put_with("k", b"x", {"a": "b"})
    assert store.get_with("k") == (b"x", {"a": "b"})
    store.delete(keys[0])
    assert len(list(store.scan("chunks/0/"))) == 39
    store.close()


def test_the_registry(tmp_path: Path) -> None:
    assert isinstance(open_store("FILE", f"{tmp_path}/"), FileStore)
    assert open_store("memory", "memory://reg") is open_store("memory", "reg")
    assert isinstance(open_store("minio", "http://127.0.0.1:9/models", access_key="a", secret_key="b"), S3Store)
    sharded = open_store("file", f"{tmp_path}/s%d/", prefix="v/", shards=3)
    for number in range(30):
        sharded.put(f"k{number}", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s0", "s1", "s2"]
    for storage, bucket, shards, hint in [
        ("tape", "x", 0, "not one of file, s3, minio, memory"),
        ("file", "relative/path", 0, "absolute path"),
        ("file", "/same/", 2, "needs one %d"),
        ("minio", "http://127.0.0.1:9000", 0, "names no bucket"),
    ]:
        with pytest.raises(SettingError, match=hint):
            open_store(storage, bucket, shards=shards)
