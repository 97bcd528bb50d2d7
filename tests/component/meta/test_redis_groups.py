"""Redis in groups: which server is asked, what happens while a slot moves or a master hands over, who is patient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fscore.domain.caller import Caller
from fscore.domain.errors import SettingError, UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engines.redis.engine import RedisEngine, open_redis
from fscore.meta.service import MetaService
from fscore.runtime.clock import SystemClock
from tests.kit.invariants import check_engine
from tests.kit.redis_groups import HOST, MASTER, ClusterGroup, Group, database_of, free_port, running, until
from tests.kit.redis_server import trips

WHO = Caller.root()
SETTING = Setting(name="groups", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0)
cluster = [pytest.mark.redis, pytest.mark.xdist_group("redis-cluster")]
sentinel = [pytest.mark.redis, pytest.mark.xdist_group("redis-sentinel")]


def open_new(url: str) -> tuple[MetaService, RedisEngine]:
    """A client of a new volume."""
    engine = open_redis(url)
    MetaService.format(engine, SETTING, SystemClock())
    return MetaService.open(engine, SystemClock(), background=False), engine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is patient for longer than a moment."""
    for kind in ("_Group", "Single"):
        monkeypatch.setattr(f"fscore.meta.engines.redis.masters.{kind}.patience_s", 0.3)


class TestCluster:
    """One volume lies in one slot."""

    pytestmark = cluster

    def test_one_node_that_is_named_tells_of_the_others(self, cluster_group: ClusterGroup) -> None:
        for database, port in ((0, cluster_group.nodes[0]), (40_001, cluster_group.nodes[-1])):
            url = f"redis://{HOST}:{port}/{database}"
            service, engine = open_new(url)
            service.mkdir(WHO, ROOT, b"d", 0o755)
            assert engine._keys.prefix == b"{%d}" % database
            service.close()
            cluster_group.wipe(url)

    def test_volumes_lie_beside_each_other(self, cluster_group: ClusterGroup) -> None:
        urls = [cluster_group.fresh_url() for _ in range(4)]
        opened = [open_new(url) for url in urls]
        for number, (service, _) in enumerate(opened):
            for name in range(number + 1):
                service.create(WHO, ROOT, b"f%d" % name, 0o644)
        for number, (service, engine) in enumerate(opened):
            service.flush()
            assert len(list(engine.scan_nodes())) == number + 2
            assert check_engine(engine) == []
            service.close()
            cluster_group.wipe(urls[number])

    def test_a_path_is_walked_in_one_trip(self, cluster_url: str) -> None:
        service, engine = open_new(cluster_url)
        parent: int = ROOT
        for name in (b"a", b"b", b"c"):
            parent, _ = service.mkdir(WHO, parent, name, 0o755)
        engine.walk(ROOT, [b"a", b"b"])  # so that the server knows the script
        assert trips(engine, lambda: engine.walk(ROOT, [b"a", b"b", b"c"])) == 1
        assert [ino for ino, _ in engine.walk(ROOT, [b"a", b"b", b"c"])][-1] == parent
        service.close()

    def test_a_slot_that_moves_takes_the_volume_along(self, cluster_group: ClusterGroup, cluster_url: str) -> None:
        service, engine = open_new(cluster_url)
        stop = threading.Event()
        errors: list[Exception] = []
        made: list[bytes] = []

        def work() -> None:
            try:
                while not stop.is_set():
                    name = b"f%d" % len(made)
                    service.create(WHO, ROOT, name, 0o644)
                    made.append(name)
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            until("it works", lambda: len(made) > 20)
            self.move(cluster_group, cluster_url)
            before = len(made)
            until("it works at the new place", lambda: len(made) > before + 20 or bool(errors))
        finally:
            stop.set()
            thread.join()
        assert errors == []
        assert {entry.name for entry in service.readdir(WHO, ROOT)} == set(made)
        service.flush()
        assert check_engine(engine) == []
        service.close()

    @staticmethod
    def move(group: ClusterGroup, url: str) -> None:
        """Move the slot of a volume from its master to another one, key by key."""
        prefix = f"{{{database_of(url)}}}"
        slot = redis.crc.key_slot(prefix.encode())
        source, target = group.master_of(url), next(p for p in group.masters() if p != group.master_of(url))
        with group.client(source) as old, group.client(target) as new:
            ids = {port: _say(group.client(port), "CLUSTER", "MYID").decode() for port in (source, target)}
            _say(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            _say(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
            while keys := _say(old, "CLUSTER", "GETKEYSINSLOT", slot, 10):
                _say(old, "MIGRATE", HOST, target, "", 0, 5000, "KEYS", *keys)
            for port in group.masters():
                _say(group.client(port), "CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def test_too_few_replicas_are_said(self, cluster_group: ClusterGroup, quick: None) -> None:
        url = cluster_group.fresh_url()
        engine = open_redis(url + "?wait-replicas=5")
        with pytest.raises(UnavailableError, match=r"[01] of 5 replicas"):
            engine.transact(lambda txn: txn.put_xattr(7, b"user.a", b"value"))
        with engine.view() as view:
            assert view.xattr(7, b"user.a") == b"value", "it was done, and not confirmed"
        engine.close()
        cluster_group.wipe(url)


def _say(client: redis.Redis, *command: object) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


class TestSentinel:
    """The master is asked for by name."""

    pytestmark = sentinel

    def test_a_name_that_nobody_knows(self, sentinel_group: Group) -> None:
        url = sentinel_group.url(0).replace(MASTER, "nobody")
        with pytest.raises(SettingError, match="know no master 'nobody'"):
            open_redis(url)

    def test_no_sentinel_answers(self, quick: None) -> None:
        with pytest.raises(UnavailableError, match="no sentinel names the master"):
            open_redis(f"redis://{MASTER},{HOST}:{free_port()}/0")

    def test_one_sentinel_that_answers_is_enough(self, sentinel_group: Group) -> None:
        engine = open_redis(f"redis://{MASTER},{HOST}:{free_port()},{sentinel_group.url(0).rpartition(',')[2]}")
        assert engine.load_setting() is None
        engine.close()

    def test_a_master_that_hands_over(self, sentinel_group: Group, sentinel_url: str) -> None:
        service, engine = open_new(sentinel_url)
        service.mkdir(WHO, ROOT, b"before", 0o755)
        old = sentinel_group.master_of(sentinel_url)
        with sentinel_group.client(int(sentinel_sentinels(sentinel_group)[0])) as client:
            _say(client, "SENTINEL", "FAILOVER", MASTER)
        until("the master handed over", lambda: sentinel_group.master_of(sentinel_url) != old)
        service.mkdir(WHO, ROOT, b"after", 0o755)
        assert {entry.name for entry in service.readdir(WHO, ROOT)} == {b"before", b"after"}
        service.flush()
        assert check_engine(engine) == []
        service.close()

    def test_of_sentinels_that_differ_the_latest_election_counts(self, sentinel_group: Group) -> None:
        old = sentinel_group.master_of("")
        until("a failover can begin", lambda: begins(sentinel_group))
        until("the master handed over", lambda: sentinel_group.master_of("") != old)
        until("all of its sentinels know", lambda: len(named(sentinel_group)) == 1)
        with running(Lone) as outdated:
            listed = outdated.url(0).rpartition("/")[0].rpartition(",")[2]
            names = [f"{HOST}:{port}" for port in sentinel_sentinels(sentinel_group)]
            engine = open_redis(f"redis://{MASTER},{listed},{','.join(names)}/0")
            assert engine._link.master.connect().port == sentinel_group.master_of("")
            engine.close()

    def test_a_sentinel_with_a_password(self, guarded: tuple[str, Callable[[], None]]) -> None:
        url, remember = guarded
        with pytest.raises(SettingError, match="SENTINEL_PASSWORD"):
            open_redis(url)
        remember()
        engine = open_redis(url)
        assert engine.load_setting() is None
        engine.close()

    @pytest.fixture
    def guarded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], None]]]:
        """META-URL of a master whose only sentinel wants a password, and a call after which it is known."""
        with running(Guarded) as group:
            yield group.url(0), lambda: monkeypatch.setenv("SENTINEL_PASSWORD", "watchword")


