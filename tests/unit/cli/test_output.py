"""What is printed, character by character: sizes, columns, JSON, errors, progress."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from fscore.cli.errors import FAILED, INTERRUPTED, WRONG_USE, WrongUse, describe, exit_code
from fscore.cli.output import columns, fields, human, render, share, when
from fscore.cli.progress import Bars, Lines
from fscore.domain.errors import Exists, HubError, NotFound, SettingError, UnavailableError
from fscore.runtime.clock import FakeClock


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 50, "3.0 PiB"),
        (9 << 60, "9216.0 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert human(count) == text


def test_columns_align_and_do_not_trail() -> None:
    assert columns([("a", 1), ("bcd", 100)], ("NAME", "N"), right=(1,)) == ["NAME    N", "a       1", "bcd   100"]
    assert columns([("left", "x"), ("l", "")]) == ["left  x", "l"]
    assert columns([]) == []


def test_fields_leave_out_what_is_empty() -> None:
    assert fields([("a", 1), ("long", ""), ("bc", None), ("d", 0)]) == ["a  1", "d  0"]


def test_shares_and_times() -> None:
    assert (share(1, 3), share(0, 0)) == ("33.3 %", "-")
    assert when(0) == "-"


class Report(msgspec.Struct, frozen=True):
    """Any report."""

    name: str
    where: dict[int, str] = {}
    parts: tuple[int, ...] = ()


def test_json_is_plain_ordered_and_valid_for_any_name() -> None:
    assert json.loads(render(Report("größe", {1: "a"}, (1, 2)))) == {
        "name": "größe",
        "where": {"1": "a"},
        "parts": [1, 2],
    }
    assert "größe" in render(Report("größe"))
    odd = b"odd-\xff".decode(errors="surrogateescape")
    assert json.loads(render(Report(odd)).encode())["name"] == odd


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (NotFound("", "/a"), "/a: no such file or directory", FAILED),
        (Exists("as a directory", b"/b"), "/b: already exists: as a directory", FAILED),
        (FileNotFoundError(2, "No such file or directory", "x"), "x: no such file or directory", FAILED),
        (
            HubError("no such model: a/b", hint="see `fscore models`"),
            "no such model: a/b (see `fscore models`)",
            FAILED,
        ),
        (UnavailableError("redis://x did not answer"), "redis://x did not answer", FAILED),
        (SettingError("one\n  two"), "one two", WRONG_USE),
        (WrongUse("name a target"), "name a target", WRONG_USE),
        (KeyboardInterrupt(), "interrupted", INTERRUPTED),
        (RuntimeError(), "unexpected RuntimeError: RuntimeError (FSCORE_DEBUG=1 shows where)", FAILED),
    ],
)
def test_an_error_is_one_line_and_a_code(error: BaseException, line: str, code: int) -> None:
    assert (describe(error), exit_code(error)) == (line, code)


def test_lines_speak_at_the_start_now_and_then_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    lines = Lines(clock, interval_s=5.0)
    sizes, counts = lines.start("send", 10 << 20, "B"), lines.start("walk", None, "entries")
    for _ in range(10):
        clock.sleep(1)
        lines.advance(sizes, 1 << 20)
        lines.advance(counts, 3)
    lines.finish(sizes)
    lines.finish(counts)
    lines.advance(sizes, 1)
    assert capsys.readouterr().err.splitlines() == [
        "send ...",
        "walk ...",
        "send: 50 % (5.0 MiB of 10.0 MiB)",
        "walk: 15 entries",
        "send: 100 % (10.0 MiB of 10.0 MiB)",
        "walk: 30 entries",
        "send: 100 % (10.0 MiB of 10.0 MiB), done",
        "walk: 30 entries, done",
    ]


def test_bars_show_bytes_and_counts() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    layout = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with RichProgress(*layout, console=console, auto_refresh=False) as rich_bars:
        bars = Bars(rich_bars)
        sizes, counts = bars.start("send", 4 << 20, "B"), bars.start("walk", 8, "files")
        bars.advance(sizes, 4 << 20)
        bars.advance(counts, 3)
        bars.finish(sizes)
        rich_bars.refresh()
        finished = [rich_bars.finished]
        bars.finish(counts)
        finished.append(rich_bars.finished)
    assert finished == [False, True]
    assert "4.0 MiB" in screen.getvalue()
    assert "3/8 files" in screen.getvalue()
