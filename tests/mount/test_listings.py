"""Directories listed on a real mount: large ones, changing ones, in the middle and from the start again."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.mounts import Mounted, open_client

pytestmark = pytest.mark.mount

MANY = [5_000, pytest.param(50_000, marks=pytest.mark.nightly)]
"""Entries of the large directory: more than the lists that engines fetch, and, at night, than a handle keeps."""


class Dirent(ctypes.Structure):
    """`struct dirent` of glibc on 64 bits."""

    _fields_ = [  # type: ignore[mutable-override]  # typeshed has it so
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    ]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.POINTER(Dirent)
_libc.telldir.restype = ctypes.c_long
for _name in ("readdir", "rewinddir", "telldir", "closedir"):
    getattr(_libc, _name).argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Stream:
    """A directory stream of the C library."""

    def __init__(self, path: Path) -> None:
        self._dir = _libc.opendir(os.fsencode(path))
        assert self._dir

    def read(self) -> bytes:
        """The next name; empty at the end."""
        found = _libc.readdir(self._dir)
        return bytes(found.contents.d_name) if found else b""

    def rest(self) -> list[bytes]:
        """Every name from here on."""
        return list(iter(self.read, b""))

    def tell(self) -> int:
        """Where the next name is."""
        return int(_libc.telldir(self._dir))

    def seek(self, place: int) -> None:
        """Go to a place that `tell` gave."""
        _libc.seekdir(self._dir, place)

    def rewind(self) -> None:
        """Go to the start, and see the directory as it is now."""
        _libc.rewinddir(self._dir)

    def close(self) -> None:
        """Close it."""
        _libc.closedir(self._dir)


@contextmanager
def stream(path: Path) -> Iterator[Stream]:
    """An open directory."""
    opened = Stream(path)
    try:
        yield opened
    finally:
        opened.close()


def fill(mounted: Mounted, count: int) -> None:
    """Empty files, made by another client: fast, and unknown to the mount."""
    with open_client(mounted.url) as client:
        for number in range(count):
            client.files.create(f"{mounted.inside}/file-{number:06d}")


def test_a_listing_begins_with_dots_and_has_types(mounted: Mounted) -> None:
    (mounted.path / "d").mkdir()
    (mounted.path / "f").touch()
    (mounted.path / "l").symlink_to("f")
    os.mkfifo(mounted.path / "p")
    with stream(mounted.path) as names:
        assert sorted(names.rest()) == [b".", b"..", b"d", b"f", b"l", b"p"]
    kinds = {entry.name: (entry.is_dir(), entry.is_symlink()) for entry in os.scandir(mounted.path)}
    assert kinds == {"d": (True, False), "f": (False, False), "l": (False, True), "p": (False, False)}
    inodes = {entry.name: entry.inode() for entry in os.scandir(mounted.path)}
    assert inodes == {name: (mounted.path / name).lstat().st_ino for name in inodes}


@pytest.mark.parametrize("many", MANY)
def test_a_large_directory(mounted: Mounted, many: int) -> None:
    fill(mounted, many)
    assert len(os.listdir(mounted.path)) == many
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(mounted.path)}
    assert len(sizes) == many
    said = subprocess.run(["ls", "-f", mounted.path], capture_output=True, check=True).stdout.split()
    assert len(set(said)) == many + 2
    with stream(mounted.path) as names:
        first = [names.read() for _ in range(many // 3)]
        place = names.tell()
        rest = names.rest()
        assert len(set(first) | set(rest)) == many + 2
        names.seek(place)
        assert names.rest() == rest
        names.rewind()
        assert len(names.rest()) == many + 2
    subprocess.run(["rm", "-rf", mounted.path], check=True)
    assert not mounted.path.exists()


def test_seeking_to_every_place(mounted: Mounted) -> None:
    for number in range(200):
        (mounted.path / f"{number:03d}").touch()
    with stream(mounted.path) as names:
        places = []
        found = []
        while True:
            places.append(names.tell())
            name = names.read()
            if not name:
                break
            found.append(name)
        for step in (150, 3, 0, 77, 201):
            names.seek(places[step])
            assert names.rest() == found[step:]


def test_rewinding_sees_what_changed(mounted: Mounted) -> None:
    (mounted.path / "before").touch()
    with stream(mounted.path) as names:
        assert set(names.rest()) == {b".", b"..", b"before"}
        (mounted.path / "after").touch()
        (mounted.path / "before").unlink()
        names.rewind()
        assert set(names.rest()) == {b".", b"..", b"after"}


def test_removing_while_listing_misses_nothing(mounted: Mounted) -> None:
    for number in range(1000):
        (mounted.path / f"{number:05d}").touch()
    removed = 0
    for entry in os.scandir(mounted.path):
        os.unlink(entry.path)
        removed += 1
    assert removed == 1000
    assert os.listdir(mounted.path) == []


def test_what_stays_is_seen_while_other_names_come_and_go(mounted: Mounted) -> None:
    for number in range(700):
        (mounted.path / f"stays-{number:05d}").touch()
    seen = []
    for number, entry in enumerate(os.scandir(mounted.path)):
        seen.append(entry.name)
        if number % 10 == 0:
            (mounted.path / f"new-{number:05d}").touch()
        if number % 20 == 10:
            (mounted.path / f"new-{number - 10:05d}").unlink()
    stayed = [name for name in seen if name.startswith("stays")]
    assert sorted(stayed) == [f"stays-{number:05d}" for number in range(700)]


def test_a_listing_does_not_bring_back_what_was_removed(mounted: Mounted) -> None:
    for number in range(500):
        (mounted.path / f"{number:05d}").touch()
    with stream(mounted.path) as names:
        assert names.read() == b"."
        (mounted.path / "00400").unlink()
        os.rename(mounted.path / "00401", mounted.path / "00402")
        names.rest()
        assert not (mounted.path / "00400").exists()
        assert not (mounted.path / "00401").exists()


def test_a_listing_tells_what_this_machine_has_written(mounted: Mounted) -> None:
    for number in range(300):
        (mounted.path / f"{number:05d}").touch()
    with (mounted.path / "00250").open("wb") as file, os.scandir(mounted.path) as entries:
        first = next(entries)
        file.write(b"x" * 1000)
        file.flush()
        sizes = {entry.name: entry.stat().st_size for entry in (first, *entries)}
        assert sizes["00250"] == 1000
        assert os.stat(mounted.path / "00250").st_size == 1000
