"""What a model's events add up to: its versions, their states, decisions, layouts and aliases. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.lifecycle import State
from fscore.hub.log import Event
from fscore.hub.names import Ref


class VersionState(msgspec.Struct):
    """One version as its events leave it; the events are those that last did what the field says."""

    number: int
    state: State = State.NONE
    digest: str = ""
    upload: Event | None = None
    request: Event | None = None
    decision: Event | None = None
    publish: Event | None = None
    layouts: dict[str, str] = {}
    validation: dict[str, Any] = {}

    @property
    def uploader(self) -> str:
        """Who brought it."""
        return self.upload.actor if self.upload else ""


class History(msgspec.Struct):
    """One model: its versions by number and where its aliases point."""

    versions: dict[int, VersionState] = {}
    aliases: dict[str, int] = {}

    def version(self, ref: Ref) -> VersionState:
        """The version that the reference numbers. Raises HubError(kind="not_found")."""
        found = self.versions.get(ref.version or 0)
        if found is None:
            hint = f"there are {len(self.versions)} versions: see `fscore versions`" if self.versions else ""
            raise HubError(f"no such version: {ref}", kind="not_found", hint=hint)
        return found

    def with_digest(self, digest: str) -> VersionState | None:
        """The living version that has this content."""
        dead = (State.REJECTED, State.REVOKED)
        same = [found for found in self.versions.values() if found.digest == digest and found.state not in dead]
        return max(same, key=lambda found: found.number, default=None)

    def next_number(self) -> int:
        """The number that the next version gets."""
        return max(self.versions, default=0) + 1


def fold(events: Iterable[Event]) -> History:
    """The state that these events lead to."""
    history = History()
    for event in events:
        if event.action == "alias":
            _alias(history, event)
            continue
        if not event.version:
            continue
        version = history.versions.setdefault(event.version, VersionState(event.version))
        if event.after:
            version.state = State(event.after)
        _remember(version, event)
    return history


def _alias(history: History, event: Event) -> None:
    name = str(event.extra.get("alias", ""))
    if event.version:
        history.aliases[name] = event.version
    else:
        history.aliases.pop(name, None)


def _remember(version: VersionState, event: Event) -> None:
    match event.action:
        case "upload" | "import":
            version.upload = event
            version.digest = event.digest
            layouts = event.extra.get("layouts")
            if isinstance(layouts, dict):
                version.layouts.update(layouts)
        case "request":
            version.request = event
        case "approve" | "reject":
            version.decision = event
        case "publish":
            version.publish = event
        case "split":
            version.layouts[str(event.extra["layout"])] = event.digest
        case "validate":
            version.validation = event.extra
        case _:
            pass
