"""The Redis engine against a real server: round trips, races, lost connections, what the server must be."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import redis

from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import CorruptError, Exists, SettingError, UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.domain.slices import SliceRecord
from fscore.meta.engine import SupportsResolve
from fscore.meta.engines.redis.address import Address
from fscore.meta.engines.redis.codec import encode_attr
from fscore.meta.engines.redis.engine import RedisEngine, open_redis
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.engines.redis.link import Link
from fscore.meta.engines.redis.marks import KEPT_S, Marks
from fscore.meta.records import Counter, Edge
from fscore.meta.service import MetaService
from fscore.meta.txn import MetaTxn
from fscore.runtime.clock import FakeClock
from tests.kit.bodies import FILE, ROOT_ATTR, bump, create
from tests.kit.redis_server import CutLink, RedisServer, need_redis, trips

pytestmark = pytest.mark.redis

ROOT_USER = Caller.root()


@pytest.fixture
def raw(redis_server: RedisServer, redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the same database."""
    with redis_server.client_of(redis_url) as client:
        yield client


def test_create_costs_one_round_trip_where_the_directory_is_known(redis_engine: RedisEngine) -> None:
    redis_engine.transact(create(b"warm", 2))  # the script may have to be sent once to a new server
    assert trips(redis_engine, lambda: redis_engine.transact(create(b"a", 3))) == 1
    assert trips(redis_engine, lambda: redis_engine.transact(create(b"b", 4))) == 1


def test_the_first_create_in_a_directory_costs_two(redis_engine: RedisEngine, peer: RedisEngine) -> None:
    redis_engine.transact(create(b"warm", 2))
    assert trips(peer, lambda: peer.transact(create(b"a", 3))) == 2


