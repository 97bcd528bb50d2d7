"""The files that a mount adds to its root: found, listed, guarded, read as they were opened; messages come in parts."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import BadHandle, Denied, Invalid, NotPermitted
from fscore.domain.ids import ROOT, TRASH
from fscore.runtime.clock import FakeClock
from fscore.vfs.internal import CONFIG, CONTROL, FIRST_HANDLE, LOG, REMEMBERED, STATS, Answer, Internal

SUPER = Caller.root()
STRANGER = Caller(uid=12345, gid=12345)


class Asked:
    """A control that remembers messages and answers with their payload, then one zero byte."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.hold = threading.Event()
        self.hold.set()
        self.cancelled = False
        self.closed = False

    def __call__(self, who: Caller, message: bytes, answer: Answer, cancelled: Callable[[], bool]) -> None:
        self.messages.append(message)
        self.hold.wait(10)
        self.cancelled = cancelled()
        answer(message[8:])
        answer(b"\0")

    def is_urgent(self, message: bytes) -> bool:
        return message[8:] == b"urgent"

    def close(self) -> None:
        self.closed = True
        self.hold.set()


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def internal(asked: Asked) -> Iterator[Internal]:
    counts = iter(range(100))
    made = Internal(FakeClock(), lambda: b"stats %d" % next(counts), lambda: b"{}", asked)
    yield made
    made.close()


def answer_of(internal: Internal, fh: int, offset: int) -> bytes:
    """What stands behind the message, read as the official commands read it: again after every end of file."""
    got = b""
    while not got.endswith(b"\0"):
        got += internal.read(fh, offset + len(got), 1 << 16)
    return got


def test_numbers_and_modes_are_those_of_the_format(internal: Internal) -> None:
    found = {name: internal.lookup(ROOT, name) for name in (b".accesslog", b".control", b".stats", b".config")}
    told = {name: (pair[0] - 0x7FFFFFFF00000000, pair[1].mode) for name, pair in found.items() if pair}
    assert told == {b".accesslog": (1, 0o400), b".control": (2, 0o666), b".stats": (3, 0o444), b".config": (4, 0o400)}
    assert [(entry.name, entry.ino) for entry in internal.entries()] == [
        (b".accesslog", LOG),
        (b".stats", STATS),
        (b".config", CONFIG),
        (b".trash", TRASH),
    ]


def test_control_is_found_everywhere_the_others_in_the_root(internal: Internal) -> None:
    assert internal.lookup(77, b".control") == internal.lookup(ROOT, b".control")
    assert internal.lookup(77, b".stats") is None
    assert internal.lookup(ROOT, b".trash") is None, "the volume knows that one itself"
    assert internal.lookup(ROOT, b"stats") is None
    assert internal.reserves(ROOT, b".trash")
    assert internal.reserves(ROOT, b".stats")
    assert not internal.reserves(77, b".stats")
    assert internal.owns(STATS)
    assert not internal.owns(TRASH)


def test_a_subdirectory_as_root_prefix_and_hiding() -> None:
    other = Internal(FakeClock(), bytes, bytes, Asked(), prefix=b".jfs.", trash=False, root=77)
    assert other.lookup(77, b".jfs.stats") is not None
    assert other.lookup(ROOT, b".jfs.stats") is None
    assert other.lookup(77, b".stats") is None
    assert [entry.name for entry in other.entries()] == [b".jfs.accesslog", b".jfs.stats", b".jfs.config"]
    other.close()
    hidden = Internal(FakeClock(), bytes, bytes, Asked(), hidden=True)
    assert list(hidden.entries()) == []
    assert hidden.lookup(ROOT, b".config") is not None, "unlisted, not out of reach: umount asks it for the process"
    assert hidden.lookup(ROOT, b".control") is not None
    hidden.close()


def test_an_open_file_stands_still(internal: Internal) -> None:
    first = internal.open(SUPER, STATS, os.O_RDONLY)
    second = internal.open(SUPER, STATS, os.O_RDONLY)
    assert first >= FIRST_HANDLE
    assert internal.read(first, 0, 100) == b"stats 0"
    assert internal.read(second, 6, 100) == b"1"
    assert internal.peek(first, 0, 5) == b"stats"
    assert internal.read(first, 7, 100) == b""
    internal.release(first)
    with pytest.raises(BadHandle):
        internal.read(first, 0, 1)


