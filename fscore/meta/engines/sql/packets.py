"""Queries and answers of MySQL's text protocol over a connection that PyMySQL has made and signed in.

PyMySQL builds an object for every column of every answer; here a batch of statements goes out in one COM_QUERY packet,
and rows are cut out of what comes back. Format: "MySQL Internals: Text Resultset", the same in MariaDB's manual.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from fscore.meta.engines.sql.links import Call, Row

COM_QUERY: Final = b"\x03"
MORE_RESULTS: Final = 0x0008
LARGEST: Final = (1 << 24) - 1
INTEGERS: Final = frozenset({1, 2, 3, 8, 9, 13})
"""Column types TINY, SHORT, LONG, LONGLONG, INT24, YEAR."""
NULL: Final = 0xFB
OK: Final = 0x00
EOF: Final = 0xFE
ERROR: Final = 0xFF


class PacketError(Exception):
    """An error packet: what the server says, and its number."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def render(calls: Sequence[Call]) -> bytes:
    """The statements with their parameters filled in, one after the other."""
    return b";".join(_filled(sql, args) for sql, args in calls)


_templates: Final[dict[str, tuple[bytes, ...]]] = {}


def _filled(sql: str, args: Sequence[object]) -> bytes:
    parts = _templates.get(sql)
    if parts is None:
        parts = _templates[sql] = tuple(part.encode() for part in sql.replace("%%", "%").split("%s"))
    if len(parts) == 1:
        return parts[0]
    pieces = [parts[0]]
    for value, part in zip(args, parts[1:], strict=True):
        pieces += (_literal(value), part)
    return b"".join(pieces)


def _literal(value: object) -> bytes:
    """Numbers in decimal, blobs and texts in hexadecimal: no quoting, whatever the server's mode."""
    if isinstance(value, int):
        return b"%d" % value
    if value is None:
        return b"NULL"
    if isinstance(value, bytes):
        return b"x'" + value.hex().encode() + b"'"
    return b"_utf8mb4 x'" + str(value).encode().hex().encode() + b"'"


class Channel:
    """Packets over PyMySQL's socket. What it takes from it are the socket and its buffered reader."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - PyMySQL has no public name for what is used here
        self._connection = connection
        self._socket = connection._sock  # noqa: SLF001 - see the module
        self._file = connection._rfile  # noqa: SLF001 - see the module
        self._socket.settimeout(None)

    def ask(self, text: bytes, count: int) -> list[tuple[list[Row], int]]:
        """Rows and matched rows of each of `count` statements in `text`."""
        self._write(COM_QUERY + text)
        answers: list[tuple[list[Row], int]] = []
        more = True
        while more:
            rows, matched, more = self._answer()
            answers.append((rows, matched))
        if len(answers) != count:
            raise EOFError(f"{len(answers)} answers to {count} statements")
        return answers

    def close(self) -> None:
        """Hang up without ceremony."""
        self._connection._force_close()  # noqa: SLF001 - see the module

    def _write(self, payload: bytes) -> None:
        sequence = 0
        while True:
            part, payload = payload[:LARGEST], payload[LARGEST:]
            self._socket.sendall(struct.pack("<I", len(part))[:3] + bytes([sequence & 0xFF]) + part)
            sequence += 1
            if len(part) < LARGEST:
                return

    def _packet(self) -> bytes:
        """One packet; what is longer than 16 MiB comes in parts."""
        read = self._file.read
        header = read(4)
        if len(header) < 4:
            raise EOFError("the server has hung up")
        size = header[0] | header[1] << 8 | header[2] << 16
        payload: bytes = read(size)
        if len(payload) < size:
            raise EOFError("the server has hung up in the middle of a packet")
        return payload + self._packet() if size == LARGEST else payload

    def _answer(self) -> tuple[list[Row], int, bool]:
        """Rows of one statement, matched rows, and whether there are more statements' answers."""
        head = self._packet()
        if head[0] == ERROR:
            raise _error(head)
        if head[0] == OK:
            matched, at = _number(head, 1)
            _, at = _number(head, at)
            return [], matched, bool(head[at] & MORE_RESULTS)
        columns, _ = _number(head, 0)
        integers = [_is_integer(self._packet()) for _ in range(columns)]
        self._packet()  # EOF after the columns
        rows: list[Row] = []
        while True:
            packet = self._packet()
            if packet[0] == EOF and len(packet) < 9:
                return rows, len(rows), bool(packet[3] & MORE_RESULTS)
            if packet[0] == ERROR:
                raise _error(packet)
            rows.append(_row(packet, integers))


def _error(packet: bytes) -> PacketError:
    message = packet[9:] if packet[3:4] == b"#" else packet[3:]
    return PacketError(packet[1] | packet[2] << 8, message.decode(errors="replace"))


def _number(packet: bytes, at: int) -> tuple[int, int]:
    """A length-encoded number, and where it ends."""
    first = packet[at]
    if first < NULL:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(packet[at + 1 : at + 1 + size], "little"), at + 1 + size


def _is_integer(definition: bytes) -> bool:
    """The type at the end of a column definition: after it come two bytes of flags, one of decimals, two of filler."""
    return definition[-6] in INTEGERS


def _row(packet: bytes, integers: Sequence[bool]) -> Row:
    values: list[object] = []
    at = 0
    for is_integer in integers:
        size = packet[at]
        if size == NULL:
            values.append(None)
            at += 1
            continue
        if size < NULL:
            at += 1
        else:
            size, at = _number(packet, at)
        end = at + size
        values.append(int(packet[at:end]) if is_integer else packet[at:end])
        at = end
    return tuple(values)
