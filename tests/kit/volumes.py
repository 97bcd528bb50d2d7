"""Fixtures of whole volumes: every engine, real stores, fsck at the end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from fscore.admin.format import format_volume
from fscore.admin.fsck import fsck
from fscore.meta.engines.registry import forget_memory
from fscore.runtime.clock import FakeClock
from fscore.volume import Volume, open_volume
from tests.kit.engines import fresh_url

ENGINES = ("memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis))


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()


@pytest.fixture(params=ENGINES)
def meta_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """META-URL of an empty place for a volume, on every engine in turn."""
    return fresh_url(request.param, request, tmp_path)


class MakeVolume(Protocol):
    """Opens a volume at `url`, formatted first if it is not there; closed at teardown."""

    def __call__(self, url: str = ..., *, setting: dict[str, Any] | None = ..., **options: Any) -> Volume: ...


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[MakeVolume]:
    """A factory of open volumes with a file store each; `setting` goes to format_volume, options to open_volume."""
    opened: list[Volume] = []
    formatted: set[str] = set()

    def make(url: str = "memory://shared", *, setting: dict[str, Any] | None = None, **options: Any) -> Volume:
        if url not in formatted:
            chosen: dict[str, Any] = {
                "bucket": str(tmp_path / f"objects-{len(formatted)}"),
                "block_size": "64K",
                "trash_days": 0,
            }
            format_volume(url, "test-volume", **(chosen | (setting or {})))
            formatted.add(url)
        defaults: dict[str, Any] = {"background": False, "durable": False, "patience_s": (0.0, 0.01)}
        defaults["free_space_ratio"] = 0.0  # how full this machine's disk is decides no test
        volume = open_volume(url, **(defaults | options))
        opened.append(volume)
        return volume

    yield make
    for volume in reversed(opened):
        volume.close()
    forget_memory("shared")


@pytest.fixture
def make_volume(meta_url: str, open_at: MakeVolume) -> MakeVolume:  # which is closed before its place goes
    """As `open_at`, on every engine in turn: without a URL all calls open the same volume."""
    return partial(open_at, meta_url)


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
    gate, engine = "nextCleanupSlices", volume.meta.engine
    assert engine.claim_job(gate, engine.counters().get(gate, 0), 0), "on Redis what other clients let go comes then"
    volume.collect()
    report = fsck(volume)
    assert report.problems == []
    if not leaks:
        assert report.leaks == []
