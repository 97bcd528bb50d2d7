"""Golden volumes: made by the official client 1.4.1, unpacked and loaded into places of their own.

`tests/golden/volumes/README.md` tells what is in them. Nothing here writes to the files that are kept.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
import zstandard

from tests.kit.redis_server import RedisServer

HOME = Path(__file__).resolve().parents[1] / "golden" / "volumes"
ON_REDIS = ("redis-plain", "redis-features", "redis-zstd-aes", "redis-chacha")
ON_SQLITE = ("sqlite-plain", "sqlite-features", "sqlite-lz4-hash")
ENCRYPTED = frozenset({"redis-zstd-aes", "redis-chacha"})
"""Their blocks are sealed with a key that PASSPHRASE opens."""
PASSPHRASE = "fscore-golden"

PARAMS: list[Any] = [pytest.param(name, marks=pytest.mark.redis) for name in ON_REDIS] + list(ON_SQLITE)


class Golden(NamedTuple):
    """One golden volume, loaded: where its records are, where its objects are, and what a reader must see."""

    name: str
    url: str
    bucket: str
    expected: dict[str, Any]

    @property
    def on_redis(self) -> bool:
        """Whether its records are in Redis."""
        return self.name in ON_REDIS


def redis_records(name: str) -> list[dict[str, Any]]:
    """Every key of a golden Redis volume, decoded."""
    document = json.loads((HOME / name / "meta.redis.json").read_text())
    return [_decoded(entry) for entry in document["keys"]]


def _decoded(value: Any) -> Any:
    if isinstance(value, str):
        return base64.b64decode(value)
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, dict):
        return {key: part if key == "type" else _decoded(part) for key, part in value.items()}
    return value


def load_redis(client: redis.Redis, records: list[dict[str, Any]]) -> None:
    """Put the keys into an empty database."""
    with client.pipeline(transaction=False) as pipe:
        for record in records:
            key = record["key"]
            match record["type"]:
                case "string":
                    pipe.set(key, record["value"])
                case "hash":
                    pipe.hset(key, mapping=dict(record["fields"]))
                case "list":
                    pipe.rpush(key, *record["items"])
                case "set":
                    pipe.sadd(key, *record["members"])
                case "zset":
                    pipe.zadd(key, dict(record["members"]))
                case kind:
                    raise AssertionError(f"a golden volume has a key of type {kind}")
        pipe.execute()


def unpack_objects(name: str, place: Path) -> str:
    """The bucket with the volume's objects, with the final / that the `file` driver wants."""
    packed = (HOME / name / "objects.tar.zst").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        # Python 3.11.2, Debian's, has no filters yet.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(place)
    return f"{place / 'objects'}/"


def load(name: str, place: Path, server: RedisServer | None) -> Golden:
    """Load one volume below `place`, its records into a fresh database of `server` when they belong in Redis."""
    if name in ON_REDIS:
        assert server is not None
        url = server.fresh_url()
        with server.client_of(url) as client:
            load_redis(client, redis_records(name))
    else:
        shutil.copy(HOME / name / "meta.sqlite3", place / "meta.db")
        (place / "meta.db").chmod(0o600)
        url = f"sqlite3://{place / 'meta.db'}"
    expected = json.loads((HOME / name / "expected.json").read_text())
    return Golden(name, url, unpack_objects(name, place), expected)


@pytest.fixture(scope="module", params=PARAMS)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Each golden volume in turn, for tests that only read it."""
    server = request.getfixturevalue("redis_server") if request.param in ON_REDIS else None
    return load(request.param, tmp_path_factory.mktemp(request.param), server)


@pytest.fixture(params=PARAMS)
def golden_copy(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    """Each golden volume in turn, for a test that writes to it."""
    server = request.getfixturevalue("redis_server") if request.param in ON_REDIS else None
    return load(request.param, tmp_path, server)
