"""Whole volumes on every engine and two kinds of store; fsck ends every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.files.filesystem import Filesystem
from fscore.volume import Volume
from tests.kit.engines import SERVERS, fresh_url
from tests.kit.volumes import MakeVolume, assert_sound

PAIRS = [pytest.param((kind, store)) for kind in ("memory", "sqlite") for store in ("files", "memory")]
PAIRS += [pytest.param(("redis", store), marks=pytest.mark.redis) for store in ("files", "memory")]
PAIRS += [pytest.param((kind, "memory"), marks=getattr(pytest.mark, kind)) for kind in SERVERS]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An engine and a store."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def meta_url(pair: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """META-URL of an empty place for a volume."""
    return fresh_url(pair[0], request, tmp_path)


@pytest.fixture
def any_volume(pair: tuple[str, str], make_volume: MakeVolume) -> Iterator[Volume]:
    """An open volume with blocks of 64 KiB and no trash."""
    setting = {} if pair[1] == "files" else {"storage": "memory", "bucket": uuid.uuid4().hex}
    volume = make_volume(setting=setting)
    yield volume
    assert_sound(volume)


@pytest.fixture
def fs(any_volume: Volume) -> Filesystem:
    """Its tree."""
    return any_volume.files
