"""Lines of the change log, which replicas replay (volume-format.md 2.15).

    <seconds>.<9 digits>|<OPERATION(arguments)[:result]>|(<session>,<number of the change in this client>)

Names and other bytes are written with % and two hexadecimal digits for what is no printable ASCII, and for any of
, % ( ) " \\.
"""

from __future__ import annotations

import itertools
from typing import Final

NANO: Final = 1_000_000_000
_SPECIAL: Final = frozenset(b',%()"\\')
_ESCAPED: Final = tuple(
    chr(byte) if 32 <= byte < 127 and byte not in _SPECIAL else f"%{byte:02X}" for byte in range(256)
)

Value = int | bool | str | bytes


class ChangeLog:
    """Makes the lines of one client. Thread-safe."""

    def __init__(self) -> None:
        self.sid = 0
        """The session, once there is one."""
        self._numbers = itertools.count(1)

    def line(self, now_ns: int, operation: str, *values: Value) -> bytes:
        """A line; bytes among the values are escaped, str go in as they are."""
        filled = operation % tuple(map(_text, values))
        return f"{now_ns // NANO}.{now_ns % NANO:09d}|{filled}|({self.sid},{next(self._numbers)})".encode()


def escape(data: bytes) -> str:
    """Bytes as the log has them."""
    return "".join(map(_ESCAPED.__getitem__, data))


def time_of(line: bytes) -> int | None:
    """When a line was written, in nanoseconds; None for one that is none."""
    stamp, bar, _ = line.partition(b"|")
    seconds, _, rest = stamp.partition(b".")
    try:
        return int(seconds) * NANO + int(rest or b"0") if bar else None
    except ValueError:
        return None


def _text(value: Value) -> int | str:
    if isinstance(value, bytes):
        return escape(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
