"""The access log: a line in the shape of JuiceFS, bounded, never ending, free while nobody reads."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fscore.domain.errors import BadHandle
from fscore.runtime.clock import FakeClock
from fscore.vfs.accesslog import IDLE, KEPT, AccessLog, render

WHO = (1, 2, 3)
LINE = re.compile(rb"\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d\.\d{6} \[uid:1,gid:2,pid:3\] (.*) - (.*) <\d+\.\d{6}>\n")


@pytest.fixture
def log() -> AccessLog:
    return AccessLog(FakeClock())


def test_a_line_is_what_juicefs_profile_parses() -> None:
    line = render(1_700_000_000_123_456_789, WHO, "write (5,4096,0,7)", 0, 0.00001)
    fields = line.decode().split()
    assert re.fullmatch(r"2023\.11\.1\d", fields[0])
    assert re.fullmatch(r"\d\d:\d\d:20\.123456", fields[1])
    assert fields[2:] == ["[uid:1,gid:2,pid:3]", "write", "(5,4096,0,7)", "-", "OK", "<0.000010>"]


def test_an_error_is_told_in_words_and_a_name_cannot_break_the_line() -> None:
    found = LINE.fullmatch(render(0, WHO, "lookup (1,a\nb\x00)", 2, 1.5))
    assert found is not None
    assert found.groups() == (rb"lookup (1,a\nb\x00)", b"no such file or directory")


def test_nobody_reads_and_nothing_is_kept(log: AccessLog) -> None:
    log.record(WHO, "read (1)", 0, 0.1)
    before = log.on
    log.open(7)
    assert (before, log.on) == (False, True)
    log.record(WHO, "read (2)", 0, 0.1)
    assert [match[0] for match in LINE.findall(log.read(7, 4096))] == [b"read (2)"]


def test_every_reader_sees_every_line_in_whatever_pieces(log: AccessLog) -> None:
    log.open(1)
    log.open(2)
    for number in range(50):
        log.record(WHO, f"op ({number})", 0, 0.1)
    whole = log.read(1, 1 << 20)
    pieces = b""
    while len(pieces) < len(whole):
        pieces += log.read(2, 7)
    assert pieces == whole
    assert whole.count(b"\n") == 50


def test_a_reader_that_sleeps_loses_the_oldest_and_is_told_how_many(log: AccessLog) -> None:
    log.open(1)
    for number in range(KEPT + 5):
        log.record(WHO, f"op ({number})", 0, 0.1)
    lines = log.read(1, 1 << 24).splitlines()
    assert lines[0] == b"# 5 lines lost"
    assert len(lines) == KEPT + 1
    assert b"op (5)" in lines[1]
    log.record(WHO, "next", 0, 0.1)
    assert b"lost" not in log.read(1, 4096)


def test_a_quiet_stream_does_not_end(log: AccessLog) -> None:
    log.open(1)
    began = time.monotonic()
    assert log.read(1, 4096) == IDLE
    assert time.monotonic() - began >= 0.9


@pytest.mark.parametrize("end", ["close", "shut"])
def test_a_waiting_reader_is_let_go(log: AccessLog, end: str) -> None:
    log.open(1)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        waiting = pool.submit(log.read, 1, 4096)
        time.sleep(0.05)
        log.close(1) if end == "close" else log.shut()
        assert waiting.result() == IDLE
        assert time.monotonic() - began < 0.8


def test_a_closed_handle_reads_nothing(log: AccessLog) -> None:
    log.open(1)
    log.close(1)
    with pytest.raises(BadHandle):
        log.read(1, 10)
    assert not log.on
