"""Groups of Redis servers that lose their master and go on: one watched by sentinels, and a cluster.

All run on free loopback ports, in a directory of their own, as children that are stopped by their handles. They are
made for quick failovers: a death is believed in after half a second to a second.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import redis

from tests.kit import databases
from tests.kit.redis_server import BINARY, DATABASES, need_redis

HOST: Final = "127.0.0.1"
MASTER: Final = "fscoremaster"
START_S: Final = 30.0
NODE_OPTIONS: Final = (
    "--bind", HOST, "--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay",
    "0", "--repl-backlog-size", "16mb", "--databases", str(DATABASES),
)  # fmt: skip


def free_port() -> int:
    """A loopback port that is free, and whose cluster bus port (10000 above) may be."""
    while (port := databases.free_port()) >= 55000:
        continue
    return port


def database_of(url: str) -> int:
    """The database, or in a cluster the name, in a URL made here."""
    return int(url.partition("?")[0].rpartition("/")[2])


def until(what: str, holds: Callable[[], bool], patience_s: float = START_S) -> None:
    """Wait until something holds; connections that fail meanwhile count as no."""
    deadline = time.monotonic() + patience_s
    while True:
        with suppress(redis.exceptions.RedisError, OSError):
            if holds():
                return
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {patience_s:.0f} s")
        time.sleep(0.02)


class Group(ABC):
    """Servers by port. `kill` takes one away, `revive` brings it back."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._commands: dict[int, list[str]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._databases = itertools.count()
        self._hung: set[int] = set()

    def launch(self, port: int, *options: str) -> None:
        """Start a server on a port."""
        folder = self.place / str(port)
        folder.mkdir(exist_ok=True)
        self._commands[port] = [BINARY, *options, "--dir", str(folder)]
        self.revive(port)

    def revive(self, port: int) -> None:
        """Start a server again, with the options that it had."""
        with (self.place / f"{port}.log").open("ab") as log:
            self._processes[port] = subprocess.Popen(self._commands[port], stdout=log, stderr=log)

    def kill(self, port: int) -> None:
        """End a server at once."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def hang(self, port: int) -> None:
        """Let a server stand still, with its connections open."""
        self._hung.add(port)
        self._processes[port].send_signal(signal.SIGSTOP)

    def wake(self, port: int) -> None:
        """Let it go on, believing what it believed."""
        self._hung.discard(port)
        self._processes[port].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all."""
        for port in list(self._processes):
            self.kill(port)

    def client(self, port: int, database: int = 0) -> redis.Redis:
        """A plain client of one server."""
        return redis.Redis(host=HOST, port=port, db=database, protocol=2, socket_timeout=5)

    @property
    def dead(self) -> list[int]:
        """Ports of servers that were killed."""
        return [port for port in self._commands if port not in self._processes]

    @abstractmethod
    def start(self) -> None:
        """Start all, and wait until they can take a failover."""

    @abstractmethod
    def whole(self) -> bool:
        """Whether everybody is there, in step, and knows it."""

    @abstractmethod
    def master_of(self, url: str) -> int:
        """Port of the server that takes the writes of a volume."""

    @abstractmethod
    def url(self, database: int) -> str:
        """META-URL of one volume."""

    @abstractmethod
    def wipe(self, url: str) -> None:
        """Remove the keys of a volume."""

    def fresh_url(self) -> str:
        """META-URL of a volume that nobody used."""
        return self.url(next(self._databases))

    def mend(self) -> None:
        """Bring back what was killed, and wait until all are in step."""
        for port in self.dead:
            self.revive(port)
        until("the group is whole again", self.whole, 60)


