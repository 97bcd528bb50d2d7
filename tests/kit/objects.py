"""Every kind of object store, for suites that must hold on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.objects.api import ObjectStore
from fscore.objects.file import FileStore
from fscore.objects.memory import MemoryStore
from fscore.objects.registry import open_store
from tests.kit.s3_server import S3Server, on_s3


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=on_s3)])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of each kind."""
    store: ObjectStore
    if request.param == "memory":
        store = MemoryStore("contract")
    elif request.param == "file":
        store = FileStore(f"{tmp_path}/objects/")
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        store = open_store("s3", server.new_bucket(), access_key=server.access_key, secret_key=server.secret_key)
    yield store
    store.close()
