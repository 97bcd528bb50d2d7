"""Models, versions and aliases: what there is, and the steps that make a version visible or take it away."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from fscore.domain.errors import Exists, HubError, NotFound
from fscore.hub import access, approval, lifecycle, names, records
from fscore.hub import manifest as manifests
from fscore.hub.access import Actor, as_actor
from fscore.hub.history import VersionState
from fscore.hub.index import models_of, teams_of
from fscore.hub.ledger import Ledger
from fscore.hub.lifecycle import Action, State
from fscore.hub.log import Event
from fscore.hub.names import Ref, parse_ref
from fscore.hub.reports import LayoutInfo, ModelInfo, VersionInfo
from fscore.runtime.clock import Clock

if TYPE_CHECKING:
    from fscore.volume import Volume


class Registry:
    """The models of one volume."""

    def __init__(self, volume: Volume, clock: Clock | None = None) -> None:
        self._files = volume.files
        self.ledger = Ledger(volume.files, clock)

    def models(self, actor: str | Actor, team: str | None = None) -> list[ModelInfo]:
        """The models that the actor may see, by team and name."""
        who, policy = as_actor(actor), self.ledger.policy
        found: list[ModelInfo] = []
        for name in [names.check_name("team", team)] if team else teams_of(self._files):
            if team:
                policy.check_member(who, name)
            elif not policy.is_member(who, name):
                continue
            found += [self._model(Ref(name, model)) for model in models_of(self._files, name)]
        return found

    def versions(self, ref: str | Ref, actor: str | Actor) -> list[VersionInfo]:
        """Every version of a model, oldest first."""
        parsed = self._seen_by(ref, actor)
        history = self.ledger.history(parsed)
        if not history.versions:
            raise HubError(f"no such model: {parsed.name}", kind="not_found", hint="see `fscore models`")
        return [self._info(parsed.at(number)) for number in sorted(history.versions)]

    def show(self, ref: str | Ref, actor: str | Actor) -> VersionInfo:
        """One version, with its layouts, decision and aliases."""
        return self._info(self.ledger.numbered(self._seen_by(ref, actor)))

    def resolve(self, ref: str | Ref) -> tuple[int, str]:
        """(number, path) of a version that may be read. Raises HubError when it is revoked, rejected or absent."""
        parsed = self.ledger.numbered(parse_ref(ref))
        version = self.ledger.version(parsed)
        if version.state in (State.REVOKED, State.REJECTED):
            raise HubError(f"{parsed} is {version.state}", kind="state", hint="use another version")
        if version.state == State.DRAFT:
            raise HubError(f"{parsed} is not complete", kind="state", hint="finish its push")
        return version.number, self.ledger.place(parsed)

    def publish(
        self, ref: str | Ref, actor: str | Actor, *, alias: str = "", request_id: str = "", dag_run_id: str = ""
    ) -> VersionInfo:
        """Make a version visible to every reader, whole, by one rename; then set its alias.

        Continues what an interrupted call of the same request (or, without one, the same actor) began.
        Raises HubError(kind="conflict") when somebody else published it.
        """
        who = as_actor(actor)
        parsed = self.ledger.numbered(self._seen_by(ref, who))
        if alias:
            self._check_alias(parsed, alias, who)

        def guard(version: VersionState, attempts: int) -> bool:
            if version.publish is not None and version.state in lifecycle.VISIBLE:
                if attempts or not _same_call(version.publish, who, request_id):
                    by, at = version.publish.actor, version.publish.ts
                    raise HubError(f"{parsed} was already published by {by} at {at}", kind="conflict")
                return False
            self._check_publishable(parsed, version)
            return True

        self.ledger.step(
            parsed, Action.PUBLISH, who, guard, extra={"alias": alias}, request_id=request_id, dag_run_id=dag_run_id
        )
        version = self.ledger.version(parsed)
        self._make_visible(parsed, version)
        wanted = alias or str((version.upload.extra if version.upload else {}).get("alias", ""))
        if wanted:
            self._set_once(parsed, wanted, who, version.publish)
        return self._info(parsed)

    def set_alias(self, ref: str | Ref, alias: str, actor: str | Actor) -> VersionInfo:
        """Point an alias at a published version; readers see the old or the new one, never none."""
        who = as_actor(actor)
        parsed = self.ledger.numbered(self._seen_by(ref, who))
        self._check_alias(parsed, alias, who)
        version = self.ledger.version(parsed)
        if version.state not in lifecycle.VISIBLE:
            raise HubError(f"{parsed} is {version.state}: no alias can point to it", kind="state", hint="publish it")
        self.ledger.place(parsed)
        self.ledger.note(parsed, "alias", who, digest=version.digest, extra={"alias": alias})
        settle_alias(self.ledger, parsed, alias)
        return self._info(parsed)

    def remove_alias(self, ref: str | Ref, alias: str, actor: str | Actor) -> None:
        """Take an alias away."""
        who = as_actor(actor)
        parsed = self._seen_by(ref, who)
        self._check_alias(parsed, alias, who)
        if alias not in self.ledger.history(parsed).aliases:
            raise HubError(f"no such alias: {parsed.name}:{alias}", kind="not_found")
        model = Ref(parsed.team, parsed.model)
        self.ledger.note(model, "alias", who, extra={"alias": alias})
        settle_alias(self.ledger, model, alias)

    def deprecate(self, ref: str | Ref, actor: str | Actor, reason: str = "") -> VersionInfo:
        """Advise against a published version; it stays readable."""
        who = as_actor(actor)
        parsed = self.ledger.numbered(self._seen_by(ref, who))
        self.ledger.policy.check_approver(who, parsed.team, "deprecate versions")
        self.ledger.step(
            parsed, Action.DEPRECATE, who, lambda v, _: v.state != State.DEPRECATED, extra={"reason": reason}
        )
        return self._info(parsed)

    def revoke(self, ref: str | Ref, actor: str | Actor, reason: str = "") -> VersionInfo:
        """Withdraw a version from every reader: aliases first, then it and its layouts; kept for the audit."""
        who = as_actor(actor)
        parsed = self.ledger.numbered(self._seen_by(ref, who))
        self.ledger.policy.check_approver(who, parsed.team, "revoke versions")
        self.ledger.step(parsed, Action.REVOKE, who, lambda v, _: v.state != State.REVOKED, extra={"reason": reason})
        withdraw(self.ledger, parsed, who)
        return self._info(parsed)

    def record_validation(self, ref: str | Ref, result: object, actor: str | Actor) -> VersionInfo:
        """Keep the result of the release checks with a draft; one that passed moves it on to validated."""
        who = as_actor(actor)
        parsed = self.ledger.numbered(self._seen_by(ref, who))
        save_validation(self.ledger, parsed, result, who)
        return self._info(parsed)

    def log(self, ref: str | Ref) -> list[Event]:
        """The history of a model, oldest first."""
        return self.ledger.log(parse_ref(ref)).events()

    def verify_log(self, ref: str | Ref) -> list[str]:
        """What is wrong with a model's log; empty when its chain is whole."""
        return self.ledger.log(parse_ref(ref)).verify()

    def _seen_by(self, ref: str | Ref, actor: str | Actor) -> Ref:
        parsed = parse_ref(ref)
        self.ledger.policy.check_member(as_actor(actor), parsed.team)
        return parsed

    def _set_once(self, ref: Ref, alias: str, who: Actor, publish: Event | None) -> None:
        """Set the alias that a publication brings along, unless it was moved since: a retry moves nothing back."""
        since = publish.seq if publish else 0
        events = self.ledger.log(ref).events()
        if any(e.action == "alias" and e.extra.get("alias") == alias and e.seq > since for e in events):
            settle_alias(self.ledger, ref, alias)
        else:
            self.set_alias(ref, alias, who)

    def _check_alias(self, ref: Ref, alias: str, who: Actor) -> None:
        names.check_alias(alias)
        if alias in access.PROTECTED:
            self.ledger.policy.check_approver(who, ref.team, f"move the protected alias {alias}")

    def _check_publishable(self, ref: Ref, version: VersionState) -> None:
        if version.validation.get("success") is False:
            raise HubError(f"{ref} failed its release checks", kind="state", hint="see its validation.json")
        if self.ledger.policy.team(ref.team).require_approval and version.state != State.APPROVED:
            raise HubError(f"{ref} is {version.state}: team {ref.team} publishes only what is approved", kind="state")
        if version.state != State.APPROVED:
            return
        granted = approval.decision_of(ref, version)
        assert granted is not None
        present = approval.present_layouts(self.ledger, ref)
        same = all(present.get(name) == digest for name, digest in granted.layouts.items())
        if granted.digest != version.digest or not same:
            raise HubError(f"{ref} is not what was approved", kind="conflict", hint="push and ask again")

    def _make_visible(self, ref: Ref, version: VersionState) -> None:
        """Move layouts, then the version, out of the drafts. Every step may have been done before.

        Where a decision was taken, only the layouts that it names go along.
        """
        number = ref.version or 0
        self._files.mkdir(names.model_dir(ref.team, ref.model), parents=True, exist_ok=True)
        granted = approval.decision_of(ref, version)
        layouts = [name for name in self.ledger.layouts(ref) if granted is None or name in granted.layouts]
        for layout in [*layouts, ""]:
            draft = names.draft_dir(ref.team, ref.model, number, layout)
            target = f"{names.model_dir(ref.team, ref.model)}/{names.entry(number, layout)}"
            move_frozen(self.ledger, draft, target)

    def _model(self, ref: Ref) -> ModelInfo:
        history = self.ledger.history(ref)
        seen = [n for n, version in history.versions.items() if version.state in lifecycle.VISIBLE]
        return ModelInfo(ref.team, ref.model, len(history.versions), max(seen, default=0), dict(history.aliases))

    def _info(self, ref: Ref) -> VersionInfo:
        history = self.ledger.history(ref)
        version = history.version(ref)
        upload = version.upload
        extra = upload.extra if upload else {}
        try:
            path = self.ledger.place(ref)
            manifest = records.read_manifest(self._files, path)
        except HubError:
            path, manifest = "", None
        return VersionInfo(
            team=ref.team,
            model=ref.model,
            version=version.number,
            ref=str(ref),
            state=version.state,
            digest=version.digest,
            path=path,
            present=manifest is not None,
            created_at=upload.ts if upload else "",
            uploader=version.uploader,
            purpose=str(extra.get("purpose", "")),
            description=str(extra.get("description", "")),
            files=len(manifest.files) if manifest else 0,
            bytes=manifest.size if manifest else 0,
            tensors=manifest.totals.tensors if manifest else 0,
            aliases=tuple(sorted(alias for alias, n in history.aliases.items() if n == version.number)),
            layouts=tuple(self._layout(name, path) for name, path in self.ledger.layouts(ref).items()),
            approval=approval.decision_of(ref, version),
            request=approval.request_of(ref, version),
            validation=version.validation,
            wanted_alias=str(extra.get("alias", "")),
        )

    def _layout(self, name: str, path: str) -> LayoutInfo:
        manifest = records.read_manifest(self._files, path)
        return LayoutInfo(name, manifest.version_digest, manifest.parallel.ranks, path, manifest.size)


