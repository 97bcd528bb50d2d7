"""The append-only, hash-chained log of a model: one file an event, created exclusively (that is the compare-and-set).

Each event carries the hash of the one before, so that leaving out, reordering or editing one shows in `verify`.
The state of a model is the fold of its events (`history`). A writer that loses the race for a number reads what the
winner wrote, decides again on that, and only then tries the next number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from fscore.domain.digest import content_digest
from fscore.domain.errors import Exists, HubError, NotFound
from fscore.files.filesystem import Filesystem
from fscore.hub import names
from fscore.hub.manifest import canonical, timestamp
from fscore.runtime.clock import Clock
from fscore.runtime.threads import Pool

_ENTRY: Final = re.compile(r"([0-9]{8})\.json")
_TRIES: Final = 200
_READERS: Final = 8
_LISTINGS: Final = 3
"""A listing that runs beside writers may show event 9 and not yet 8; a gap that stays is one."""


class Change(msgspec.Struct, frozen=True):
    """What is to be appended; number, time, hashes come from the log."""

    action: str
    actor: str
    version: int = 0
    before: str = ""
    after: str = ""
    digest: str = ""
    request_id: str = ""
    dag_run_id: str = ""
    extra: dict[str, Any] = {}


class Event(msgspec.Struct, frozen=True):
    """One line of a model's history (fields of models.md 4.3)."""

    seq: int
    prev_hash: str
    ts: str
    actor: str
    action: str
    object: str
    version: int = 0
    digest: str = ""
    before: str = ""
    after: str = ""
    request_id: str = ""
    dag_run_id: str = ""
    extra: dict[str, Any] = {}
    hash: str = ""


Decide = Callable[[Sequence[Event]], Change | None]
"""Given the history as it is, what to append; None for nothing; raises HubError when it may not be."""


class EventLog:
    """The log of one model. Keeps what it has read: events never change."""

    def __init__(self, files: Filesystem, team: str, model: str, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._events: list[Event] = []
        self.team = team
        self.model = model
        self.path = names.log_dir(team, model)

    def events(self) -> list[Event]:
        """Every event so far, oldest first."""
        known = len(self._events)
        fresh: list[int] = []
        for _ in range(_LISTINGS):
            fresh = [number for number in self._numbers() if number > known]
            if fresh == list(range(known + 1, known + 1 + len(fresh))):
                break
        else:
            gap = next(at for at, number in enumerate(fresh, start=known + 1) if at != number)
            raise HubError(f"{self.path}: event {gap} is missing", kind="unsafe", hint="see verify_log")
        self._events += [decode(self._read(number)) for number in fresh] if len(fresh) < 4 else self._read_many(fresh)
        return list(self._events)

    def append(self, decide: Decide) -> Event | None:
        """Append what `decide` says about the history; decides again whenever somebody else was first."""
        for _ in range(_TRIES):
            past = self.events()
            change = decide(past)
            if change is None:
                return None
            event = link(past[-1] if past else None, change, self.team, self.model, self._clock.now_ns())
            if self._create(event):
                self._events.append(event)
                return event
        raise HubError(f"{self.team}/{self.model}: the log is too busy", hint="try again", kind="conflict")

    def append_verbatim(self, event: Event) -> bool:
        """Carry an event of the same model's log in another region over; False if its number is taken."""
        return self._create(event)

    def verify(self) -> list[str]:
        """What is wrong with the chain, in words; empty when it is whole."""
        problems: list[str] = []
        last = ""
        for position, number in enumerate(self._numbers(), start=1):
            name = f"{self.path}/{number:08d}.json"
            if number != position:
                return [*problems, f"event {position} is missing"]
            try:
                event = decode(self._files.read_bytes(name))
            except (HubError, OSError) as error:
                return [*problems, f"{name}: {error}"]
            if event.seq != number or event.object.split("@")[0] != f"{self.team}/{self.model}":
                problems.append(f"{name} is the event of something else: {event.object} {event.seq}")
            if event.prev_hash != last:
                problems.append(f"{name} does not follow the event before it")
            if hash_of(event) != event.hash:
                problems.append(f"{name} was altered")
            last = event.hash
        return problems

    def _create(self, event: Event) -> bool:
        self._files.mkdir(self.path, parents=True, exist_ok=True)
        path = f"{self.path}/{event.seq:08d}.json"
        try:
            self._files.write_atomic(path, encode(event), replace=False)
        except Exists:
            return False
        return True

    def _numbers(self) -> list[int]:
        try:
            found = (_ENTRY.fullmatch(name) for name in self._files.listdir(self.path))
        except NotFound:
            return []
        return sorted(int(match[1]) for match in found if match)

    def _read(self, number: int) -> bytes:
        return self._files.read_bytes(f"{self.path}/{number:08d}.json")

    def _read_many(self, numbers: list[int]) -> list[Event]:
        with Pool("hub-log", _READERS) as pool:
            return [decode(data) for data in pool.map_bounded(self._read, numbers)]


def link(last: Event | None, change: Change, team: str, model: str, now_ns: int) -> Event:
    """The event that appends `change` after `last`. Pure."""
    event = Event(
        seq=last.seq + 1 if last else 1,
        prev_hash=last.hash if last else "",
        ts=timestamp(now_ns),
        actor=change.actor,
        action=change.action,
        object=f"{team}/{model}@{change.version}" if change.version else f"{team}/{model}",
        version=change.version,
        digest=change.digest,
        before=change.before,
        after=change.after,
        request_id=change.request_id,
        dag_run_id=change.dag_run_id,
        extra=change.extra,
    )
    return msgspec.structs.replace(event, hash=hash_of(event))


def hash_of(event: Event) -> str:
    """The hash that this event must carry: over everything else in it. Pure."""
    plain = msgspec.to_builtins(event)
    del plain["hash"]
    return content_digest(canonical(plain))


def encode(event: Event) -> bytes:
    """The stored bytes of an event."""
    return canonical(msgspec.to_builtins(event))


def decode(data: bytes) -> Event:
    """Read an event. Raises HubError when it is none."""
    try:
        return msgspec.json.decode(data, type=Event)
    except msgspec.MsgspecError as error:
        raise HubError(f"no event: {error}", kind="unsafe") from error
