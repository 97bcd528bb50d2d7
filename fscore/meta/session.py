"""This client among the others: its registration, its heartbeat, and the files it holds open (volume-format.md 2.6).

Knows no operation; what dies with a session is destroyed by the service.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import os
import socket
import threading
from typing import Final

from fscore import __version__
from fscore.domain import locks
from fscore.domain.locks import LockKind, LockRange, Ranges
from fscore.domain.version import IMPLEMENTS
from fscore.meta.engine import MetaEngine
from fscore.meta.records import Session
from fscore.runtime.clock import Clock

LIFETIMES: Final = 5
"""A session expires after so many heartbeats without one."""
FOREVER_S: Final = 365 * 86400
"""Lifetime of a session without heartbeat."""
PRODUCT: Final = "fscore"


def client_version() -> str:
    """The version that a session of this client shows: what it implements, with our own release as build metadata."""
    return f"{IMPLEMENTS}+{PRODUCT}.{__version__}"


def describe(clock: Clock, version: str, place: str) -> bytes:
    """The JSON that describes a session, keys as the format has them; `place` stands where mounts tell theirs."""
    now_ns = clock.now_ns()
    second = dt.datetime.fromtimestamp(now_ns // 1_000_000_000, dt.UTC)
    host = socket.gethostname()
    info = {
        "Version": version,
        "HostName": host,
        "IPAddrs": _addresses(host),
        "MountPoint": place,
        "MountTime": f"{second:%Y-%m-%dT%H:%M:%S}.{now_ns % 1_000_000_000:09d}Z",
        "ProcessID": os.getpid(),
    }
    return json.dumps(info, separators=(",", ":")).encode()


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(address[4][0]) for address in found if not str(address[4][0]).startswith("127.")})


MOST_LOOKED: Final = 1000

LockClaim = tuple[str, int, int]
"""The kind of lock, the inode, the owner."""


class OwnSession:
    """Registered at once; refresh it every heartbeat, drop it at the end. Times of expiry are the server's."""

    def __init__(self, engine: MetaEngine, sid: int, heartbeat_s: float, info: bytes) -> None:
        self._engine = engine
        self._heartbeat_s = heartbeat_s
        self._info = info
        self.sid: Final = sid
        self.refreshed_s = 0.0
        """When it was last refreshed, as the server sees time: that goes on while this machine sleeps."""
        self.expires = 0
        """When it expires unless it is refreshed, in unix seconds of the server."""

    def refresh(self) -> bool:
        """Move the expiry; registers again when a peer thought us dead. Whether the record was still there."""
        life_s = LIFETIMES * self._heartbeat_s if self._heartbeat_s > 0 else FOREVER_S
        now_s = self._engine.server_time()
        session = Session(self.sid, int(now_s + life_s), self._info)
        there = self._engine.put_session(session)
        self.refreshed_s, self.expires = now_s, session.expires
        return there

    def expire(self) -> None:
        """End it now, and leave what it has to its peers."""
        self._engine.put_session(Session(self.sid, int(self._engine.server_time()), self._info))