def settle_alias(ledger: Ledger, ref: Ref, alias: str) -> None:
    """Make the alias's symlink what the log says. Whoever does this last reads the last word, so writers converge."""
    directory = names.model_dir(ref.team, ref.model)
    link = f"{directory}/{alias}"
    while True:
        wanted = ledger.history(ref).aliases.get(alias)
        try:
            current = ledger.files.readlink(link)
        except NotFound:
            current = ""
        if current == (str(wanted) if wanted else ""):
            return
        if wanted:
            fresh = f"{directory}/.{alias}.{secrets.token_hex(6)}.tmp"
            ledger.files.symlink(str(wanted), fresh)
            ledger.files.rename(fresh, link)
        else:
            ledger.files.unlink(link, skip_trash=True)


def withdraw(ledger: Ledger, ref: Ref, who: Actor) -> None:
    """Take a revoked version out of every reader's way: its aliases, it, its layouts. Repeats are harmless."""
    number = ref.version or 0
    for alias, target in ledger.history(ref).aliases.items():
        if target == number:
            ledger.note(Ref(ref.team, ref.model), "alias", who, extra={"alias": alias})
            settle_alias(ledger, ref, alias)
    top = names.revoked_dir(ref.team, ref.model)
    ledger.files.mkdir(top, parents=True, exist_ok=True)
    for layout in ["", *ledger.layouts(ref)]:
        entry = names.entry(number, layout)
        move_frozen(ledger, f"{names.model_dir(ref.team, ref.model)}/{entry}", f"{top}/{entry}")


