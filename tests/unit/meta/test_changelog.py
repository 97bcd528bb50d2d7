"""Lines of the change log: their shape, what is escaped, and when they were written (volume-format.md 2.15)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fscore.meta.changelog import ChangeLog, escape, time_of


@given(st.binary(max_size=40))
def test_names_are_escaped_as_the_format_says(name: bytes) -> None:
    plain = "".join(
        f"%{byte:02X}" if byte < 32 or byte >= 127 or chr(byte) in ',%()"\\' else chr(byte) for byte in name
    )
    assert escape(name) == plain


def test_a_line() -> None:
    log = ChangeLog()
    assert log.line(5, "INCR_COUNTER(%s,%d)", "nextInode", 1024) == b"0.000000005|INCR_COUNTER(nextInode,1024)|(0,1)"
    log.sid = 7
    told = log.line(1_700_000_000_000_000_001, "LINK(%d,%d,%s,%s):%d", 3, 1, b"a,b", True, 2)
    assert told == b"1700000000.000000001|LINK(3,1,a%2Cb,true):2|(7,2)"


@given(st.integers(0, 1 << 62))
def test_when_a_line_was_written(now_ns: int) -> None:
    assert time_of(ChangeLog().line(now_ns, "REPAIRDIR(%d)", 1)) == now_ns


@pytest.mark.parametrize("line", [b"", b"no bar", b"x.y|A()|(1,1)", b"|A()|(1,1)"])
def test_what_is_no_line(line: bytes) -> None:
    assert time_of(line) is None


def test_whole_seconds_are_enough() -> None:
    assert time_of(b"12|A()|(1,1)") == 12 * 10**9
