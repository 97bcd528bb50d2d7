"""Which server takes the writes now: the only one, the one that sentinels name, or the one that owns the volume's slot.

After a failure the link tells its doubts and asks again; what it learns raises `generation`, and connections of an
earlier one are not used again.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from redis import exceptions
from redis.crc import key_slot

from fscore.domain.errors import SettingError
from fscore.meta.engines.redis.address import Address, Connection, Form, Host
from fscore.runtime import log

ALONE_S: Final = 20.0
"""How long a single server may be away."""
GROUP_S: Final = 60.0
"""How long a group may need to agree on a new master; as delivered, sentinels take 30 s to believe in a death."""

logger = log.get(__name__)


class Single:
    """The only server there is."""

    patience_s = ALONE_S
    prefix = b""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.generation = 0

    def connect(self) -> Connection:
        """A connection to it."""
        return self._address.connection()

    def doubt(self, error: Exception, generation: int, host: str) -> None:
        """A connection of `generation` met `error`: the server may have begun anew, with less than it had."""
        self.generation = max(self.generation, generation + 1)


class _Group:
    """Servers of which one is the master. Thread-safe."""

    patience_s = GROUP_S

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._known = list(address.hosts)
        self._last: Host | None = None
        self._master: Host | None = None
        self.generation = 0

    def doubt(self, error: Exception, generation: int, host: str) -> None:
        """A connection of `generation` to `host` met `error`: ask again who is the master."""
        self._renew(generation, None)

    def _renew(self, generation: int, master: Host | None) -> None:
        """Begin a new generation, unless another thread did so already for the same reason."""
        with self._lock:
            if generation == self.generation:
                self.generation += 1
                self._master = master

    def _found(self, master: Host) -> Host:
        with self._lock:
            if self._last not in {None, master}:
                logger.warning("%s: the master is %s:%d now", self._address.location, *master)
            self._last = self._master = master
        return master


class Watched(_Group):
    """The master that sentinels name; it must say so itself, too.

    All sentinels are asked, and who knows of the latest election is believed: one that has not heard of it yet names
    the old master, which may be up again, call itself the master, and be empty.
    """

    prefix = b""

    def connect(self) -> Connection:
        """A connection to a server that calls itself the master."""
        connection = self._address.connection(self._master or self._found(self._ask()))
        try:
            role = _say(connection, "ROLE")[0]
        except BaseException:
            connection.disconnect()
            raise
        if role != b"master":
            connection.disconnect()
            raise exceptions.ReadOnlyError(f"{connection.host}:{connection.port} is not the master any more")
        return connection

    def _ask(self) -> Host:
        name = self._address.master_name
        said: list[str] = []
        found: list[tuple[int, Host]] = []
        nameless = 0
        for host in self._known:
            connection = self._address.sentinel(host)
            try:
                answer = _say(connection, "SENTINEL", "MASTER", name)
                epoch = int(answer[answer.index(b"config-epoch") + 1])
                ip, port = _say(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)  # already while it changes
                found.append((epoch, (ip.decode(), int(port))))
            except exceptions.AuthenticationError as error:
                raise SettingError(f"the sentinel at {host[0]}:{host[1]}: {error} (SENTINEL_PASSWORD)") from error
            except exceptions.ResponseError as error:
                nameless += "No such master" in str(error)
                said.append(str(error))
            except (exceptions.RedisError, OSError) as error:
                said.append(str(error))
            finally:
                connection.disconnect()
        if found:
            return max(found)[1]
        if nameless == len(self._known):
            raise SettingError(f"{self._address.location}: the sentinels know no master {name!r}")
        raise exceptions.ConnectionError(f"no sentinel names the master: {'; '.join(said)}")


class Clustered(_Group):
    """The owner of the slot that `{db}` hashes to: a volume lies in one slot."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.prefix = b"{%d}" % address.db
        self._slot = key_slot(self.prefix)

    def connect(self) -> Connection:
        """A connection to the owner; databases other than 0 are only names there."""
        return self._address.connection(self._master or self._found(self._ask()), db=0)

    def doubt(self, error: Exception, generation: int, host: str) -> None:
        """Follow a node that says where the slot went; else ask."""
        if isinstance(error, exceptions.MovedError):
            self._renew(generation, (error.host or host, error.port))
        elif not isinstance(error, exceptions.AskError | exceptions.TryAgainError):
            self._renew(generation, None)

    def at(self, host: Host) -> Connection:
        """A connection to the node that a slot is just moving to."""
        return self._address.connection(host, db=0)

    def _ask(self) -> Host:
        said: list[str] = []
        for host in list(self._known):
            connection = self._address.connection(host, db=0)
            try:
                ranges = _say(connection, "CLUSTER", "SLOTS")
            except (exceptions.RedisError, OSError) as error:
                said.append(str(error))
                continue
            finally:
                connection.disconnect()
            owner = self._read(ranges, host)
            if owner is not None:
                self._prefer(host)
                return owner
            said.append(f"{host[0]}:{host[1]} knows no owner of slot {self._slot}")
        raise exceptions.ClusterDownError(f"no node tells who owns the volume: {'; '.join(said)}")

    def _prefer(self, host: Host) -> None:
        with self._lock:
            self._known = [host, *(known for known in self._known if known != host)]

    def _read(self, ranges: list[Any], asked: Host) -> Host | None:
        """The owner of the slot; every node that is told of is remembered."""
        owner = None
        for first, last, *nodes in ranges:
            hosts = [(node[0].decode() if node[0] else asked[0], int(node[1])) for node in nodes]
            if first <= self._slot <= last and hosts:
                owner = hosts[0]
            with self._lock:
                self._known += [host for host in hosts if host not in self._known]
        return owner


Master = Single | Watched | Clustered


def master_of(address: Address) -> Master:
    """Who takes the writes, by the form of the URL."""
    kinds: dict[Form, Any] = {Form.SINGLE: Single, Form.SENTINEL: Watched, Form.CLUSTER: Clustered}
    master: Master = kinds[address.form](address)
    return master


def _say(connection: Connection, *command: str) -> Any:  # noqa: ANN401 - whatever Redis answers
    connection.send_command(*command)
    return connection.read_response()
