"""Whole volumes on every engine and two kinds of store; fsck ends every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from fscore.files.filesystem import Filesystem
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound


@pytest.fixture(params=["files", "memory"])
def any_volume(request: pytest.FixtureRequest, make_volume: MakeVolume) -> Iterator[Volume]:
    """An open volume with blocks of 64 KiB and no trash."""
    setting = {} if request.param == "files" else {"storage": "memory", "bucket": uuid.uuid4().hex}
    volume = make_volume(setting=setting)
    yield volume
    assert_sound(volume)


@pytest.fixture
def fs(any_volume: Volume) -> Filesystem:
    """Its tree."""
    return any_volume.files