def move_frozen(ledger: Ledger, source: str, target: str) -> None:
    """Freeze all below `source`, move it by one rename, freeze the directory itself. Repeats are harmless."""
    files = ledger.files
    if files.is_dir(source):
        files.set_immutable(source, False)
        for child in list(files.scandir(source)):
            files.set_immutable(child.path, True, recursive=True)
        try:
            files.rename(source, target, replace=False)
        except NotFound:
            pass
        except Exists:
            raise HubError(f"{target} is already there", kind="conflict", hint="see `fscore log`") from None
    if not files.is_dir(target):
        raise HubError(f"the files of {target} are gone", kind="unsafe", hint="restore or push them")
    files.set_immutable(target, True)


def save_validation(ledger: Ledger, ref: Ref, result: object, who: Actor) -> None:
    """Write validation.json beside a draft's manifest and note the outcome in the log."""
    plain: dict[str, Any] = msgspec.to_builtins(result, str_keys=True)
    version = ledger.version(ref)
    if version.state not in lifecycle.UNDECIDED:
        raise HubError(f"cannot validate {ref}: it is {version.state}", kind="state")
    data = msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=1)
    where = names.draft_dir(ref.team, ref.model, version.number)
    ledger.files.write_atomic(records.audit_path(where, manifests.VALIDATION), data, replace=True)
    outcome = validation_summary(plain, manifests.document_digest(data))
    if outcome["success"]:
        ledger.step(ref, Action.VALIDATE, who, lambda v, _: v.validation != outcome, extra=outcome)
    elif version.validation != outcome:
        ledger.note(ref, str(Action.VALIDATE), who, digest=version.digest, extra=outcome)


def validation_summary(plain: dict[str, Any], digest: str) -> dict[str, Any]:
    """What the log and the manifest keep of a validation."""
    return {
        "success": bool(plain.get("success")),
        "counts": {str(key): int(value) for key, value in dict(plain.get("counts") or {}).items()},
        "result_digest": digest,
    }


def _same_call(event: Event, who: Actor, request_id: str) -> bool:
    if request_id or event.request_id:
        return event.request_id == request_id
    return event.actor == who.name