def test_service_create_costs_at_most_two(redis_url: str) -> None:
    redis_engine = open_redis(redis_url)
    clock = FakeClock()
    MetaService.format(redis_engine, Setting(name="trips", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13"), clock)
    service = MetaService.open(redis_engine, clock, background=False)
    folder, _ = service.mkdir(ROOT_USER, ROOT, b"folder", 0o755)
    service.create(ROOT_USER, folder, b"warm", 0o644)
    names = [b"%d" % number for number in range(20)]
    made = trips(redis_engine, lambda: [service.create(ROOT_USER, folder, name, 0o644) for name in names])
    assert made <= 2 * len(names)
    service.close()


def test_a_stale_guess_costs_a_trip_and_no_answer(redis_engine: RedisEngine, peer: RedisEngine) -> None:
    redis_engine.transact(create(b"a", 2))
    peer.transact(bump)
    assert trips(redis_engine, lambda: redis_engine.transact(create(b"b", 3))) == 2
    peer.transact(create(b"c", 4))
    with pytest.raises(Exists):
        redis_engine.transact(create(b"c", 5))
    with redis_engine.view() as view:
        assert view.node(5) is None
        assert view.edge(1, b"c") == Edge(Kind.FILE, 4)


def test_a_guess_is_checked_even_where_nothing_is_written(redis_engine: RedisEngine, peer: RedisEngine) -> None:
    redis_engine.transact(create(b"a", 2))
    peer.transact(bump)
    assert redis_engine.transact(lambda txn: txn.node(1)) == msgspec.structs.replace(ROOT_ATTR, mtime_ns=1, nlink=3)


def test_a_lost_race_runs_again_on_what_redis_holds(redis_engine: RedisEngine, peer: RedisEngine) -> None:
    runs: list[int] = []

    def body(txn: MetaTxn) -> int:
        attr = txn.node(1)
        assert attr is not None
        if not runs:
            peer.transact(bump)
        runs.append(attr.nlink)
        txn.put_node(1, msgspec.structs.replace(attr, nlink=attr.nlink + 10))
        return attr.nlink + 10

    assert redis_engine.transact(body) == 13
    assert runs == [2, 3]
    with redis_engine.view() as view:
        assert view.node(1) == msgspec.structs.replace(ROOT_ATTR, nlink=13)


RACES: dict[str, tuple[Callable[[Any], object], Callable[[MetaTxn], None]]] = {
    "chunk": (lambda view: view.chunk(2, 0), lambda t: t.append(2, 0, [SliceRecord(0, 9, 9, 0, 9)])),
    "symlink": (lambda view: view.symlink(2), lambda t: t.put_symlink(2, b"else")),
    "xattr": (lambda view: view.xattr(2, b"user.a"), lambda t: t.put_xattr(2, b"user.a", b"x")),
    "xattrs": (lambda view: view.xattrs(2), lambda t: t.put_xattr(2, b"user.b", b"x")),
    "xattr gone": (lambda view: view.xattrs(2), lambda t: t.del_xattr(2, b"user.0")),
    "xattr value": (lambda view: view.xattrs(2), lambda t: t.put_xattr(2, b"user.0", b"1")),
    "parents": (lambda view: view.parents(2), lambda t: t.add_parent(2, 7, 1)),
    "entry": (lambda view: view.edge(1, b"e"), lambda t: t.put_edge(1, b"e", Edge(Kind.FILE, 5))),
    "entry gone": (lambda view: view.edge(1, b"0"), lambda t: t.del_edge(1, b"0")),
    "entries": (lambda view: len(view.entries(1)), lambda t: t.put_edge(1, b"e", Edge(Kind.FILE, 5))),
    "emptiness": (lambda view: view.has_entries(3), lambda t: t.put_edge(3, b"e", Edge(Kind.FILE, 5))),
    "fullness": (lambda view: view.has_entries(1), lambda t: t.del_edge(1, b"0")),
    "node gone": (lambda view: view.node(2), lambda t: t.del_node(2)),
}


@pytest.mark.parametrize("race", RACES)
def test_every_kind_of_read_is_compared(redis_engine: RedisEngine, peer: RedisEngine, race: str) -> None:
    reader, interfere = RACES[race]

    def prepare(txn: MetaTxn) -> None:
        txn.put_node(2, FILE)
        txn.put_xattr(2, b"user.0", b"0")
        txn.put_edge(1, b"0", Edge(Kind.FILE, 2))

    redis_engine.transact(prepare)
    seen: list[object] = []

    def body(txn: MetaTxn) -> None:
        seen.append(reader(txn))
        if len(seen) == 1:
            peer.transact(interfere)
        txn.put_symlink(99, b"%d" % len(seen))

    redis_engine.transact(body)
    with redis_engine.view() as view:
        assert view.symlink(99) == b"2"
        assert seen[1] == reader(view)
    assert seen[0] != seen[1]


def test_a_race_with_a_client_of_watch_and_multi(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    """The official client's protocol (volume-format.md 2.4) beside ours: neither loses a write of the peer."""
    count = 150

    def make_directories() -> None:
        for number in range(count):
            ino = 5000 + number

            def once(pipe: Any, ino: int = ino) -> None:
                root = bytearray(pipe.get("i1"))
                root[47:51] = (int.from_bytes(root[47:51], "big") + 1).to_bytes(4, "big")
                pipe.multi()
                pipe.set("i1", bytes(root))
                pipe.set(f"i{ino}", encode_attr(msgspec.structs.replace(ROOT_ATTR, mode=0o755)))
                pipe.hset("d1", f"theirs-{ino}", b"\x02" + ino.to_bytes(8, "big"))
                pipe.incrby("usedSpace", 4096)
                pipe.incr("totalInodes")

            raw.transaction(once, "i1", "d1")

    peer = threading.Thread(target=make_directories)
    peer.start()
    for number in range(count):
        redis_engine.transact(create(b"ours-%d" % number, 100 + number))
    peer.join()
    with redis_engine.view() as view:
        assert len(view.entries(1)) == 2 * count
        assert view.usage() == (4096 * 2 * count, 2 * count)
        assert view.node(1) == msgspec.structs.replace(ROOT_ATTR, nlink=2 + count, mtime_ns=count)


def test_an_inode_that_exists_is_not_created_over(redis_engine: RedisEngine, peer: RedisEngine) -> None:
    peer.transact(lambda t: t.put_node(2, FILE))
    with pytest.raises(CorruptError, match="inode 2 exists"):
        redis_engine.transact(create(b"a", 2))
    with redis_engine.view() as view:
        assert view.edge(1, b"a") is None


def test_walk(redis_engine: RedisEngine) -> None:
    assert isinstance(redis_engine, SupportsResolve)
    far = 0x7FFFFFFF10000005
    tree = {(1, b"a"): 2, (2, b"b"): 3, (3, b"c"): far, (far, b"d"): 5, (5, b"file"): 6, (5, b"lost"): 7}
    for (parent, name), ino in tree.items():
        kind = Kind.DIRECTORY if ino < 6 or ino == far else Kind.FILE
        redis_engine.transact(methodcaller("put_edge", parent, name, Edge(kind, ino)))
        if ino != 7:
            attr = msgspec.structs.replace(FILE, kind=kind, uid=ino % 1000)
            redis_engine.transact(methodcaller("put_node", ino, attr))
    names = [b"a", b"b", b"c", b"d", b"file", b"below"]
    assert [ino for ino, _ in redis_engine.walk(1, names)] == [2, 3, far, 5, 6]
    assert redis_engine.walk(1, names)[1][1].uid == 3
    assert [ino for ino, _ in redis_engine.walk(1, [b"a", b"none", b"c"])] == [2]
    assert [ino for ino, _ in redis_engine.walk(1, [b"a", b"b", b"c", b"none"])] == [2, 3, far]
    assert redis_engine.walk(5, [b"lost"]) == []
    assert redis_engine.walk(1, []) == []
    assert trips(redis_engine, lambda: redis_engine.walk(1, [b"a", b"b"])) == 1


def test_keys_with_the_prefix_of_a_cluster(redis_engine: RedisEngine, redis_url: str, raw: redis.Redis) -> None:
    """Everything goes under {db}, so that a volume lies in one slot."""
    raw.flushdb()
    keys = Keys(b"{7}")
    clustered = RedisEngine(Link(Address(redis_url)), keys)
    clustered.init_volume(b"{}", {1: ROOT_ATTR})
    clustered.transact(create(b"a", 2))
    clustered.transact(lambda t: t.append(2, 0, [SliceRecord(0, 9, 9, 0, 9)]))
    clustered.transact(lambda t: t.add_refs(9, 9, -1))
    assert [key for key in raw.scan_iter() if not bytes(key).startswith(b"{7}")] == []
    assert sorted(ino for ino, _ in clustered.scan_nodes()) == [1, 2]
    assert [chunk[:2] for chunk in clustered.scan_chunks()] == [(2, 0)]
    assert clustered.walk(1, [b"a"]) == [(2, FILE)]
    assert clustered.take_dead() == [(9, 9)]
    clustered.close()


def test_a_dead_connection_is_replaced(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    redis_engine.transact(create(b"a", 2))
    raw.client_kill_filter(_type="normal", skipme=True)
    assert redis_engine.load_setting() == b"{}"
    raw.client_kill_filter(_type="normal", skipme=True)
    assert redis_engine.transact(create(b"b", 3)) == 3
    assert raw.hlen("d1") == 2


@pytest.fixture
def cutting(redis_engine: RedisEngine, redis_url: str) -> Iterator[tuple[RedisEngine, CutLink]]:
    """A client whose connection can be cut, with its scripts known to the server."""
    link = CutLink(redis_url)
    client = RedisEngine(link, Keys())
    client.transact(create(b"warm", 50))
    yield client, link
    client.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_was_cut_happens_once(
    cutting: tuple[RedisEngine, CutLink], raw: redis.Redis, when: Literal["before", "after"]
) -> None:
    client, link = cutting
    link.cut_next(when)
    assert client.transact(create(b"a", 51)) == 51
    assert raw.get("totalInodes") == b"2"
    assert raw.hlen("d1") == 2


def test_a_commit_cut_before_another_client_wrote_runs_again(
    cutting: tuple[RedisEngine, CutLink], peer: RedisEngine, raw: redis.Redis
) -> None:
    client, link = cutting
    link.cut_next("before", lambda: peer.transact(bump))
    assert client.transact(create(b"a", 51)) == 51
    assert raw.get("totalInodes") == b"2"
    with client.view() as view:
        assert view.node(1) == msgspec.structs.replace(ROOT_ATTR, nlink=3, mtime_ns=2)


def test_a_commit_cut_after_it_was_done_is_known_whatever_others_wrote(
    cutting: tuple[RedisEngine, CutLink], peer: RedisEngine, raw: redis.Redis
) -> None:
    client, link = cutting
    link.cut_next("after", lambda: peer.transact(bump))
    client.transact(bump)
    with client.view() as view:
        assert view.node(1) == msgspec.structs.replace(ROOT_ATTR, nlink=4, mtime_ns=1)
    link.cut_next("before", lambda: peer.transact(create(b"b", 60)))
    assert client.transact(create(b"a", 51)) == 51
    assert raw.get("totalInodes") == b"3"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_without_a_compared_record_happens_once(
    cutting: tuple[RedisEngine, CutLink], raw: redis.Redis, when: Literal["before", "after"]
) -> None:
    client, link = cutting
    link.cut_next(when)
    client.transact(lambda t: t.append(51, 0, [SliceRecord(0, 1, 1, 0, 1)]))
    assert raw.llen("c51_0") == 1


def test_marks_of_transactions_go_away_by_themselves(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    redis_engine.transact(create(b"a", 2))
    redis_engine.transact(create(b"b", 3))
    marks = list(raw.scan_iter("F*"))
    assert len(marks) == 1, "one for each transaction that is under way at once"
    assert 0 < raw.ttl(marks[0]) <= KEPT_S


def test_a_forked_child_has_marks_of_its_own() -> None:
    marks = Marks(Keys())
    key, number = marks.take()
    marks.give(key)
    marks._pid = -1
    again, later = marks.take()
    assert again != key
    assert later > number


def test_numbers_that_a_lost_master_gave_away_are_not_given_again(
    cutting: tuple[RedisEngine, CutLink], peer: RedisEngine, raw: redis.Redis
) -> None:
    client, link = cutting
    assert client.reserve(Counter.SLICE, 10) == range(1, 11)

    def lost() -> None:
        raw.delete("nextchunk")

    link.cut_next("before", lost)
    client.load_setting()
    assert raw.get("nextchunk") == b"10", "told to the server that came back, before anything else"
    lost()
    assert client.reserve(Counter.SLICE, 10) == range(11, 21)
    assert peer.reserve(Counter.SLICE, 1) == range(21, 22)


def test_a_server_that_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_redis()
    place = tmp_path_factory.mktemp("r")
    server = RedisServer(place, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    try:
        redis_engine = open_redis(server.fresh_url())
        redis_engine.init_volume(b"{}", {1: ROOT_ATTR})
        redis_engine.transact(create(b"a", 2))
        server.stop()
        starter = threading.Timer(0.3, server.start)
        starter.start()
        assert redis_engine.transact(create(b"b", 3)) == 3
        starter.join()
        assert redis_engine.counters()["totalInodes"] == 2
        redis_engine.close()
    finally:
        server.stop()


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="did not answer"):
        open_redis(f"unix://{tmp_path}/none.sock?db=0")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost:1/x", "no database number"),
        ("redis://localhost:x/1", "names no server"),
        ("redis://[::1/1", "names no server"),
        ("redis://localhost/1?wait-replicas=two", "number of replicas"),
    ],
)
def test_a_wrong_url_is_refused_in_one_line(url: str, words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        open_redis(url)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert Address("redis://me:secret@h:1/2").location == "redis://h:1/2"
    assert Address("redis://:p%40ss@h").kwargs["password"] == "p@ss"
    assert Address("rediss://h:1/2?tls-ca-cert-file=/ca").kwargs["ssl_ca_certs"] == "/ca"


def test_where_a_password_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REDIS_PASSWORD", "META_PASSWORD", "META_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert Address("redis://h").kwargs["password"] is None
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("META_PASSWORD_FILE", str(tmp_path / "secret"))
    assert Address("redis://h").kwargs["password"] == "from-file"
    monkeypatch.setenv("META_PASSWORD", "from-meta")
    assert Address("redis://h").kwargs["password"] == "from-meta"
    monkeypatch.setenv("REDIS_PASSWORD", "from-redis")
    assert Address("redis://h").kwargs["password"] == "from-redis"
    assert Address("redis://:own@h").kwargs["password"] == "own"
    monkeypatch.delenv("REDIS_PASSWORD")
    monkeypatch.delenv("META_PASSWORD")
    monkeypatch.setenv("META_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingError, match="META_PASSWORD_FILE"):
        Address("redis://h")


def test_a_wrong_password(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> None:
    with redis_server.client() as admin:
        admin.acl_setuser("guarded", enabled=True, passwords=["+right"], categories=["+@all"], keys=["*"])
    with pytest.raises(SettingError, match=r"(?i)pass"):
        open_redis(f"unix://guarded:wrong@{redis_server.socket}?db=0")
    with redis_server.client() as admin:
        admin.acl_setuser("guarded", enabled=True, passwords=["+right"], categories=["-@all"], keys=["*"])
    with pytest.raises(SettingError):
        open_redis(f"unix://guarded:right@{redis_server.socket}?db=0")


def test_a_server_that_may_evict_is_warned_about(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with caplog.at_level(logging.WARNING):
                open_redis(redis_url).close()
        finally:
            admin.config_set("maxmemory-policy", "noeviction")
    assert "noeviction" in caplog.text


def test_a_server_that_is_too_old_is_refused() -> None:
    """Releases before 4.0 cannot be started here any more: a socket answers as one did."""
    server = socket.create_server(("127.0.0.1", 0))
    facts = b"redis_version:3.2.13\r\n"

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(65536):
                infos = data.count(b"INFO\r\n")
                others = data.count(b"*") - infos
                connection.sendall(b"+OK\r\n" * others + (b"$%d\r\n%s\r\n" % (len(facts), facts)) * infos)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(SettingError, match=r"3\.2\.13"):
            open_redis(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
    finally:
        thread.join()
        server.close()


def test_records_of_a_wrong_type_are_corrupt(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    raw.set("d5", b"no hash")
    with redis_engine.view() as view, pytest.raises(CorruptError):
        view.edge(5, b"a")
    raw.set("i5", b"short")
    with redis_engine.view() as view, pytest.raises(CorruptError):
        view.node(5)


def test_a_session_takes_its_locks_with_it(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    raw.hset("lockf9", mapping={"1_D8E6F55110705D44": b"W", "2_0000000000000001": b"R"})
    raw.hset("lockp9", mapping={"1_D8E6F55110705D44": b"\0" * 24})
    raw.sadd("locked1", "lockf9", "lockp9")
    raw.zadd("allSessions", {"1": 1000, "2": 2000})
    assert redis_engine.used_features() == {"locks"}
    redis_engine.drop_session(1)
    assert raw.hgetall("lockf9") == {b"2_0000000000000001": b"R"}
    assert not raw.exists("lockp9", "locked1")
    assert raw.zrange("allSessions", 0, -1) == [b"2"]


def test_foreign_keys_do_not_disturb_scans(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    raw.mset({"image": b"x", "i5x": b"x", "c": b"x", "Fprivate": b"x"})
    raw.hset("d5_old", "a", b"x")
    assert [ino for ino, _ in redis_engine.scan_nodes()] == [1]
    assert list(redis_engine.scan_edges()) == []
    assert list(redis_engine.scan_chunks()) == []


def test_a_directory_that_grows_while_it_is_scanned(redis_engine: RedisEngine, raw: redis.Redis) -> None:
    entry = b"\x01" + (7).to_bytes(8, "big")
    raw.hset("d1", mapping={f"first-{number}": entry for number in range(2000)})
    pages = redis_engine.scan_dir(1, attrs=False, batch=100)
    found = [entry.name for entry in next(pages)]
    raw.hset("d1", mapping={f"later-{number}": entry for number in range(20_000)})
    found += [entry.name for page in pages for entry in page]
    assert len(found) == len(set(found))
    assert {name for name in found if name.startswith(b"first-")} == {b"first-%d" % n for n in range(2000)}