def sentinel_sentinels(group: Group) -> list[str]:
    """Ports of the sentinels."""
    return [part.rpartition(":")[2] for part in group.url(0).partition(",")[2].rpartition("/")[0].split(",")]


def named(group: Group) -> set[Any]:
    """What its sentinels take for the master."""
    asked = [redis.Redis(host=HOST, port=int(port), protocol=2) for port in sentinel_sentinels(group)]
    return {_say(one, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1] for one in asked}


def begins(group: Group) -> bool:
    """Whether a failover that is asked for begins; not while another is under way."""
    with group.client(int(sentinel_sentinels(group)[0])) as client:
        _say(client, "SENTINEL", "FAILOVER", MASTER)
    return True


class Lone(Group):
    """One server, and one sentinel that has heard of no election."""

    guard = ""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.node, self.sentinel = free_port(), free_port()

    def start(self) -> None:
        """Start both."""
        self.launch(self.node, "--port", str(self.node), "--bind", HOST, "--save", "")
        until("the server answers", lambda: bool(self.client(self.node).ping()))
        conf = self.place / "sentinel.conf"
        watch = f"sentinel monitor {MASTER} {HOST} {self.node} 1"
        conf.write_text(f"port {self.sentinel}\nbind {HOST}\n{self.guard}\n{watch}\n")
        self.launch(self.sentinel, str(conf), "--sentinel")
        until("the sentinel answers", self.whole)

    def whole(self) -> bool:
        """It answers, if only that it wants a password."""
        try:
            self.client(self.sentinel).ping()
        except redis.exceptions.AuthenticationError:
            return bool(self.guard)
        return not self.guard

    def master_of(self, url: str) -> int:
        """The only one."""
        return self.node

    def url(self, database: int) -> str:
        """META-URL."""
        return f"redis://{MASTER},{HOST}:{self.sentinel}/{database}"

    def wipe(self, url: str) -> None:
        """It goes as a whole."""


class Guarded(Lone):
    """One server, and one sentinel that wants a password."""

    guard = "requirepass watchword"
