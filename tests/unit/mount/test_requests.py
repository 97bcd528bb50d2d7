"""Requests as a real kernel (Linux 6.18, FUSE 7.45) sent them, recorded in requests.json: what each is decoded to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from fscore.domain.attr import Attr, Kind
from fscore.domain.caller import Caller
from fscore.domain.locks import EOF, LockKind
from fscore.mount.api import AttrReply, AttrRequest, Callers, EntryReply, LockRequest, OpenReply, StatfsReply
from fscore.mount.operations import Operations
from fscore.mount.operations_dirs import Plus
from fscore.mount.transports.kernel import wire
from fscore.mount.transports.kernel.protocol import BODY, HEADER, OUT, Init, Opcode
from fscore.mount.transports.kernel.requests import HANDLERS
from fscore.mount.transports.kernel.work import Answer
from fscore.mount.transports.kernel.worker import Worker

RECORDED = {
    name: bytes.fromhex(text)
    for name, text in json.loads(Path(__file__).with_name("requests.json").read_text()).items()
}
FILE = Attr(Kind.FILE, 0o640, length=11)
ENTRY = EntryReply(3, FILE, 1.0, 1.0)
READ_WRITE = os.O_RDWR | 0o100000  # O_LARGEFILE as the kernel has it
OWNER = 0xFEFD326BE58D88EA
HOLDER = 0xEFC73731D37E0458

REPLIES: dict[str, Any] = {
    "lookup": ENTRY,
    "mkdir": ENTRY,
    "mknod": ENTRY,
    "symlink": ENTRY,
    "link": ENTRY,
    "create": (ENTRY, OpenReply(1)),
    "getattr": AttrReply(3, FILE, 1.0),
    "setattr": AttrReply(3, FILE, 1.0),
    "opendir": OpenReply(1),
    "read": b"hello world",
    "write": 11,
    "readlink": b"the/target",
    "getxattr": b"",
    "listxattr": b"",
    "lseek": 11,
    "copy_file_range": 2,
    "readdir": [],
    "readdirplus": Plus([], [], fixed=False),
    "statfs": StatfsReply(4096, 1, 1, 1, 1),
}

CALLS: dict[str, tuple[Any, ...]] = {
    "LOOKUP": ("lookup", 1, b"missing"),
    "MKDIR": ("mkdir", 1, b"dir", 0o755),
    "CREATE": ("create", 2, b"file", 0o100640, READ_WRITE | os.O_CREAT | os.O_EXCL),
    "GETATTR": ("getattr", 1),
    "GETXATTR": ("getxattr", 3, b"security.capability", 0),
    "WRITE": ("write", 3, 1, 0, b"hello world", {"kill_privileges": False}),
    "READ": ("read", 3, 1, 0, 4096),
    "FSYNC": ("fsync", 3, 1, {"data_only": False}),
    "LSEEK": ("lseek", 3, 1, 0, os.SEEK_HOLE),
    "FALLOCATE": ("fallocate", 3, 1, 0, 0, 100),
    "COPY_FILE_RANGE_64": ("copy_file_range", 1, 1, 2, 2, 5, 0),
    "FLUSH": ("flush", 4, 2, OWNER),
    "RELEASE": ("release", 4, 2, 0, {"unlock": False}),
    "SYMLINK": ("symlink", 2, b"link", b"the/target"),
    "READLINK": ("readlink", 5),
    "LINK": ("link", 3, 2, b"hard"),
    "MKNOD": ("mknod", 2, b"pipe", 0o10644, 0),
    "RENAME": ("rename", 2, b"hard", 2, b"moved", 0),
    "RENAME2": ("rename", 2, b"moved", 2, b"copy", 2),
    "SETXATTR": ("setxattr", 3, b"user.colour", b"blue", 0),
    "LISTXATTR": ("listxattr", 3, 256),
    "REMOVEXATTR": ("removexattr", 3, b"user.colour"),
    "OPENDIR": ("opendir", 2, 0o304000),
    "READDIRPLUS": ("readdirplus", 2, 1, 0),
    "READDIR": ("readdir", 2, 1, 2),
    "RELEASEDIR": ("releasedir", 2, 1),
    "STATFS": ("statfs", 2),
    "UNLINK": ("unlink", 2, b"moved"),
    "FORGET": ("forget", 4, 1),
    "SETATTR0": ("setattr", 3, AttrRequest(size=5, fh=1)),
    "SETATTR1": ("setattr", 3, AttrRequest(atime_ns=1_234_567_891, mtime_ns=9_876_543_219)),
    "SETATTR2": ("setattr", 3, AttrRequest(mode=0o4711)),
    "SETATTR3": ("setattr", 3, AttrRequest(uid=7, gid=8, kill_privileges=True)),
    "SETLKW0": ("setlk", 3, LockRequest(OWNER, LockKind.WRITE, 3, 12, 0)),
    "SETLKW1": ("flock", 3, HOLDER, LockKind.READ),
}


class Seen:
    """Operations that only tell what they were asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if name.startswith("peek_"):
                return None
            kept = [bytes(arg) if isinstance(arg, memoryview) else arg for arg in args]
            self.calls.append((name, *kept, *([named] if named else [])))
            return REPLIES.get(name)

        return call