class OpenFiles:
    """How often each inode is open here, and which of them have lost their last name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}
        self._sustained: set[int] = set()

    def open(self, ino: int) -> None:
        """Count one more handle."""
        with self._lock:
            self._counts[ino] = self._counts.get(ino, 0) + 1

    def close(self, ino: int) -> bool:
        """Count one less; whether it was the last of a file that has no name any more."""
        with self._lock:
            left = self._counts.get(ino, 0) - 1
            if left > 0:
                self._counts[ino] = left
                return False
            self._counts.pop(ino, None)
            if ino in self._sustained:
                self._sustained.discard(ino)
                return True
            return False

    def is_open(self, ino: int) -> bool:
        """Whether a handle is open here."""
        return ino in self._counts

    def sustain(self, ino: int) -> bool:
        """The file has lost its last name; False when no handle is open any more, so that it must go at once."""
        with self._lock:
            if ino not in self._counts:
                return False
            self._sustained.add(ino)
            return True

    def sustained(self) -> list[int]:
        """Every file that only lives for a handle of this client."""
        with self._lock:
            return sorted(self._sustained)

    def close_all(self) -> None:
        """The end of the session: nothing is open any more."""
        with self._lock:
            self._sustained.clear()
            self._counts.clear()


@dataclasses.dataclass(slots=True)
class _Claim:
    """What one owner may hold in one file; a whole lock is a range over everything."""

    refused: bool = False
    held: Ranges = ()
    owed: Ranges = ()
    lost: Ranges = ()


class LockClaims:
    """Which owners may hold a lock through this client, so that unlocking costs nothing for the others; which were
    refused one, so that asking again costs a read; which unlocks failed, so that they are made up for; and which locks
    were lost with the session, so that their owners are told. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[LockClaim, _Claim] = {}
        self._looked: dict[int, float] = {}
        self._era = 0

    def add(self, claim: LockClaim) -> int:
        """Before the first try, and after one whose outcome is unknown: the lock may be there. Returns the era."""
        with self._lock:
            self._claims.setdefault(claim, _Claim())
            return self._era

    def has(self, claim: LockClaim) -> bool:
        """Whether the owner tried since it last let go."""
        return claim in self._claims

    def refused(self, claim: LockClaim) -> bool:
        """Whether its last try failed."""
        known = self._claims.get(claim)
        return known is not None and known.refused

    def tried(self, claim: LockClaim, new: LockRange, era: int, *, done: bool) -> None:
        """How a try to lock ended. Who is refused a whole lock has given up the one before; what was got in an era
        that has ended meanwhile is lost, for it may have been got before that.
        """
        with self._lock:
            known = self._claims.setdefault(claim, _Claim())
            known.refused = not done
            if done and era != self._era:
                known.lost = locks.apply(known.lost, new)
            elif done:
                known.held = locks.apply(known.held, new)
            elif claim[0] == "flock":
                known.held = ()

    def unlocked(self, claim: LockClaim, gone: LockRange) -> None:
        """A range of it is unlocked. A claim on nothing is dropped once everything was."""
        with self._lock:
            known = self._claims.get(claim)
            if known is None:
                return
            known.refused = False
            known.held, known.owed = locks.apply(known.held, gone), locks.apply(known.owed, gone)
            known.lost = locks.apply(known.lost, gone)
            if (gone.start, gone.end) == (0, locks.EOF) and not known.held:
                del self._claims[claim]

    def owe(self, claim: LockClaim, gone: LockRange) -> None:
        """Its owner has let this range go, and the server has not heard of it."""
        with self._lock:
            known = self._claims.setdefault(claim, _Claim())
            known.held, known.lost = locks.apply(known.held, gone), locks.apply(known.lost, gone)
            known.owed = locks.apply(known.owed, LockRange(LockKind.READ, 0, gone.start, gone.end))

    def owed(self, claim: LockClaim) -> Ranges:
        """The ranges that are still to be unlocked for its owner."""
        known = self._claims.get(claim)
        return () if known is None else known.owed

    def debts(self) -> list[LockClaim]:
        """Every claim with a range that is still to be unlocked."""
        with self._lock:
            return [claim for claim, known in self._claims.items() if known.owed]

    def lose(self) -> list[LockClaim]:
        """The session was ended by a peer, and every lock with it: a new era begins. Returns what was held."""
        with self._lock:
            self._era += 1
            gone = [claim for claim, known in self._claims.items() if known.held]
            before, self._claims = self._claims, {}
            for claim, known in before.items():
                if lost := functools.reduce(locks.apply, known.held, known.lost):
                    self._claims[claim] = _Claim(lost=lost)
            return gone

    def lost(self, claim: LockClaim) -> bool:
        """Whether its owner held a lock that is lost, and has not let go of it since."""
        known = self._claims.get(claim)
        return known is not None and bool(known.lost)

    def due(self, ino: int, now: float, every_s: float) -> bool:
        """Whether it is time to look again who holds the locks of a file."""
        with self._lock:
            if now < self._looked.get(ino, now):
                return False
            if len(self._looked) >= MOST_LOOKED:
                self._looked.clear()
            self._looked[ino] = now + every_s
            return True
