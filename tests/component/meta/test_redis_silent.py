"""A server that takes connections and says nothing, or stops in mid-answer: callers hear of it when the time is up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fscore.domain.errors import UnavailableError
from fscore.meta.engines.redis import address
from fscore.meta.engines.redis.link import Link
from fscore.runtime.threads import Task

LIMIT_S = 0.25


class Silent:
    """Answers the greeting, and then `half` of an answer."""

    def __init__(self, server: socket.socket, half: bytes) -> None:
        self._server, self._half = server, half
        self._open: list[socket.socket] = []
        self._task = Task("silent", self._run)

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            self._open.append(peer)
            while (said := peer.recv(4096)) and b"PING" not in said:
                peer.sendall(b"+OK\r\n" * said.count(b"*"))
            peer.sendall(self._half)

    def close(self) -> None:
        """Hang up."""
        for each in (self._server, *self._open):
            each.close()


@pytest.fixture(params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    if request.param == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        yield server, f"redis://127.0.0.1:{server.getsockname()[1]}/1"
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "s"))
        server.listen()
        yield server, f"unix://{tmp_path}/s?db=1"
    server.close()


@pytest.mark.parametrize("half", [b"", b"$10\r\nabc"], ids=["nothing", "half an answer"])
def test_who_waits_is_told(listening: tuple[socket.socket, str], half: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "TIMEOUT_S", LIMIT_S)
    server, url = listening
    silent = Silent(server, half)
    link = Link(address.Address(url))
    began = time.monotonic()
    try:
        with pytest.raises(UnavailableError, match="did not answer"):
            link.batch((("PING",),), patience_s=0.1)
    finally:
        link.close()
        silent.close()
    assert LIMIT_S * 0.9 < time.monotonic() - began < 5
