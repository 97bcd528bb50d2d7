"""Asking for a decision and taking it. The log is the truth; command line, Airflow and REST all come here.

Rule 1  a request binds the version's digest and the digests of its layouts; a decision repeats what it decides on.
Rule 2  the first decision wins; the same again is told what stands, a contrary one is refused.
Rule 3  nobody decides on what they uploaded, and where a request names approvers nobody else decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.domain.errors import HubError, NotFound
from fscore.hub import manifest as manifests
from fscore.hub import names, records, staging
from fscore.hub.access import Actor, as_actor
from fscore.hub.history import VersionState
from fscore.hub.ledger import Ledger
from fscore.hub.lifecycle import Action, State
from fscore.hub.names import Ref, parse_ref
from fscore.hub.reports import Decision, Request
from fscore.runtime.clock import Clock

if TYPE_CHECKING:
    from fscore.volume import Volume

_VERDICTS = {"approve": Action.APPROVE, "reject": Action.REJECT}


def request(
    volume: Volume,
    ref: str | Ref,
    *,
    actor: str | Actor,
    digest: str = "",
    approvers: tuple[str, ...] | list[str] = (),
    dag_run_id: str = "",
    clock: Clock | None = None,
) -> Request:
    """Ask for a decision on a draft as it lies there, with its layouts. Asking again changes nothing."""
    ledger, who = Ledger(volume.files, clock), as_actor(actor)
    parsed = ledger.numbered(parse_ref(ref))
    ledger.policy.check_member(who, parsed.team)
    layouts = present_layouts(ledger, parsed)

    def guard(version: VersionState, _: int) -> bool:
        _check_digest(parsed, version, digest)
        if version.validation.get("success") is False:
            raise HubError(f"{parsed} failed its release checks", kind="state", hint="see its validation.json")
        asked_before = version.request is not None and version.state != State.REJECTED
        return not asked_before

    ledger.step(
        parsed,
        Action.REQUEST,
        who,
        guard,
        extra={"approvers": list(approvers), "layouts": layouts},
        dag_run_id=dag_run_id,
    )
    found = request_of(parsed, ledger.version(parsed))
    assert found is not None
    return found


def decide(
    volume: Volume,
    ref: str | Ref,
    decision: str,
    *,
    by: str | Actor,
    reason: str = "",
    digest: str = "",
    dag_run_id: str = "",
    clock: Clock | None = None,
) -> Decision:
    """Approve or reject. Returns the decision that stands; raises HubError(kind="conflict") for a contrary one."""
    action = _VERDICTS.get(decision)
    if action is None:
        raise HubError(f"no such decision: {decision!r}", hint="approve or reject")
    ledger, who = Ledger(volume.files, clock), as_actor(by)
    parsed = ledger.numbered(parse_ref(ref))
    ledger.policy.check_member(who, parsed.team)

    def guard(version: VersionState, _: int) -> bool:
        _check_digest(parsed, version, digest)
        standing = decision_of(parsed, version)
        if standing is not None:
            if standing.decision != decision:
                verb = "approved" if standing.decision == "approve" else "rejected"
                raise HubError(f"{parsed} was already {verb} by {standing.by} at {standing.at}", kind="conflict")
            return False
        _check_approver(ledger, parsed, version, who)
        return True

    def extra(version: VersionState) -> dict[str, object]:
        asked = request_of(parsed, version)
        return {"reason": reason, "layouts": asked.layouts if asked else {}}

    ledger.step(parsed, action, who, guard, extra=extra, dag_run_id=dag_run_id)
    version = ledger.version(parsed)
    if version.state == State.REJECTED:
        discard(ledger, parsed)
    found = decision_of(parsed, version)
    assert found is not None
    return found


def read(volume: Volume, ref: str | Ref) -> Decision | None:
    """The decision on a version, or None while there is none."""
    ledger = Ledger(volume.files)
    parsed = ledger.numbered(parse_ref(ref))
    return decision_of(parsed, ledger.version(parsed))


def decision_of(ref: Ref, version: VersionState) -> Decision | None:
    """The decision that a version's history holds."""
    event = version.decision
    if event is None:
        return None
    layouts = {str(name): str(value) for name, value in dict(event.extra.get("layouts") or {}).items()}
    reason = str(event.extra.get("reason", ""))
    return Decision(str(ref), version.number, event.digest, event.action, event.actor, reason, event.ts, layouts)


def request_of(ref: Ref, version: VersionState) -> Request | None:
    """The request that a version's history holds."""
    event = version.request
    if event is None:
        return None
    approvers = tuple(str(name) for name in event.extra.get("approvers") or ())
    layouts = {str(name): str(value) for name, value in dict(event.extra.get("layouts") or {}).items()}
    return Request(str(ref), version.number, event.digest, event.actor, event.ts, approvers, layouts, version.state)


def present_layouts(ledger: Ledger, ref: Ref) -> dict[str, str]:
    """The layouts that lie beside a version, with their digests as their manifests prove them."""
    found = ledger.layouts(ref)
    return {name: records.read_manifest(ledger.files, path).version_digest for name, path in found.items()}


def discard(ledger: Ledger, ref: Ref) -> None:
    """Remove a rejected draft and its layouts; manifest and report stay under the log. Repeats are harmless."""
    number = ref.version or 0
    files = ledger.files
    draft = names.draft_dir(ref.team, ref.model, number)
    kept = names.kept_dir(ref.team, ref.model, number)
    files.mkdir(kept, parents=True, exist_ok=True)
    for name in (manifests.MANIFEST, manifests.TENSORS, manifests.VALIDATION):
        try:
            data = files.read_bytes(records.audit_path(draft, name))
        except NotFound:
            continue
        files.write_atomic(f"{kept}/{name}", data, replace=True)
    doomed = names.staging_dir(ref.team, ref.model, f"rejected-{number}")
    files.mkdir(doomed, parents=True, exist_ok=True)
    for layout in [*ledger.layouts(ref), ""]:
        entry = names.entry(number, layout)
        if files.exists(f"{names.drafts_dir(ref.team, ref.model)}/{entry}"):
            # out of sight first, whole: a removal that stops half-way must not leave half a draft
            files.rename(f"{names.drafts_dir(ref.team, ref.model)}/{entry}", f"{doomed}/{entry}", replace=False)
    staging.remove_tree(files, doomed)


def _check_digest(ref: Ref, version: VersionState, digest: str) -> None:
    if digest and digest != version.digest:
        raise HubError(f"{ref} is {version.digest}, not {digest}", kind="conflict", hint="look at it again")


def _check_approver(ledger: Ledger, ref: Ref, version: VersionState, who: Actor) -> None:
    rules = ledger.policy.team(ref.team)
    if who.name == version.uploader and not rules.allow_self_approval:
        raise HubError(f"{who.name!r} uploaded {ref} and cannot decide on it", kind="denied", hint="ask somebody else")
    asked = request_of(ref, version)
    if asked and asked.approvers and who.name not in asked.approvers and not ledger.policy.open:
        ledger.policy.check_admin(who, ref.team, f"decide on {ref}: {', '.join(asked.approvers)} were asked")
    elif asked and asked.approvers and who.name not in asked.approvers:
        raise HubError(
            f"{who.name!r} may not decide on {ref}", kind="denied", hint=f"asked: {', '.join(asked.approvers)}"
        )
    elif not (asked and asked.approvers):
        ledger.policy.check_approver(who, ref.team, "decide")