def test_who_may_open_what(internal: Internal) -> None:
    with pytest.raises(NotPermitted):
        internal.open(SUPER, STATS, os.O_WRONLY)
    with pytest.raises(Denied):
        internal.open(STRANGER, CONFIG, os.O_RDONLY)
    with pytest.raises(Denied):
        internal.open(STRANGER, LOG, os.O_RDONLY)
    assert internal.read(internal.open(STRANGER, STATS, os.O_RDONLY), 0, 5) == b"stats"
    with pytest.raises(BadHandle):
        internal.write(SUPER, internal.open(SUPER, STATS, os.O_RDONLY), b"x")


def test_the_log_is_on_while_it_is_open(internal: Internal) -> None:
    fh = internal.open(SUPER, LOG, os.O_RDONLY)
    assert internal.log.on
    assert internal.peek(fh, 0, 100) is None, "reading it may wait"
    internal.log.record((0, 0, 0), "open (1)", 0, 0.1)
    assert b"open (1)" in internal.read(fh, 12345, 100)
    internal.release(fh)
    assert not internal.log.on


def test_a_message_in_parts_is_answered_behind_itself(internal: Internal, asked: Asked) -> None:
    fh = internal.open(STRANGER, CONTROL, os.O_RDWR)
    message = struct.pack(">II", 1005, 4) + b"abcd"
    for part in (message[:3], message[3:9], message[9:]):
        assert internal.write(STRANGER, fh, part) == len(part)
    assert answer_of(internal, fh, len(message)) == b"abcd\0"
    assert internal.read(fh, len(message) + 5, 10) == b""
    again = internal.write(STRANGER, fh, message)
    assert answer_of(internal, fh, len(message) + 5 + again) == b"abcd\0"
    assert asked.messages == [message, message]


def test_a_message_without_end_is_refused(internal: Internal) -> None:
    fh = internal.open(STRANGER, CONTROL, os.O_RDWR)
    with pytest.raises(Invalid):
        internal.write(STRANGER, fh, struct.pack(">II", 1004, 0xFFFFFFFF))
    internal.write(STRANGER, fh, struct.pack(">II", 1005, 0))
    assert answer_of(internal, fh, 8) == b"\0"


def test_whoever_closes_does_not_wait(internal: Internal, asked: Asked) -> None:
    asked.hold.clear()
    fh = internal.open(SUPER, CONTROL, os.O_RDWR)
    internal.write(SUPER, fh, struct.pack(">II", 1, 0))
    assert internal.read(fh, 8, 100) == b"", "an end of file for now: ask again"
    internal.flush(fh)
    internal.release(fh)
    asked.hold.set()
    internal.close()
    assert asked.cancelled


def test_long_answers_are_not_kept_for_ever(internal: Internal) -> None:
    fh = internal.open(SUPER, CONTROL, os.O_RDWR)
    payload = bytes(range(1, 251)) * 20_000
    internal.write(SUPER, fh, struct.pack(">II", 1, len(payload)) + payload)
    got, offset = b"", 8 + len(payload)
    while not got.endswith(b"\0"):
        got += internal.read(fh, offset + len(got), 1 << 17)
    assert got == payload + b"\0"
    assert len(payload) > REMEMBERED
    with pytest.raises(BadHandle):
        internal.read(fh, 0, 10)


def test_what_is_urgent_waits_for_no_other_message(internal: Internal, asked: Asked) -> None:
    asked.hold.clear()
    for text in [b"long"] * 8 + [b"urgent"]:
        fh = internal.open(SUPER, CONTROL, os.O_RDWR)
        internal.write(SUPER, fh, struct.pack(">II", 1, len(text)) + text)
    deadline = time.monotonic() + 5
    while len(asked.messages) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(message[8:] for message in asked.messages) == [b"long"] * 4 + [b"urgent"]


def test_the_end_reaches_what_goes_on_in_the_background(internal: Internal, asked: Asked) -> None:
    asked.hold.clear()
    fh = internal.open(SUPER, CONTROL, os.O_RDWR)
    internal.write(SUPER, fh, struct.pack(">II", 1, 4) + b"long")
    began = time.monotonic()
    internal.close()
    assert asked.closed
    assert time.monotonic() - began < 5, "it is told before it is waited for"
