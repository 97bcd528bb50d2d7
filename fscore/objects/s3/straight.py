"""Whole objects from the socket into the caller's memory, over plain HTTP: obstore signs, `http.client` reads.

obstore collects an answer's pieces in fresh memory, which costs more than a fast network does. Whatever is not a plain,
whole answer is left to obstore, which then says what is wrong. TLS is, too: Python decrypts 16 KiB at a time.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import obstore
from obstore import exceptions as theirs
from obstore.store import S3Store as Client

from fscore.domain.errors import TransientError

_VALID: Final = timedelta(minutes=5)
_TIMEOUT_S: Final = 30.0  # between two pieces of an answer, as the client's own
_IDLE: Final = 64
_META: Final = "x-amz-meta-"
_OK: Final = 200
_SLOW_DOWN: Final = 429
_FAILED: Final = 500
_REFUSED: Final = frozenset({400, 401, 403, 405})
_PATIENCE: Final = 4

Filled = tuple[int, dict[str, str]]
"""The size of an object, and its user metadata."""


class Straight:
    """GETs of one bucket. Thread-safe: each call has a connection of its own, kept for the next one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._idle: list[tuple[str, HTTPConnection]] = []
        self._refusals = 0
        """How often in a row the server would not have it so; after a few times it is not asked any more."""

    @property
    def useful(self) -> bool:
        """Whether it is worth asking."""
        return self._refusals < _PATIENCE

    def fill(self, key: str, buffer: memoryview) -> Filled | None:
        """An object that fits into `buffer`. None: ask the client. TransientError: the server would, another time."""
        if not self.useful:
            return None
        try:
            url = urlsplit(obstore.sign(self._client, "GET", key, _VALID))
        except theirs.BaseError:
            return None
        if url.scheme != "http":
            return None
        connection = self._take(url.netloc)
        found = None
        try:
            response = self._ask(connection, f"{url.path}?{url.query}")
            found = None if response is None else _read(response, buffer)
        finally:
            if found is None:
                connection.close()
        if found is not None:
            self._give(url.netloc, connection)
        return found

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _ask(self, connection: HTTPConnection, target: str) -> HTTPResponse | None:
        try:
            connection.request("GET", target, headers={"User-Agent": "fscore"})
            response = connection.getresponse()
        except (OSError, HTTPException):
            return None  # one that was idle for too long, mostly
        if response.status >= _FAILED or response.status == _SLOW_DOWN:
            raise TransientError(f"{response.status} {response.reason}")
        self._refusals = self._refusals + 1 if response.status in _REFUSED else 0
        return response if response.status == _OK else None

    def _take(self, netloc: str) -> HTTPConnection:
        with self._lock:
            for at in range(len(self._idle) - 1, -1, -1):
                if self._idle[at][0] == netloc:
                    return self._idle.pop(at)[1]
        return HTTPConnection(netloc, timeout=_TIMEOUT_S)

    def _give(self, netloc: str, connection: HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append((netloc, connection))
                return
        connection.close()


def straight_for(client: Client, url: str | None) -> Straight | None:
    """For a bucket behind plain HTTP that no proxy stands before."""
    return Straight(client) if (url or "").startswith("http://") and "http" not in getproxies() else None


def _read(response: HTTPResponse, buffer: memoryview) -> Filled | None:
    size = response.length
    if size is None or size > len(buffer):
        return None
    got = 0
    try:
        while got < size and (n := response.readinto(buffer[got:size])):
            got += n
    except (OSError, HTTPException) as error:
        raise TransientError(f"the answer broke off after {got} of {size} bytes: {error}") from error
    if got < size:
        raise TransientError(f"the answer ended after {got} of {size} bytes")
    headers = ((name.lower(), value) for name, value in response.getheaders())
    return size, {name.removeprefix(_META): value for name, value in headers if name.startswith(_META)}
