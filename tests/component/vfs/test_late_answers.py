"""An answer of the tree that was under way while this process committed a file: what is newer stays.

The kernel believes an answer that it asked for after a write was done. A length from before that write has it cut the
file off: programs read too little, and those that mapped the file die.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from fscore.domain.caller import Caller
from fscore.domain.locks import LockKind
from fscore.mount.api import AttrRequest, LockRequest
from fscore.mount.operations import Operations
from fscore.mount.options import MountOptions
from fscore.volume import Volume

WHO = Caller.root()
SIZE = 100_000
NAMES = ("getattr", "lookup", "open_file", "cached_node", "cached_child", "nodes", "setattr")
Ask = Callable[[Operations, int], int]


class Late:
    """An answer of one method of the tree arrives after something else has happened, once."""

    def __init__(self, meta: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._where = ""
        self._happens: Callable[[], object] = lambda: None
        for name in NAMES:
            monkeypatch.setattr(meta, name, self._late(name, getattr(meta, name)))

    def after(self, name: str, happens: Callable[[], object]) -> None:
        """The next answer of this method waits for that."""
        self._where, self._happens = name, happens

    @property
    def came(self) -> bool:
        """Whether an answer was late by now."""
        return not self._where

    def _late(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **options: Any) -> Any:
            found = method(*args, **options)
            if self._where == name:
                self._where = ""
                self._happens()
            return found

        return answer


@pytest.fixture
def late(sound_volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Late:
    return Late(sound_volume.meta, monkeypatch)


@pytest.fixture
def operations(sound_volume: Volume) -> Operations:
    return Operations(sound_volume.vfs, MountOptions())


@pytest.fixture
def written(operations: Operations) -> tuple[int, int]:
    """A file of a few committed bytes and of many that wait; its inode and a handle."""
    entry, file = operations.create(WHO, 1, b"f", 0o644, os.O_RDWR)
    operations.write(WHO, entry.ino, file.fh, 0, b"first")
    operations.flush(WHO, entry.ino, file.fh, 0)
    operations.write(WHO, entry.ino, file.fh, 0, b"x" * SIZE)
    return entry.ino, file.fh


def listed(operations: Operations, _: int) -> int:
    opened = operations.opendir(WHO, 1, os.O_RDONLY)
    found = operations.readdir(WHO, 1, opened.fh, 0, 100, plus=True)
    operations.releasedir(WHO, 1, opened.fh)
    (attr,) = (entry.attr for entry in found if entry.name == b"f")
    assert attr is not None
    return attr.length


def peeked(operations: Operations, ino: int) -> int:
    found = operations.peek_getattr(WHO, ino)
    assert found is not None
    return found.attr.length


def peeked_by_name(operations: Operations, _: int) -> int:
    found = operations.peek_lookup(WHO, 1, b"f")
    assert found is not None
    return found.attr.length


def stated(operations: Operations, ino: int) -> int:
    return operations.getattr(WHO, ino).attr.length


def looked_up(operations: Operations, _: int) -> int:
    return operations.lookup(WHO, 1, b"f").attr.length


def changed(operations: Operations, ino: int) -> int:
    return operations.setattr(WHO, ino, AttrRequest(mode=0o600)).attr.length


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (stated, "getattr"),
        (looked_up, "lookup"),
        (listed, "nodes"),
        (peeked, "cached_node"),
        (peeked_by_name, "cached_child"),
        (changed, "setattr"),
    ],
)
@pytest.mark.parametrize("closed", [False, True])
def test_the_length_is_never_older_than_a_finished_write(
    operations: Operations, written: tuple[int, int], late: Late, ask: Ask, name: str, closed: bool
) -> None:
    ino, fh = written
    commit = operations.release if closed else operations.flush
    late.after(name, lambda: commit(WHO, ino, fh, 0))
    assert ask(operations, ino) == SIZE
    assert late.came
    if not closed:
        operations.release(WHO, ino, fh)


def test_a_lock_does_not_bring_back_an_old_length(operations: Operations, written: tuple[int, int], late: Late) -> None:
    ino, fh = written
    late.after("getattr", lambda: operations.flush(WHO, ino, fh, 0))
    operations.setlk(WHO, ino, LockRequest(1, LockKind.READ, 0, (1 << 63) - 1, os.getpid()))
    assert late.came
    assert len(operations.read(WHO, ino, fh, 0, 2 * SIZE)) == SIZE
    assert stated(operations, ino) == SIZE
    operations.release(WHO, ino, fh)


@pytest.mark.parametrize("closed", [False, True])
def test_an_open_does_not_bring_back_an_old_length(
    operations: Operations, written: tuple[int, int], late: Late, closed: bool
) -> None:
    ino, fh = written
    commit = operations.release if closed else operations.flush
    late.after("open_file", lambda: commit(WHO, ino, fh, 0))
    other = operations.open(WHO, ino, os.O_RDONLY).fh
    assert late.came
    assert len(operations.read(WHO, ino, other, 0, 2 * SIZE)) == SIZE
    for handle in (other,) if closed else (other, fh):
        operations.release(WHO, ino, handle)


def test_a_reader_that_asks_again_does_not_take_an_old_length(
    operations: Operations, written: tuple[int, int], late: Late, sound_volume: Volume
) -> None:
    ino, fh = written
    sound_volume.vfs.changed(ino)
    late.after("getattr", lambda: operations.flush(WHO, ino, fh, 0))
    assert sound_volume.vfs.length(fh) == SIZE
    assert late.came
    assert len(operations.read(WHO, ino, fh, 0, 2 * SIZE)) == SIZE
    operations.release(WHO, ino, fh)


def test_a_file_that_went_meanwhile_is_told_as_it_was(
    operations: Operations, written: tuple[int, int], late: Late
) -> None:
    ino, fh = written
    operations.release(WHO, ino, fh)
    late.after("getattr", lambda: operations.unlink(WHO, 1, b"f"))
    assert stated(operations, ino) == SIZE
