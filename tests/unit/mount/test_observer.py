"""What the access log says of a request, and what is counted of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fscore.domain.attr import Attr, Kind
from fscore.domain.caller import Caller
from fscore.mount.api import AttrReply, EntryReply, OpenReply
from fscore.mount.observer import Observer, describe
from fscore.runtime.clock import FakeClock
from fscore.vfs.accesslog import AccessLog
from fscore.vfs.internal import FIRST_HANDLE

ATTR = Attr(Kind.FILE, 0o644, 1, 2, 10**9, 2 * 10**9, 3 * 10**9, length=5)
SHOWN = "(9,[-rw-r--r--:0100644,1,1,2,1,2,3,5])"
WHO = Caller(uid=1, gid=2, pid=3)


@pytest.mark.parametrize(
    ("line", "args", "result"),
    [
        (f"lookup (1,name): {SHOWN}", (1, b"name"), EntryReply(9, ATTR, 1, 1)),
        ("lookup (1,na\\xffme)", (1, b"na\xffme"), None),
        (f"getattr (9): {SHOWN}", (9, None), AttrReply(9, ATTR, 1)),
        ("open (9,0x8002) [fh:4]", (9, 0x8002), OpenReply(4)),
        ("read (9,131072,4096,4): (100)", (9, 4, 4096, 131072), b"x" * 100),
        ("write (9,3,4096,4)", (9, 4, 4096, b"abc"), 3),
        (f"mkdir (1,d,drwxr-xr-x:040755): {SHOWN}", (1, b"d", 0o40755), EntryReply(9, ATTR, 1, 1)),
        (
            f"create (1,f,-rw-r--r--:0100644): {SHOWN} [fh:4]",
            (1, b"f", 0o100644, 0x8241),
            (EntryReply(9, ATTR, 1, 1), OpenReply(4)),
        ),
        ("setxattr (9,user.a,5,0)", (9, b"user.a", b"12345", 0), None),
        ("readlink (9): (target)", (9,), b"target"),
        ("readdir (9,4,0,32): (2)", (9, 4, 0, 32), [1, 2]),
        ("rename (1,a,2,b,0)", (1, b"a", 2, b"b", 0), None),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_lines_have_the_order_of_juicefs(line: str, args: tuple[object, ...], result: object) -> None:
    assert describe(line.split(" ", 1)[0], args, result) == line


def test_requests_are_counted_whether_or_not_somebody_reads() -> None:
    observe = Observer(None)
    observe("read", WHO, (9, 4, 0, 10), b"0123456789", 0, 0.5)
    observe("write", WHO, (9, 4, 0, b"abc"), 3, 0, 0.25)
    observe("read", WHO, (9, 4, 0, 10), None, 5, 0.5)
    observe("lookup", WHO, (1, b"x"), None, 2, 0.125)
    assert observe.snapshot() == {
        "fuse.read.count": 2,
        "fuse.read.seconds": 1.0,
        "fuse.read.bytes": 10,
        "fuse.write.count": 1,
        "fuse.write.seconds": 0.25,
        "fuse.write.bytes": 3,
        "fuse.lookup.count": 1,
        "fuse.lookup.seconds": 0.125,
        "fuse.errors.EIO": 1,
        "fuse.errors.ENOENT": 1,
    }


def test_no_count_is_lost_between_threads() -> None:
    observe = Observer(None)

    def write() -> None:
        for _ in range(2000):
            observe("write", WHO, (9, 4, 0, b"abc"), 3, 0, 0.0)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(write)
    assert (observe.snapshot()["fuse.write.count"], observe.snapshot()["fuse.write.bytes"]) == (16_000, 48_000)


def test_lines_are_made_only_for_readers_and_never_about_their_reading() -> None:
    log = AccessLog(FakeClock())
    observe = Observer(log)
    observe("read", WHO, (9, 4, 0, 10), b"before", 0, 0.5)
    log.open(FIRST_HANDLE)
    observe("read", WHO, (9, 4, 0, 10), b"seen", 0, 0.5)
    observe("read", WHO, (9, FIRST_HANDLE, 0, 4096), b"# the log itself", 0, 0.5)
    observe("lookup", WHO, (1, b"gone"), None, 2, 0.125)
    lines = log.read(FIRST_HANDLE, 1 << 16).decode().splitlines()
    assert [line.split("] ")[1] for line in lines] == [
        "read (9,10,0,4): (4) - OK <0.500000>",
        "lookup (1,gone) - no such file or directory <0.125000>",
    ]