class NoCrew:
    """A crew that counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0

    def busy(self) -> None:
        """One more waits."""
        self.waiting += 1

    def idle(self) -> None:
        """One less."""
        self.waiting -= 1

    def put_aside(self, unique: int, attempt: Callable[[], None]) -> None:
        """Nothing here waits for locks."""
        raise AssertionError

    def interrupt(self, unique: int) -> None:
        """Nothing here is interrupted."""
        raise AssertionError


def decoded(data: bytes) -> tuple[Seen, Answer, NoCrew]:
    """What the request's function asks of the operations, and what it answers."""
    seen, crew = Seen(), NoCrew()
    lifetimes = wire.Lifetimes(*[(1, 0)] * 5)
    worker = Worker(-1, 1 << 16, cast(Operations, seen), lifetimes, Callers(), crew)
    worker.buffer[: len(data)] = data
    opcode = worker.take(len(data))
    return seen, HANDLERS[opcode](worker), crew


def without_callers(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments that say what, and not who; a listing's number of entries is an estimate."""
    left = [arg for arg in call if not isinstance(arg, Caller)]
    if left[0] in {"readdir", "readdirplus"}:
        del left[4]
    return tuple(arg if not isinstance(arg, LockRequest) else LockRequest(*_range(arg)) for arg in left)


def _range(lock: LockRequest) -> tuple[int, LockKind, int, int, int]:
    return lock.owner, lock.kind, lock.start, lock.end, 0


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_recorded_request_asks_for(name: str) -> None:
    seen, answer, crew = decoded(RECORDED[name])
    assert [without_callers(call) for call in seen.calls] == [CALLS[name]]
    if name == "FORGET":
        assert answer is None
        return
    assert answer is not None
    size = len(answer) if isinstance(answer, bytes) else sum(map(len, answer))
    head = answer if isinstance(answer, bytes) else answer[0]
    length, error, unique = OUT.unpack_from(head)
    assert (length, error, unique) == (size, 0, HEADER.unpack_from(RECORDED[name])[2])
    assert crew.waiting == (name not in {"RELEASEDIR", "FORGET"}), "what may wait says so"


def test_every_recorded_request_is_covered() -> None:
    assert set(RECORDED) == set(CALLS) | {"INIT"}


def test_the_umask_is_the_callers() -> None:
    seen, _, _ = decoded(RECORDED["MKDIR"])
    (who,) = [arg for arg in seen.calls[0] if isinstance(arg, Caller)]
    assert (who.uid, who.umask) == (0, 0o022)


def test_a_lock_to_the_end_of_the_file() -> None:
    body = bytearray(RECORDED["SETLKW0"])
    body[BODY + 24 : BODY + 32] = b"\xff" * 7 + b"\x7f"
    seen, _, _ = decoded(bytes(body))
    (request,) = [arg for arg in seen.calls[0] if isinstance(arg, LockRequest)]
    assert request.end == EOF


def test_the_kernels_greeting() -> None:
    data = RECORDED["INIT"]
    assert HEADER.unpack_from(data)[1] == Opcode.INIT
    hello = wire.hello(data[BODY:])
    assert (hello.major, hello.minor, hello.max_readahead) == (7, 45, 128 << 10)
    offered = Init.PASSTHROUGH | Init.HANDLE_KILLPRIV_V2 | Init.MAX_PAGES | Init.INIT_EXT | Init.FLOCK_LOCKS
    assert Init(hello.flags) & offered == offered
    older = wire.hello(data[BODY : BODY + 16])
    assert older.flags == hello.flags & 0xFFFFFFFF
