"""fsx: random changes of a few files, each compared with a model that is a byte array. On any kind of file.

As a program over a mounted directory: `python -m tests.kit.fsx DIR --ops 100000 --seed 1`. It makes two files there,
changes them through the kernel (reads and writes by pread, pwrite, mmap; truncate, fallocate, copy_file_range, seeks
for holes, reopening), and leaves them when it finds a difference. The same seed gives the same operations.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from fscore.domain.geometry import CHUNK

SPAN: Final = 400_000
"""Bytes of each file that are played with."""

BORDER: Final = CHUNK - SPAN // 2
"""An origin that has a chunk border in the middle of what is played with."""

WEIGHTS: Final = {
    "write": 30,
    "read": 26,
    "append": 3,
    "truncate": 6,
    "punch": 5,
    "zero": 4,
    "allocate": 3,
    "copy": 9,
    "reopen": 3,
    "sync": 4,
    "seek": 4,
    "map_write": 6,
    "map_read": 6,
}
"""How often each kind of operation comes, in proportion."""

IN_PROCESS: Final = frozenset(WEIGHTS) - {"map_write", "map_read"}
"""What a subject without a kernel can do."""


class Op(NamedTuple):
    """One operation on `file`; which of the numbers count depends on the kind."""

    kind: str
    file: int
    offset: int = 0
    length: int = 0
    other: int = 0
    """The file copied from, for a copy; its offset is `at`. For zero and allocate: 1 keeps the size."""
    at: int = 0


class Subject(Protocol):
    """What is tested: numbered files, open all the time, empty at first. Offsets are those of the file."""

    def write(self, file: int, offset: int, data: bytes) -> None: ...
    def append(self, file: int, data: bytes) -> None: ...
    def read(self, file: int, offset: int, length: int) -> bytes: ...
    def truncate(self, file: int, length: int) -> None: ...
    def punch(self, file: int, offset: int, length: int) -> None: ...
    def zero(self, file: int, offset: int, length: int, *, keep: bool) -> None: ...
    def allocate(self, file: int, offset: int, length: int, *, keep: bool) -> None: ...
    def copy(self, source: int, at: int, file: int, offset: int, length: int) -> int: ...
    def seek(self, file: int, offset: int, *, hole: bool) -> int | None: ...
    def size(self, file: int) -> int: ...
    def sync(self, file: int) -> None: ...
    def reopen(self, file: int) -> None: ...
    def map_write(self, file: int, offset: int, data: bytes) -> None: ...
    def map_read(self, file: int, offset: int, length: int) -> bytes: ...


def operations(seed: int, count: int, files: int = 2, kinds: frozenset[str] = frozenset(WEIGHTS)) -> Iterator[Op]:
    """A history: small and large ranges, often at round places, inside `SPAN` bytes of each file."""
    rng = random.Random(seed)
    names = sorted(kinds)
    weights = [WEIGHTS[name] for name in names]
    for kind in rng.choices(names, weights, k=count):
        length = _length(rng)
        if kind in {"write", "map_write"} and rng.random() < 0.7:
            length = min(length, 5000)
        offset = _offset(rng, length)
        source = rng.randrange(files)
        other = source if kind == "copy" else rng.randrange(2)
        yield Op(kind, rng.randrange(files), offset, length, other, _offset(rng, length))


def _length(rng: random.Random) -> int:
    scale = rng.choice((10, 500, 5000, 5000, 40_000, 120_000))
    return rng.randint(1, scale) if rng.random() < 0.7 else max(1, scale // 4096 * 4096)


def _offset(rng: random.Random, length: int) -> int:
    offset = rng.randint(0, SPAN - length)
    return offset // 4096 * 4096 if rng.random() < 0.3 else offset


class Difference(AssertionError):
    """The subject is not what the model is; says after which operations."""


class Model:
    """The bytes of each file from `origin` on; below it everything is zeros and never touched."""

    def __init__(self, files: int, origin: int) -> None:
        self.origin = origin
        self.bytes = [bytearray() for _ in range(files)]

    def write(self, file: int, offset: int, data: bytes) -> None:
        content = self.bytes[file]
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data

    def truncate(self, file: int, length: int) -> None:
        content = self.bytes[file]
        del content[length:]
        content.extend(bytes(length - len(content)))

    def zero(self, file: int, offset: int, length: int, *, grow: bool) -> None:
        content = self.bytes[file]
        if grow and len(content) < offset + length:
            content.extend(bytes(offset + length - len(content)))
        length = min(length, len(content) - offset)
        if length > 0:
            content[offset : offset + length] = bytes(length)


class Fsx:
    """Plays operations on a subject and its model."""

    def __init__(self, subject: Subject, files: int = 2, origin: int = 0) -> None:
        self.subject = subject
        self.model = Model(files, origin)
        self.done: Counter[str] = Counter()
        self.recent: deque[Op] = deque(maxlen=40)
        self._stamp = 0
        if origin:
            for file in range(files):
                subject.truncate(file, origin)

    def play(self, op: Op) -> None:
        """One operation. Difference when the subject answers otherwise than the model."""
        self.recent.append(op)
        self.done[op.kind] += 1
        getattr(self, f"_{op.kind}")(op)
        size, length = self.subject.size(op.file), len(self.model.bytes[op.file]) + self.model.origin
        if size != length:
            raise self._difference(f"file {op.file} is {size} bytes long, must be {length}")

    def check(self) -> None:
        """Every byte of every file."""
        for file, content in enumerate(self.model.bytes):
            for at in range(0, len(content), 1 << 17):
                self._compare(file, at, min(1 << 17, len(content) - at))

    def _compare(self, file: int, offset: int, length: int, *, mapped: bool = False) -> None:
        read = self.subject.map_read if mapped else self.subject.read
        found = bytes(read(file, offset + self.model.origin, length))
        want = bytes(self.model.bytes[file][offset : offset + length])
        if found == want:
            return
        if len(found) != len(want):
            raise self._difference(f"file {file}: {len(found)} bytes at {offset}, must be {len(want)}")
        bad = [at for at in range(len(want)) if found[at] != want[at]]
        where = f"{offset + bad[0]} to {offset + bad[-1]} ({len(bad)} bytes)"
        raise self._difference(
            f"file {file} differs at {where}: {found[bad[0]]:#x}, must be {want[bad[0]]:#x}, read at {offset}"
        )

    def _difference(self, text: str) -> Difference:
        history = "\n".join(f"  {op}" for op in self.recent)
        return Difference(f"{text}; origin {self.model.origin}; the last operations were\n{history}")

    def _data(self, op: Op) -> bytes:
        """Bytes that tell which operation wrote them."""
        self._stamp = self._stamp % 250 + 1
        unit = bytes((self._stamp, (op.offset >> 8) % 251, self._stamp ^ 0x55))
        return (unit * (op.length // 3 + 1))[: op.length]

    def _write(self, op: Op) -> None:
        data = self._data(op)
        self.subject.write(op.file, op.offset + self.model.origin, data)
        self.model.write(op.file, op.offset, data)

    def _append(self, op: Op) -> None:
        end = len(self.model.bytes[op.file])
        data = self._data(op)[: max(SPAN - end, 0)]
        if data:
            self.subject.append(op.file, data)
            self.model.write(op.file, end, data)

    def _read(self, op: Op) -> None:
        self._compare(op.file, op.offset, op.length)

    def _truncate(self, op: Op) -> None:
        self.subject.truncate(op.file, op.offset + self.model.origin)
        self.model.truncate(op.file, op.offset)

    def _punch(self, op: Op) -> None:
        self.subject.punch(op.file, op.offset + self.model.origin, op.length)
        self.model.zero(op.file, op.offset, op.length, grow=False)

    def _zero(self, op: Op) -> None:
        self.subject.zero(op.file, op.offset + self.model.origin, op.length, keep=bool(op.other))
        self.model.zero(op.file, op.offset, op.length, grow=not op.other)

    def _allocate(self, op: Op) -> None:
        self.subject.allocate(op.file, op.offset + self.model.origin, op.length, keep=bool(op.other))
        if not op.other:
            self.model.truncate(op.file, max(len(self.model.bytes[op.file]), op.offset + op.length))

    def _copy(self, op: Op) -> None:
        source = self.model.bytes[op.other]
        if op.other == op.file and op.at < op.offset + op.length and op.offset < op.at + op.length:
            return
        origin = self.model.origin
        part = bytes(source[op.at : op.at + op.length])
        copied = self.subject.copy(op.other, op.at + origin, op.file, op.offset + origin, op.length)
        if copied != len(part):
            raise self._difference(f"{copied} bytes were copied of {len(part)}")
        if part:
            self.model.write(op.file, op.offset, part)

    def _seek(self, op: Op) -> None:
        content, origin = self.model.bytes[op.file], self.model.origin
        found = self.subject.seek(op.file, op.offset + origin, hole=bool(op.other))
        if op.offset >= len(content):
            if found is not None:
                raise self._difference(f"a seek past the end found {found}")
            return
        if op.other:
            at = -1 if found is None else found - origin
            if not op.offset <= at <= len(content) or (at < len(content) and content[at]):
                raise self._difference(f"no hole at {found}, where one was found from {op.offset} on")
            return
        stop = len(content) if found is None else found - origin
        if not op.offset <= stop <= len(content) or any(content[op.offset : stop]):
            raise self._difference(f"data before {found}, where the first was found from {op.offset} on")

    def _sync(self, op: Op) -> None:
        self.subject.sync(op.file)

    def _reopen(self, op: Op) -> None:
        self.subject.reopen(op.file)

    def _map_write(self, op: Op) -> None:
        length = min(op.length, len(self.model.bytes[op.file]) - op.offset)
        if length > 0:
            data = self._data(op)[:length]
            self.subject.map_write(op.file, op.offset + self.model.origin, data)
            self.model.write(op.file, op.offset, data)

    def _map_read(self, op: Op) -> None:
        if op.offset < len(self.model.bytes[op.file]):
            self._compare(op.file, op.offset, op.length, mapped=True)


def run(
    subject: Subject,
    *,
    seed: int,
    ops: int,
    files: int = 2,
    origin: int = 0,
    kinds: frozenset[str] = frozenset(WEIGHTS),
    check_every: int = 1000,
) -> Counter[str]:
    """Play a whole history; returns how often each kind came. Difference at the first one."""
    fsx = Fsx(subject, files, origin)
    for number, op in enumerate(operations(seed, ops, files, kinds), 1):
        fsx.play(op)
        if number % check_every == 0:
            fsx.check()
    for file in range(files):
        subject.reopen(file)
    fsx.check()
    return fsx.done


if __name__ == "__main__":
    from tests.kit.fsx_mounted import main

    raise SystemExit(main())
