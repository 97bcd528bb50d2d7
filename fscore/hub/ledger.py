"""The one way to a model's history: read it, resolve references with it, and take a step that the lifecycle allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fscore.domain.errors import HubError, NotFound
from fscore.files.filesystem import Filesystem
from fscore.hub import lifecycle, names
from fscore.hub.access import Actor, Policy, load_policy
from fscore.hub.history import History, VersionState, fold
from fscore.hub.lifecycle import Action, State
from fscore.hub.log import Change, Event, EventLog
from fscore.hub.names import Ref
from fscore.runtime.clock import Clock, SystemClock

Guard = Callable[[VersionState, int], bool]
"""Looks at the version (and how often the race was lost): False for nothing to do; raises HubError to refuse."""


class Ledger:
    """Logs and policy of one volume."""

    def __init__(self, files: Filesystem, clock: Clock | None = None) -> None:
        self.files = files
        self.clock = clock or SystemClock()
        self._logs: dict[str, EventLog] = {}
        self._policy: Policy | None = None

    @property
    def policy(self) -> Policy:
        """Who may do what, as it was when first asked."""
        if self._policy is None:
            self._policy = load_policy(self.files)
        return self._policy

    def log(self, ref: Ref) -> EventLog:
        """The log of a model."""
        if ref.name not in self._logs:
            self._logs[ref.name] = EventLog(self.files, ref.team, ref.model, self.clock)
        return self._logs[ref.name]

    def history(self, ref: Ref) -> History:
        """What the log of a model adds up to now."""
        return fold(self.log(ref).events())

    def version(self, ref: Ref) -> VersionState:
        """The version that a reference means: its number, its alias, or the highest that readers may see."""
        return self.history(ref).version(self.numbered(ref))

    def numbered(self, ref: Ref) -> Ref:
        """The same version by number. Raises HubError(kind="not_found")."""
        if ref.version is not None:
            return ref
        if ref.alias:
            return ref.at(self.alias_target(ref, ref.alias))
        history = self.history(ref)
        seen = [n for n, version in history.versions.items() if version.state in lifecycle.VISIBLE]
        if not seen:
            known = f"{len(history.versions)} versions, none published: name one" if history.versions else "push one"
            raise HubError(f"{ref} has no published version", kind="not_found", hint=known)
        current = [n for n in seen if history.versions[n].state == State.PUBLISHED]
        return ref.at(max(current or seen))

    def alias_target(self, ref: Ref, alias: str) -> int:
        """The version that an alias of the model points to, as a reader on a mount would see it."""
        try:
            target = self.files.readlink(f"{names.model_dir(ref.team, ref.model)}/{alias}")
        except NotFound:
            raise HubError(f"no such alias: {ref.name}:{alias}", kind="not_found") from None
        found = names.split_entry(target)
        if found is None:
            raise HubError(f"{ref.name}:{alias} points to {target!r}, which is no version", kind="unsafe")
        return found[0]

    def step(
        self,
        ref: Ref,
        action: Action,
        actor: Actor,
        guard: Guard,
        *,
        extra: dict[str, Any] | Callable[[VersionState], dict[str, Any]] | None = None,
        request_id: str = "",
        dag_run_id: str = "",
    ) -> Event | None:
        """Move a version on by one step of the lifecycle, or find (by the guard) that there is nothing to do."""
        attempts = -1

        def decide(past: Sequence[Event]) -> Change | None:
            nonlocal attempts
            attempts += 1
            version = fold(past).version(ref)
            if not guard(version, attempts):
                return None
            return Change(
                action=action,
                actor=actor.name,
                version=version.number,
                before=version.state,
                after=lifecycle.after(version.state, action, str(ref)),
                digest=version.digest,
                request_id=request_id,
                dag_run_id=dag_run_id,
                extra=(extra(version) if callable(extra) else extra) or {},
            )

        return self.log(ref).append(decide)

    def note(
        self, ref: Ref, action: str, actor: Actor, *, digest: str = "", extra: dict[str, Any] | None = None
    ) -> None:
        """Append an event that changes no version's state."""
        change = Change(action, actor.name, version=ref.version or 0, digest=digest, extra=extra or {})
        self.log(ref).append(lambda _: change)

    def place(self, ref: Ref, layout: str = "") -> str:
        """Where a version (or a layout of it) lies: published, else as a draft. Raises HubError when nowhere."""
        number = ref.version or 0
        published = f"{names.model_dir(ref.team, ref.model)}/{names.entry(number, layout)}"
        draft = names.draft_dir(ref.team, ref.model, number, layout)
        for path in (published, draft):
            if self.files.is_dir(path):
                return path
        what = f"layout {layout} of {ref}" if layout else str(ref)
        raise HubError(f"{what} does not lie in this volume", kind="not_found", hint="push or sync it")

    def layouts(self, ref: Ref) -> dict[str, str]:
        """The layouts of a version that lie in this volume, by name, with their paths."""
        found: dict[str, str] = {}
        for top in (names.drafts_dir(ref.team, ref.model), names.model_dir(ref.team, ref.model)):
            for name in self._entries(top):
                entry = names.split_entry(name)
                if entry and entry[0] == ref.version and entry[1]:
                    found[entry[1]] = f"{top}/{name}"
        return dict(sorted(found.items()))

    def earlier_layouts(self, ref: Ref, layout: str) -> list[str]:
        """Paths of this layout of the model's other versions in this volume, the nearest below first; at most four."""
        found: dict[int, str] = {}
        for top in (names.drafts_dir(ref.team, ref.model), names.model_dir(ref.team, ref.model)):
            for name in self._entries(top):
                entry = names.split_entry(name)
                if entry and entry[0] != ref.version and entry[1] == layout:
                    found[entry[0]] = f"{top}/{name}"
        here = ref.version or 0
        nearest = sorted(found, key=lambda number: (number > here, abs(number - here)))
        return [found[number] for number in nearest[:4]]

    def _entries(self, path: str) -> list[str]:
        try:
            return self.files.listdir(path)
        except NotFound:
            return []