class SentinelGroup(Group):
    """A master, two replicas, three sentinels."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.nodes = [free_port() for _ in range(3)]
        self.sentinels = [free_port() for _ in range(3)]

    def start(self) -> None:
        """Start all."""
        for port in self.nodes:
            replica = () if port == self.nodes[0] else ("--replicaof", f"{HOST} {self.nodes[0]}")
            self.launch(port, "--port", str(port), *NODE_OPTIONS, *replica)
        until("both replicas are connected", lambda: self._replicas(self.nodes[0]) == 2)
        for port in self.sentinels:  # after the replicas, which a sentinel asks the master for every ten seconds
            conf = self.place / f"{port}.conf"
            lines = [
                f"port {port}",
                f"bind {HOST}",
                f"sentinel monitor {MASTER} {HOST} {self.nodes[0]} 2",
                f"sentinel down-after-milliseconds {MASTER} 500",
                f"sentinel failover-timeout {MASTER} 4000",
                f"sentinel parallel-syncs {MASTER} 2",
            ]
            conf.write_text("\n".join(lines) + "\n")
            self.launch(port, str(conf), "--sentinel")
        until("sentinels and replicas know each other", self.whole)

    def whole(self) -> bool:
        """Every sentinel knows both replicas and its two colleagues, and the replicas are connected."""
        for port in self.sentinels:
            with self.client(port) as client:
                state = client.sentinel_master(MASTER)
                replicas = client.sentinel_slaves(MASTER)
            fine = [one for one in replicas if one["flags"] == "slave" and one["master-link-status"] == "ok"]
            if (len(fine), state["num-slaves"], state["num-other-sentinels"]) != (2, 2, 2):
                return False
            if state["flags"] != "master":
                return False
        return self._replicas(self.master_of("")) == 2

    def _replicas(self, port: int) -> int:
        """Replicas that are in step with a master; none when it is none."""
        with self.client(port) as client:
            facts = client.info("replication")
        places = [facts.get(f"slave{number}", {}) for number in range(int(facts.get("connected_slaves", 0)))]
        return sum(place.get("state") == "online" for place in places)

    def master_of(self, url: str) -> int:
        """The master as sentinels see it."""
        for port in self.sentinels:
            with self.client(port) as client:
                found = client.sentinel_get_master_addr_by_name(MASTER)
                if found:
                    return int(found[1])
        raise AssertionError("no sentinel knows the master")

    def url(self, database: int) -> str:
        """META-URL of one database."""
        listed = ",".join(f"{HOST}:{port}" for port in self.sentinels)
        return f"redis://{MASTER},{listed}/{database}"

    def wipe(self, url: str) -> None:
        """Empty the database."""
        with self.client(self.master_of(url), database_of(url)) as client:
            client.flushdb()


class ClusterGroup(Group):
    """Three masters, with one replica each."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.nodes = [free_port() for _ in range(6)]

    def start(self) -> None:
        """Start all, and share the slots out."""
        for port in self.nodes:
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-config-file", "nodes")
            self.launch(port, "--port", str(port), *NODE_OPTIONS[:-2], *options)
        for port in self.nodes:
            until(f"server {port} answers", lambda port=port: self._answers(port))  # type: ignore[misc]
        listed = [f"{HOST}:{port}" for port in self.nodes]
        made = subprocess.run(
            ["redis-cli", "--cluster", "create", *listed, "--cluster-replicas", "1", "--cluster-yes"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.fail(f"no cluster: {made.stdout[-500:]}{made.stderr[-500:]}")
        until("the cluster is whole", self.whole)

    def _answers(self, port: int) -> bool:
        with self.client(port) as client:
            return bool(client.ping())

    def whole(self) -> bool:
        """Every node sees a sound cluster of three masters with a replica each that is in step."""
        for port in self.nodes:
            with self.client(port) as client:
                state = client.execute_command("CLUSTER INFO")
                nodes = client.execute_command("CLUSTER NODES")
                facts = client.info("replication")
            if state.get("cluster_state") != "ok" or len(nodes) != len(self.nodes):
                return False
            if any("fail" in node["flags"] or not node["connected"] for node in nodes.values()):
                return False
            if facts["role"] == "slave" and facts["master_link_status"] != "up":
                return False
            if facts["role"] == "master" and facts["connected_slaves"] != 1:
                return False
        return True

    def masters(self) -> list[int]:
        """Ports of the nodes that own slots."""
        with self.client(next(port for port in self.nodes if port not in self.dead)) as client:
            return sorted({owner for _, (owner, *_) in _slots(client)})

    def master_of(self, url: str) -> int:
        """The owner of the slot of the volume."""
        slot = redis.crc.key_slot(b"{%d}" % database_of(url))
        for port in self.nodes:
            if port in self.dead or port in self._hung:
                continue
            with self.client(port) as client:
                for (first, last), (owner, *_) in _slots(client):
                    if first <= slot <= last:
                        return owner
        raise AssertionError("nobody owns the slot")

    def url(self, database: int) -> str:
        """META-URL of one volume; the nodes' own list is learned."""
        return f"redis://{HOST}:{self.nodes[0]},{HOST}:{self.nodes[1]},{HOST}:{self.nodes[2]}/{database}"

    def wipe(self, url: str) -> None:
        """Remove the keys of a volume."""
        prefix = f"{{{database_of(url)}}}"
        with self.client(self.master_of(url)) as client:
            names = list(client.scan_iter(prefix + "*", count=1000))
            for start in range(0, len(names), 500):
                client.unlink(*names[start : start + 500])


def _slots(client: redis.Redis) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Ranges of slots with the ports of who serves them, the owner first."""
    for first, last, *nodes in client.execute_command("CLUSTER SLOTS"):  # type: ignore[no-untyped-call]
        yield (first, last), [int(node[1]) for node in nodes]


@contextmanager
def running(kind: type[Group]) -> Iterator[Group]:
    """A group for as long as the block runs."""
    need_redis()
    with tempfile.TemporaryDirectory(prefix="fscore-redis-") as place:
        group = kind(Path(place))
        try:
            group.start()
            yield group
        finally:
            group.stop()


@pytest.fixture(scope="session")
def sentinel_group() -> Iterator[Group]:
    """A watched master, for the session; who kills a server brings it back."""
    with running(SentinelGroup) as group:
        yield group


@pytest.fixture(scope="session")
def cluster_group() -> Iterator[Group]:
    """A cluster, for the session; who kills a server brings it back."""
    with running(ClusterGroup) as group:
        yield group


@pytest.fixture
def sentinel_url(sentinel_group: Group) -> Iterator[str]:
    """META-URL of an empty volume on a watched master."""
    url = sentinel_group.fresh_url()
    yield url
    sentinel_group.wipe(url)


@pytest.fixture
def cluster_url(cluster_group: Group) -> Iterator[str]:
    """META-URL of an empty volume in a cluster."""
    url = cluster_group.fresh_url()
    yield url
    cluster_group.wipe(url)
