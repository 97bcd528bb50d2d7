"""An operation costs at most two round trips on Redis: counted for each, by a client that knows nothing yet, and again
by one that has just looked at what it works on. What costs more is named here, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

import pytest

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import FsError
from fscore.domain.ids import ROOT
from fscore.domain.locks import LockKind
from fscore.domain.quota import QuotaKind
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engines.redis.engine import RedisEngine, open_redis
from fscore.meta.service import AttrChange, MetaService, RenameFlag, SliceRange
from fscore.runtime.clock import FakeClock
from tests.kit.redis_server import RedisServer

pytestmark = pytest.mark.redis

MOST: Final = 2
GROWS: Final = {
    "resolve through a link": 4,  # two for each link on the way: its target, and what that names
    "summary": 4,  # one for each directory below
    "clone a tree": 9,  # one or two for each batch of entries below
    "clone a file": 3,  # its length says which chunks to read
}
"""What grows with the data, and what this small tree takes at the most."""
QUOTA: Final = {
    "rename away": 4,
    "write to one of two": 4,
    "rename a directory away": 6,
    "exchange": 6,
    "clone a tree": 13,
}
"""Below a directory's quota one more, at most once a second, tells which quotas lie above an unknown directory; two
directories are two questions, and a tree that moves between quotas is asked for what it holds."""
ROOT_USER: Final = Caller(uid=0, gid=0, umask=0)
OWNER: Final = Caller(uid=1000, gid=1000, umask=0)


class Tree(NamedTuple):
    """Inodes of what every operation finds."""

    a: int
    b: int
    deep: int
    f: int
    g: int
    h: int
    link: int


def grow(service: MetaService) -> Tree:
    """Directories, files with data, a hard link, a symbolic link, attributes; all belong to the owner."""
    a, _ = service.mkdir(ROOT_USER, ROOT, b"a", 0o777)
    b, _ = service.mkdir(ROOT_USER, ROOT, b"b", 0o777)
    sub, _ = service.mkdir(ROOT_USER, a, b"sub", 0o777)
    deep, _ = service.mkdir(ROOT_USER, sub, b"deep", 0o777)
    files = []
    for name in (b"f", b"g", b"h"):
        ino, _ = service.create(ROOT_USER, a, name, 0o666)
        service.write(ino, 0, [SliceRecord(0, service.new_slice_id(), 100, 0, 100)], 1, new_length=100)
        files.append(ino)
    link, _ = service.symlink(ROOT_USER, a, b"l", b"f")
    service.setxattr(ROOT_USER, files[0], b"user.x", b"1")
    service.link(ROOT_USER, files[1], b, b"g2")
    for name in (b"d1", b"d2"):
        ino, _ = service.mkdir(ROOT_USER, b, name, 0o777)
        service.setattr(ROOT_USER, ino, AttrChange(uid=1000))
    service.mkdir(ROOT_USER, ROOT, b"empty", 0o777)
    for ino in (a, b, sub, deep, *files, link):
        service.setattr(ROOT_USER, ino, AttrChange(uid=1000))
    return Tree(a, b, deep, files[0], files[1], files[2], link)


def tried(action: Callable[[], object]) -> Callable[[], object]:
    """An action that fails, as it should."""

    def run() -> None:
        with suppress(FsError):
            action()
            raise AssertionError("it did not fail")

    return run


def reads(s: MetaService, t: Tree, who: Caller) -> dict[str, Callable[[], object]]:
    """Every operation that changes nothing."""
    return {
        """Every operation of the service, most in several situations."""
        "lookup": lambda: s.lookup(who, t.a, b"f"),
        "lookup of nothing": tried(lambda: s.lookup(who, t.a, b"none")),
        "resolve": lambda: s.resolve(who, b"/a/sub/deep"),
        "resolve nothing": tried(lambda: s.resolve(who, b"/a/none")),
        "resolve through a link": lambda: s.resolve(who, b"/a/l"),
        "getattr": lambda: s.getattr(t.f, fresh=True),
        "access": lambda: s.access(who, t.f, 4),
        "readdir": lambda: list(s.readdir(who, t.a)),
        "readdir of names": lambda: list(s.readdir(who, t.a, attrs=False)),
        "readlink": lambda: s.readlink(t.link),
        "statfs": s.statfs,
        "summary": lambda: s.summary(who, t.b),
        "dir_stat": lambda: s.dir_stat(t.a),
        "records": lambda: s.records(t.f, 0),
        "records of a hole": lambda: s.records(t.f, 1),
        "getxattr": lambda: s.getxattr(t.f, b"user.x"),
        "getxattr of nothing": tried(lambda: s.getxattr(t.f, b"user.none")),
        "listxattr": lambda: s.listxattr(t.f),
        "listxattr of nothing": lambda: s.listxattr(t.h),
        "getlk": lambda: s.getlk(t.f, 1, LockKind.READ, 0, 9),
    }


def changes(s: MetaService, t: Tree, who: Caller) -> dict[str, Callable[[], object]]:
    """Every operation that changes something."""
    fresh = [SliceRecord(0, s.new_slice_id(), 100, 0, 100)]
    exchange, keep = RenameFlag.EXCHANGE, RenameFlag.NO_REPLACE
    return {
        "mknod": lambda: s.mknod(who, t.a, b"new", Kind.FIFO, 0o644),
        "create": lambda: s.create(who, t.a, b"new", 0o644),
        "create what exists": lambda: s.create(who, t.a, b"f", 0o644, exclusive=False),
        "create in vain": tried(lambda: s.create(who, t.a, b"f", 0o644)),
        "mkdir": lambda: s.mkdir(who, t.a, b"new", 0o755),
        "symlink": lambda: s.symlink(who, t.a, b"new", b"target"),
        "link": lambda: s.link(who, t.f, t.b, b"new"),
        "link again": lambda: s.link(who, t.g, t.b, b"new"),
        "unlink": lambda: s.unlink(who, t.a, b"f"),
        "unlink for good": lambda: s.unlink(who, t.a, b"f", skip_trash=True),
        "unlink one of two": lambda: s.unlink(who, t.a, b"g"),
        "unlink a link": lambda: s.unlink(who, t.a, b"l"),
        "unlink nothing": tried(lambda: s.unlink(who, t.a, b"none")),
        "rmdir": lambda: s.rmdir(who, t.b, b"d1"),
        "rmdir in vain": tried(lambda: s.rmdir(who, t.a, b"sub")),
        "rename": lambda: s.rename(who, t.a, b"f", t.a, b"new"),
        "rename away": lambda: s.rename(who, t.a, b"f", t.b, b"new", flags=keep),
        "rename over": lambda: s.rename(who, t.a, b"f", t.a, b"h"),
        "rename over one of two": lambda: s.rename(who, t.a, b"f", t.a, b"g"),
        "rename a directory": lambda: s.rename(who, t.b, b"d1", t.b, b"new"),
        "rename a directory away": lambda: s.rename(who, t.b, b"d1", t.deep, b"new"),
        "rename over a directory": lambda: s.rename(who, t.b, b"d1", t.b, b"d2"),
        "exchange": lambda: s.rename(who, t.a, b"f", t.b, b"d1", flags=exchange),
        "setattr": lambda: s.setattr(who, t.f, AttrChange(mtime_ns=5)),
        "open": lambda: s.open_file(who, t.f, write=True),
        "truncate": lambda: s.truncate(who, t.f, 50),
        "truncate far": lambda: s.truncate(who, t.f, 5 << 30),
        "fallocate": lambda: s.fallocate(who, t.f, 0, 0, 5000),
        "punch": lambda: s.fallocate(who, t.f, 3, 10, 50),
        "write": lambda: s.write(t.f, 0, fresh, 1, new_length=100),
        "write to one of two": lambda: s.write(t.g, 0, fresh, 1, new_length=9000),
        "compose": lambda: s.compose(who, t.f, 0, [SliceRange(t.h, 0, 50)]),
        "copy_file_range": lambda: s.copy_file_range(who, t.h, 0, t.f, 0, 1 << 20),
        "setxattr": lambda: s.setxattr(who, t.f, b"user.y", b"1"),
        "setxattr anew": lambda: s.setxattr(who, t.f, b"user.y", b"1", mode="create"),
        "setxattr again": lambda: s.setxattr(who, t.f, b"user.x", b"1", mode="replace"),
        "removexattr": lambda: s.removexattr(who, t.f, b"user.x"),
        "flock": lambda: s.flock(t.f, 1, LockKind.WRITE),
        "setlk": lambda: s.setlk(t.f, 1, LockKind.READ, 0, 9, 1),
        "clone a file": lambda: s.clone(who, t.f, t.a, b"new"),
        "clone a tree": lambda: s.clone(who, t.b, t.a, b"new"),
    }


def operations(s: MetaService, t: Tree, who: Caller) -> dict[str, Callable[[], object]]:
    """Every operation of the service, most in several situations."""
    return reads(s, t, who) | changes(s, t, who)


class Trees:
    """Makes trees, each with a client that has its numbers and the hour's trash, and knows nothing else."""

    def __init__(self, server: RedisServer, trash_days: int, *, quota: bool = False) -> None:
        self._quota = quota
        self.setting = Setting(name="trips", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=trash_days)
        self._server = server

    @contextmanager
    def client(self) -> Iterator[tuple[MetaService, RedisEngine, Tree]]:
        """A client of a new tree."""
        url, clock = self._server.fresh_url(), FakeClock()
        engine = open_redis(url)
        MetaService.format(engine, self.setting, clock)
        with MetaService.open(engine, clock, background=False) as first:
            tree = grow(first)
            if self._quota:
                for ino in (ROOT, tree.a):
                    first.set_quota(QuotaKind.DIRECTORY, ino, max_inodes=1000)
        engine = open_redis(url)
        with MetaService.open(engine, clock, background=False) as service:
            service._inodes.take()
            service._slices.take()
            if self.setting.trash_days:
                service.trash_hour()
            yield service, engine, tree
        with self._server.client_of(url) as plain:
            plain.flushdb()

    def count(self, name: str, who: Caller, *, seen: bool) -> int:
        """Round trips of one operation on a tree of its own."""
        with self.client() as (service, engine, tree):
            operation = operations(service, tree, who)[name]
            if seen:
                for ino in (ROOT, tree.a, tree.b, tree.deep):
                    list(service.readdir(who, ino))
            before = engine.round_trips
            operation()
            return engine.round_trips - before


@pytest.mark.parametrize("trash_days", [0, 1])
@pytest.mark.parametrize("quota", [False, True], ids=["free", "quota"])
@pytest.mark.parametrize("who", [ROOT_USER, OWNER], ids=["root", "owner"])
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
def test_at_most_two_round_trips(
    redis_server: RedisServer, trash_days: int, who: Caller, *, seen: bool, quota: bool
) -> None:
    trees = Trees(redis_server, trash_days, quota=quota)
    with trees.client() as (service, _, tree):
        names = list(operations(service, tree, who))
    for name in ("unlink", "resolve", "readdir"):
        trees.count(name, who, seen=False)  # so that the server knows every script
    counted = {name: trees.count(name, who, seen=seen) for name in names}
    allowed = {name: GROWS.get(name, MOST) for name in names}
    if quota:
        allowed = {name: QUOTA.get(name, trips + 1) for name, trips in allowed.items()}
    assert {name: trips for name, trips in counted.items() if trips > allowed[name]} == {}
    if seen:
        for name in ("create", "mkdir", "unlink", "unlink for good", "rename", "rename away", "setattr", "write"):
            assert counted[name] == 1, "what was just looked at, or is new, is not read before it is compared"
