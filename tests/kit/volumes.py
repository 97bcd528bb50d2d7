"""Fixtures of whole volumes: every engine, real stores, fsck at the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.meta.engines.registry import forget_memory
from fscore.runtime.clock import FakeClock
from fscore.volume import Volume, open_volume

ENGINES = ("memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis))


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()


@pytest.fixture(params=ENGINES)
def meta_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """META-URL of an empty place for a volume, on every engine in turn."""
    if request.param == "memory":
        name = uuid.uuid4().hex
        yield f"memory://{name}"
        forget_memory(name)
    elif request.param == "sqlite":
        yield f"sqlite3://{tmp_path / 'meta.db'}"
    else:
        yield request.getfixturevalue("redis_url")


class MakeVolume(Protocol):
    """Opens a volume, formatted first if it is not there; closed at teardown."""

    def __call__(self, url: str = ..., *, setting: dict[str, Any] | None = ..., **options: Any) -> Volume: ...


@pytest.fixture
def make_volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeVolume]:
    """A factory of open volumes, by default on `meta_url` with a file store; `setting` goes to format_volume."""
    opened: list[Volume] = []
    formatted: set[str] = set()

    def make(url: str = "", *, setting: dict[str, Any] | None = None, **options: Any) -> Volume:
        url = url or request.getfixturevalue("meta_url")
        if url not in formatted:
            chosen: dict[str, Any] = {"bucket": str(tmp_path / "objects"), "block_size": "64K", "trash_days": 0}
            format_volume(url, "test-volume", **(chosen | (setting or {})))
            formatted.add(url)
        defaults: dict[str, Any] = {"background": False, "durable": False, "patience_s": (0.0, 0.01)}
        volume = open_volume(url, **(defaults | options))
        opened.append(volume)
        return volume

    yield make
    for volume in reversed(opened):
        volume.close()


@pytest.fixture
def volume(make_volume: MakeVolume) -> Volume:
    """An open volume: file store, blocks of 64 KiB, no trash, no background threads."""
    return make_volume()


@pytest.fixture
def sound_volume(make_volume: MakeVolume) -> Iterator[Volume]:
    """As `volume`, and after the test fsck must find nothing wrong."""
    volume = make_volume()
    yield volume
    assert_sound(volume)


def assert_sound(volume: Volume, *, leaks: bool = False) -> None:
    """fsck finds no problem, and with `leaks=False` no leak either once dead slices are collected."""
    volume.sync()
    volume.collect()
    report = fsck(volume)
    assert report.problems == []
    if not leaks:
        assert report.leaks == []
