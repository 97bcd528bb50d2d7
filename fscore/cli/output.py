"""What commands print: a report as text for people or as JSON for programs, on stdout and nowhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Row = Sequence[object]


class Output:
    """One command's stdout: with `as_json` exactly one JSON document; `quiet` leaves only what was asked for."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        if hasattr(sys.stdout, "reconfigure"):
            # Names in a volume are bytes; what is no UTF-8 goes out as it came in.
            sys.stdout.reconfigure(errors="surrogateescape")

    def report(self, value: object, text: Callable[[], Iterable[str]]) -> None:
        """The report itself: `value` as JSON, or the lines of `text`."""
        if self.as_json:
            write(render(value))
        elif not self.quiet:
            for line in text():
                write(line)

    def result(self, value: object, text: Callable[[], Iterable[str]]) -> None:
        """Like `report`, for commands whose only purpose is to print: `quiet` does not silence them."""
        if self.as_json:
            write(render(value))
        else:
            for line in text():
                write(line)


def write(line: str) -> None:
    """One line on stdout."""
    sys.stdout.write(f"{line}\n")


def note(line: str) -> None:
    """One line on stderr: a remark that is no result."""
    sys.stderr.write(f"{line}\n")


def render(value: object) -> str:
    """The JSON of a report: stable keys in the order of its fields, values of plain types only."""
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    # A lone surrogate (a name that is no UTF-8) is escaped, so that the document stays valid UTF-8.
    return text if text.isascii() or not _has_surrogates(text) else json.dumps(plain, indent=2)


def columns(rows: Sequence[Row], header: Row = (), *, right: Sequence[int] = ()) -> list[str]:
    """Rows as aligned text; the columns in `right` are aligned to the right."""
    table = [[str(cell) for cell in row] for row in ([header, *rows] if header else rows)]
    if not table:
        return []
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def fields(pairs: Iterable[tuple[str, object]]) -> list[str]:
    """`name  value` lines; what is None or empty is left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in shown]


def human(count: float) -> str:
    """A size as people say it: 0 B, 87.4 MiB."""
    index = 0
    while abs(count) >= 1024 and index < len(UNITS) - 1:
        count /= 1024
        index += 1
    return f"{count:.0f} {UNITS[0]}" if index == 0 else f"{count:.1f} {UNITS[index]}"


def share(part: int, whole: int) -> str:
    """A part as a percentage of the whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def when(ns: int) -> str:
    """A time in nanoseconds as local time, to the second."""
    return datetime.fromtimestamp(ns // 1_000_000_000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if ns else "-"


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
