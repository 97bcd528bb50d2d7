"""Bring published versions, their layouts, aliases and history to a volume elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fscore.domain.errors import HubError, ReadOnly
from fscore.hub import lifecycle
from fscore.hub.access import Actor, as_actor
from fscore.hub.history import fold
from fscore.hub.index import models_of, teams_of
from fscore.hub.ledger import Ledger
from fscore.hub.lifecycle import Action, State
from fscore.hub.log import Change, Event
from fscore.hub.names import Ref, parse_ref
from fscore.hub.registry import settle_alias, withdraw
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import Progress
from fscore.sync.copy import Copier, holdings, links
from fscore.sync.plan import Holding, SyncItem, SyncReport, plan_sync

if TYPE_CHECKING:
    from fscore.volume import Volume


def sync_versions(
    source: Volume,
    target: Volume,
    refs: Iterable[str | Ref] | None = None,
    *,
    actor: str | Actor = "sync",
    region: str = "",
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> SyncReport:
    """Bring these versions (a model without number: all that it published; None: everything published) to the target.

    Only content that the target's team lacks moves; all of it is verified before the one rename that shows it.
    Called again it continues, and when nothing is missing it moves nothing.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    here, there = Ledger(source.files, clock), Ledger(target.files, clock)
    who, region = as_actor(actor), region or target.name
    wanted = _wanted(here, refs)
    plan = plan_sync(_shown(here, wanted), _shown(there, wanted), _revoked(here, wanted))
    copier = Copier(here, there, progress)
    items: list[SyncItem] = []
    for step in plan.steps:
        item = copier.do(step)
        items.append(item)
        if item.action != "kept":
            _note(here, step.ref, who, item, region)
    conflicts = list(plan.conflicts)
    for model in dict.fromkeys(Ref(ref.team, ref.model) for ref in wanted):
        conflicts += _carry_history(here, there, model, [ref for ref in wanted if ref.name == model.name])
    for ref in plan.withdraw:
        _withdraw(there, ref, who)
    new = [item for item in items if item.action != "kept"]
    return SyncReport(
        region=region,
        versions=sum(item.what == "version" for item in new),
        layouts=sum(item.what == "layout" for item in new),
        bytes_total=sum(item.bytes_moved + item.bytes_shared for item in items),
        bytes_moved=sum(item.bytes_moved for item in items),
        bytes_shared=sum(item.bytes_shared for item in items),
        seconds=round(clock.monotonic() - began, 3),
        items=tuple(items),
        withdrawn=tuple(str(ref) for ref in plan.withdraw),
        conflicts=tuple(conflicts),
    )


def _wanted(here: Ledger, refs: Iterable[str | Ref] | None) -> list[Ref]:
    """Every version meant, by number: published ones, and revoked ones so that they go away."""
    if refs is None:
        named = [Ref(team, model) for team in teams_of(here.files) for model in models_of(here.files, team)]
    else:
        named = [parse_ref(ref) for ref in refs]
    wanted: list[Ref] = []
    for ref in named:
        history = here.history(ref)
        if refs is not None and not history.versions:
            raise HubError(f"no such model: {ref.name}", kind="not_found", hint="see `fscore models`")
        if ref.version is None and ref.alias is None:
            moving = (*lifecycle.VISIBLE, State.REVOKED)
            wanted += [ref.at(n) for n, version in sorted(history.versions.items()) if version.state in moving]
            continue
        at = here.numbered(ref)
        state = history.version(at).state
        if state not in lifecycle.VISIBLE and state != State.REVOKED:
            raise HubError(f"cannot sync {at}: it is {state}", kind="state", hint="publish it first")
        wanted.append(at)
    return list(dict.fromkeys(wanted))


def _shown(ledger: Ledger, wanted: Sequence[Ref]) -> list[Holding]:
    found: list[Holding] = []
    for ref in wanted:
        holding = holdings(ledger, ref)
        if holding is not None:
            found.append(Holding(ref, *holding))
    return found


def _revoked(here: Ledger, wanted: Sequence[Ref]) -> list[Ref]:
    return [ref for ref in wanted if here.version(ref).state == State.REVOKED]


def _note(here: Ledger, ref: Ref, who: Actor, item: SyncItem, region: str) -> None:
    extra = {"region": region, "what": item.ref, "bytes_moved": item.bytes_moved, "action": item.action}
    try:
        here.note(ref, "sync", who, digest=item.digest, extra=extra)
    except ReadOnly:
        return  # a source that may only be read keeps no account of who copied from it


def _carry_history(here: Ledger, there: Ledger, model: Ref, wanted: Sequence[Ref]) -> list[str]:
    """Make the target's log the source's; where the target has a history of its own, add what it lacks to it."""
    ours = here.log(model).events()
    theirs = there.log(model).events()
    problems: list[str] = []
    if all(mine.hash == other.hash for mine, other in zip(ours, theirs, strict=False)):
        log = there.log(model)
        for event in ours[len(theirs) :]:
            if not log.append_verbatim(event):
                return [f"{model.name}: the target's log moved meanwhile; run the sync again"]
    else:
        problems = [problem for ref in wanted for problem in _import(here, there, ref)]
    _settle_aliases(there, model)
    return problems


def _settle_aliases(there: Ledger, model: Ref) -> None:
    """Make the target's links what its log says, as far as the versions are there."""
    wanted = there.history(model).aliases
    present = {alias for alias, number in wanted.items() if holdings(there, model.at(number)) is not None}
    for alias in sorted(present | (links(there, model) - wanted.keys())):
        settle_alias(there, model, alias)


def _withdraw(there: Ledger, ref: Ref, who: Actor) -> None:
    version = there.history(ref).versions.get(ref.version or 0)
    if version is not None and version.state in lifecycle.VISIBLE:
        there.step(ref, Action.REVOKE, who, lambda v, _: v.state != State.REVOKED, extra={"reason": "revoked at home"})
    withdraw(there, ref, who)


def _import(here: Ledger, there: Ledger, ref: Ref) -> list[str]:
    """One version into a history that is not a copy of ours."""
    version = here.version(ref)
    if holdings(there, ref) is None:
        return []
    problems: list[str] = []

    def decide(past: Sequence[Event]) -> Change | None:
        problems.clear()
        known = fold(past).versions.get(ref.version or 0)
        if known is not None:
            if known.digest != version.digest:
                problems.append(f"{ref} is another version in the target's history")
            return None
        to = lifecycle.after(State.NONE, Action.IMPORT)
        extra = {"uploader": version.uploader, "layouts": version.layouts, "head": here.log(ref).events()[-1].hash}
        return Change(Action.IMPORT, "sync", ref.version or 0, State.NONE, to, digest=version.digest, extra=extra)

    there.log(ref).append(decide)
    return problems
