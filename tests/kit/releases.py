"""Help for tests of the hub: volumes in memory, small model directories, and releases in one call."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fscore.hub import approval
from fscore.hub.push import push
from fscore.hub.registry import Registry
from fscore.hub.reports import PushReport, VersionInfo
from fscore.volume import Volume
from tests.kit.volumes import MakeVolume, assert_sound

Tensors = dict[str, bytes]


def safetensors(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file of U8 tensors, in the order given."""
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    position = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def noise(size: int, seed: int) -> bytes:
    """Bytes that no compression and no dedup can shrink."""
    return np.random.default_rng(seed).bytes(size)


def model_dir(folder: Path, tensors: Tensors, **files: bytes) -> Path:
    """A model directory: one weight file, a config, and what else is given (`__` for a dot in names)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    (folder / "config.json").write_text('{"model_type": "made", "vocab_size": 8}')
    for name, data in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(data)
    return folder


def stored(volume: Volume) -> int:
    """Bytes of all objects in the store."""
    volume.sync()
    return sum(found.size for found in volume.objects.scan("chunks/"))


def release(volume: Volume, source: Path, ref: str, *, alias: str = "") -> tuple[PushReport, VersionInfo]:
    """Push by ann, approved by bob, published by ann."""
    pushed = push(volume, source, ref, user="ann", alias=alias)
    approval.request(volume, pushed.ref, actor="ann")
    approval.decide(volume, pushed.ref, "approve", by="bob")
    return pushed, Registry(volume).publish(pushed.ref, "ann")


def content_of(volume: Volume, top: str) -> dict[str, bytes]:
    """Every file below a path but our own records, by its relative path."""
    found: dict[str, bytes] = {}
    for _, _, others in volume.files.walk(top):
        for stat in others:
            relative = stat.path.removeprefix(f"{top}/")
            if "/.fscore/" not in f"/{relative}":
                found[relative] = volume.files.read_bytes(stat.path)
    return found


def local_content(folder: Path) -> dict[str, bytes]:
    """Every file of a local directory but our own records, by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".fscore" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def hub_volume(open_at: MakeVolume, tmp_path: Path) -> Iterator[Volume]:
    """A volume in memory for what is the hub's own affair; sound at the end."""
    volume = open_at(f"memory://{tmp_path.name}-hub")
    yield volume
    assert_sound(volume)


@pytest.fixture
def small_model(tmp_path: Path) -> Callable[..., Path]:
    """Makes model directories of ten 80 kB tensors; `changed` ones differ, `name` is the directory."""

    def make(name: str = "model", changed: int = 0, **files: bytes) -> Path:
        tensors = {f"t{n}": noise(80_000, 1000 + n if n < changed else n) for n in range(10)}
        return model_dir(tmp_path / name, tensors, **files)

    return make
