"""A database server that is killed under load and comes back: callers wait, nothing acknowledged is lost or doubled."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fscore.domain.caller import Caller
from fscore.domain.errors import UnavailableError
from fscore.domain.ids import ROOT
from fscore.domain.setting import Setting
from fscore.meta.engines.registry import open_engine
from fscore.meta.engines.sql import servers
from fscore.meta.service import MetaService
from fscore.runtime.clock import SystemClock
from tests.kit.databases import Server
from tests.kit.engines import SQL_SERVERS
from tests.kit.invariants import check_engine
from tests.kit.mariadb import MariadbServer, need_mariadb
from tests.kit.postgres import PostgresServer, need_postgres

WHO = Caller.root()
WRITERS = 3
OUTAGES = 3
POSTGRES = ("fsync=off", "full_page_writes=off", "synchronous_commit=on")
MARIADB = ("--innodb-flush-log-at-trx-commit=2",)
"""A killed server forgets nothing that it wrote to the system: with these settings a commit is written there."""


@contextmanager
def running(kind: str) -> Iterator[tuple[Server, str]]:
    """A server of its own, and the META-URL of an empty database there."""
    (need_postgres if kind == "postgres" else need_mariadb)()
    with tempfile.TemporaryDirectory(prefix="fscore-down-") as place:
        made = PostgresServer(Path(place), *POSTGRES) if kind == "postgres" else MariadbServer(Path(place), *MARIADB)
        made.start()
        try:
            yield made, made.url(made.create())
        finally:
            made.stop()


def make_volume(url: str) -> None:
    """Format it."""
    engine = open_engine(url)
    setting = Setting(name="down", uuid="6b3f0c1e-5a9d-4c7e-9d1b-2f4a8e6c0d13", trash_days=0)
    MetaService.format(engine, setting, SystemClock())
    engine.close()


def client(url: str) -> MetaService:
    """A client of the volume."""
    return MetaService.open(open_engine(url), SystemClock(), background=False, cache_s=0.0, skip_dir_mtime_s=0.0)


class Writer(threading.Thread):
    """Creates, renames, links and removes, each name once, and notes what was acknowledged."""

    def __init__(self, service: MetaService, folder: int, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.service, self.folder, self.number, self.over = service, folder, number, over
        self.there: dict[bytes, int] = {}
        self.gone: set[bytes] = set()
        self.slowest_s = 0.0
        self.failed: Exception | None = None

    def run(self) -> None:
        """Work until told to stop."""
        turn = 0
        try:
            while not self.over.is_set():
                before = time.monotonic()
                self.once(turn)
                self.slowest_s = max(self.slowest_s, time.monotonic() - before)
                turn += 1
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failed = error

    def once(self, turn: int) -> None:
        """One story of one name."""
        name = b"%d-%d" % (self.number, turn)
        ino, _ = (self.service.mkdir if turn % 4 == 3 else self.service.create)(WHO, self.folder, name, 0o755)
        self.there[name] = ino
        if turn % 4 == 0:
            self.service.link(WHO, ino, self.folder, name + b"-link")
            self.there[name + b"-link"] = ino
        elif turn % 4 == 1:
            self.service.rename(WHO, self.folder, name, self.folder, name + b"-moved")
            self.there[name + b"-moved"] = self.there.pop(name)
            self.gone.add(name)
        elif turn % 4 == 2:
            self.service.unlink(WHO, self.folder, name)
            del self.there[name]
            self.gone.add(name)


@pytest.mark.parametrize("kind", SQL_SERVERS)
def test_a_restart_under_load_is_a_pause(kind: str) -> None:
    with running(kind) as (server, url):
        make_volume(url)
        services = [client(url) for _ in range(WRITERS)]
        folder, _ = services[0].mkdir(WHO, ROOT, b"folder", 0o755)
        over = threading.Event()
        writers = [Writer(service, folder, number, over) for number, service in enumerate(services)]
        for writer in writers:
            writer.start()
        for _ in range(OUTAGES):
            time.sleep(0.5)
            server.stop()
            time.sleep(0.2)
            server.start()
        time.sleep(0.5)
        over.set()
        for writer in writers:
            writer.join(60)
        assert [writer.failed for writer in writers] == [None] * WRITERS
        assert max(writer.slowest_s for writer in writers) > 0.2, "the outage was noticed"
        assert min(len(writer.there) for writer in writers) > 10
        found = {entry.name: entry.ino for entry in services[0].readdir(WHO, folder)}
        wanted = {name: ino for writer in writers for name, ino in writer.there.items()}
        assert found == wanted
        for service in services:
            service.close()
        engine = open_engine(url)
        assert check_engine(engine) == []
        engine.close()


@pytest.mark.parametrize("kind", SQL_SERVERS)
def test_a_server_that_stays_away(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "RECONNECT_S", 0.3)
    with running(kind) as (server, url):
        make_volume(url)
        service = client(url)
        server.stop()
        with pytest.raises(UnavailableError) as caught:
            service.create(WHO, ROOT, b"f", 0o644)
        assert "\n" not in str(caught.value)
        with pytest.raises(UnavailableError):
            service.getattr(ROOT, fresh=True)
        server.start()
        service.create(WHO, ROOT, b"f", 0o644)
        service.close()
