"""Notices to the kernel: in order, on a thread of their own, waited for when that is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.notify import KernelNotifier


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A pipe in the kernel's place: what to read from without waiting, what to write to."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


def test_who_waits_returns_when_the_kernel_was_told(ends: tuple[int, int]) -> None:
    notifier = KernelNotifier(ends[1])
    notifier.entry(1, b"name")
    notifier.inode(5, wait_s=30)
    assert os.read(ends[0], 4096) == wire.inval_entry(1, b"name") + wire.inval_inode(5, 0)
    notifier.close()
    began = time.monotonic()
    notifier.inode(6, wait_s=30)
    assert time.monotonic() - began < 10, "nobody tells it any more"


def test_a_kernel_that_takes_long_is_not_waited_for(ends: tuple[int, int]) -> None:
    os.set_blocking(ends[1], False)
    while True:
        try:
            os.write(ends[1], b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(ends[1], True)
    notifier = KernelNotifier(ends[1])
    began = time.monotonic()
    notifier.inode(5, wait_s=0.05)
    assert 0.04 < time.monotonic() - began < 10
    while True:
        try:
            os.read(ends[0], 1 << 20)
        except BlockingIOError:
            break
    notifier.close()
