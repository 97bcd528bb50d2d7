"""Bring a model into a volume as a draft version: only bytes that the team does not have travel."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fscore.domain.digest import version_digest
from fscore.domain.errors import Exists, HubError, NotFound, NotPermitted
from fscore.files.filesystem import Filesystem
from fscore.hub import lifecycle, names, records, registry, staging
from fscore.hub import manifest as manifests
from fscore.hub.access import Actor, as_actor
from fscore.hub.formats.api import Source, TensorEntry
from fscore.hub.formats.detect import ModelScan, scan_model
from fscore.hub.formats.source import LocalSource
from fscore.hub.history import VersionState, fold
from fscore.hub.index import ContentIndex
from fscore.hub.ledger import Ledger
from fscore.hub.lifecycle import Action, State
from fscore.hub.log import Change, Event
from fscore.hub.manifest import Manifest, ManifestFile, Totals, Uploader
from fscore.hub.names import Ref, parse_ref
from fscore.hub.plan import plan_push
from fscore.hub.reports import PushReport
from fscore.hub.scan import HashedFile, hash_source
from fscore.hub.staging import Staging
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import Progress

if TYPE_CHECKING:
    from fscore.volume import Volume

_PICKLES: Final = "pickle"
_ATTEMPTS: Final = 3


def push(
    volume: Volume,
    source: str | os.PathLike[str] | Source,
    ref: str | Ref,
    *,
    user: str | Actor,
    purpose: str = "",
    alias: str = "",
    base: str = "",
    description: str = "",
    licenses: Sequence[str] = (),
    origin: dict[str, str] | None = None,
    validation: object | None = None,
    allow_pickle: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
    request_id: str = "",
    clock: Clock | None = None,
) -> PushReport:
    """Scan and hash, ask what is known, plan, write what is new, compose the rest, and stage it as one draft.

    The same content again returns the version that has it. An interrupted push continues when called again.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    who, wanted = as_actor(user), parse_ref(ref)
    ledger = Ledger(volume.files, clock)
    ledger.policy.check_member(who, wanted.team)
    told = _told(purpose, alias, base, description, licenses, origin, ledger)
    found = LocalSource(source) if isinstance(source, str | os.PathLike) else source
    scan = scan_model(found)
    refuse_broken(scan, allow_pickle=allow_pickle)
    hashed = hash_source(found, scan.tensors, progress=progress)
    digest = version_digest((file.path, file.digest.sha256) for file in hashed)
    index = ContentIndex(volume.files, wanted.team)
    upload = Staging(volume.files, wanted.team, wanted.model, staging.staging_id(wanted.team, wanted.model, digest))
    version = ledger.history(wanted).with_digest(digest)
    known = version is not None and version.state != State.DRAFT
    if version is None or not known:
        version = _reserve(ledger, wanted, who, digest, told, request_id)
    _check_number(wanted, version)
    at = wanted.at(version.number)
    draft = names.draft_dir(at.team, at.model, version.number)
    moved: list[int] = []

    def attempt() -> None:
        upload.begin(resume=resume)
        moved.append(upload.write(plan_push(hashed, index.lookup(hashed), upload.pool), found, progress))
        _write_records(upload, _manifest(wanted, version, hashed, scan), _table(scan, hashed))
        upload.finish(draft, _frozen(hashed, scan))

    if not known:
        _until_there(volume.files, draft, attempt)
    _stage(ledger, at, who, validation)
    if not known or upload.exists():
        home = ledger.place(at)
        index.add(records.read_manifest(volume.files, home), hashed, home)
        upload.remove()
    seconds = clock.monotonic() - began
    return _report(ledger, at, ledger.version(at), hashed, scan, bytes_new=sum(moved), seconds=seconds, known=known)


def _until_there(files: Filesystem, draft: str, attempt: Callable[[], None]) -> None:
    """Try until the draft lies there: another push of the same content, or the publication of one that we share with,
    may move files meanwhile."""
    for number in range(_ATTEMPTS):
        if files.is_dir(draft):
            return
        try:
            attempt()
        except (NotFound, Exists, NotPermitted):
            if number + 1 == _ATTEMPTS and not files.is_dir(draft):
                raise


def refuse_broken(scan: ModelScan, *, allow_pickle: bool = False) -> None:
    """Raise HubError for what must not come in: lying headers, missing shards, duplicates, pickles."""
    bad = [p for p in scan.problems if p.severity == "critical" and not (allow_pickle and p.kind == _PICKLES)]
    if not scan.files:
        raise HubError("there is nothing to push: the directory is empty", kind="invalid")
    if bad:
        more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        unsafe = bad[0].kind in (_PICKLES, "pickle_globals", "unsafe", "executable")
        raise HubError(f"{bad[0].detail}{more}", kind="unsafe" if unsafe else "invalid")


def _told(
    purpose: str,
    alias: str,
    base: str,
    description: str,
    licenses: Sequence[str],
    origin: dict[str, str] | None,
    ledger: Ledger,
) -> dict[str, Any]:
    """What the caller says about the version; the upload event keeps it, so that a resumed push says the same."""
    if alias:
        names.check_alias(alias)
    base_model: list[dict[str, str]] = []
    if base:
        try:
            base_model = [{"ref": base, "digest": ledger.version(parse_ref(base)).digest}]
        except HubError:
            base_model = [{"ref": base, "digest": ""}]
    return {
        "purpose": purpose,
        "alias": alias,
        "description": description,
        "licenses": list(licenses),
        "base_model": base_model,
        "source": {str(key): str(value) for key, value in (origin or {}).items()},
    }


def _reserve(ledger: Ledger, ref: Ref, who: Actor, digest: str, told: dict[str, Any], request_id: str) -> VersionState:
    """Take the next number for this content, or find the number that an earlier attempt took."""

    def decide(past: Sequence[Event]) -> Change | None:
        history = fold(past)
        same = history.with_digest(digest)
        if same is not None:
            return None
        number = ref.version or history.next_number()
        if number in history.versions:
            other = history.versions[number]
            raise HubError(
                f"{ref.at(number)} is another content ({other.state})", kind="exists", hint="leave the number out"
            )
        if number > history.next_number():
            raise HubError(f"the next version of {ref.name} is {history.next_number()}, not {number}", kind="invalid")
        to = lifecycle.after(State.NONE, Action.UPLOAD)
        return Change(Action.UPLOAD, who.name, number, State.NONE, to, digest=digest, request_id=request_id, extra=told)

    ledger.log(ref).append(decide)
    version = ledger.history(ref).with_digest(digest)
    assert version is not None
    return version


def _check_number(ref: Ref, version: VersionState) -> None:
    if ref.version is not None and ref.version != version.number:
        hint = "leave the number out"
        raise HubError(f"this content is already {ref.at(version.number)}", kind="exists", hint=hint)


def _stage(ledger: Ledger, ref: Ref, who: Actor, validation: object | None) -> None:
    ledger.step(ref, Action.STAGE, who, lambda version, _: version.state == State.DRAFT)
    if validation is not None and ledger.version(ref).state in lifecycle.UNDECIDED:
        registry.save_validation(ledger, ref, validation, who)


def _frozen(hashed: Sequence[HashedFile], scan: ModelScan) -> list[str]:
    own = [manifests.MANIFEST] + ([manifests.TENSORS] if scan.tensors else [])
    return [file.path for file in hashed] + [f"{names.AUDIT}/{name}" for name in own]


def _write_records(upload: Staging, manifest: Manifest, table: bytes) -> None:
    if table:
        upload.put(f"{names.AUDIT}/{manifests.TENSORS}", table)
        manifest = msgspec.structs.replace(manifest, tensors_ref=manifests.document_digest(table))
    upload.put(f"{names.AUDIT}/{manifests.MANIFEST}", manifests.render(manifest))


def _table(scan: ModelScan, hashed: Sequence[HashedFile]) -> bytes:
    """The tensor table, with the digests that the scan found."""
    if not scan.tensors:
        return b""
    sums = {(file.path, segment.tensor): segment for file in hashed for segment in file.segments if segment.tensor}
    rows: list[TensorEntry] = []
    for tensor in scan.tensors:
        found = sums.get((tensor.file, tensor.name))
        rows.append(msgspec.structs.replace(tensor, sha256=found.sha256, xxh3=found.xxh3) if found else tensor)
    return manifests.render_tensors(rows)


def _manifest(ref: Ref, version: VersionState, hashed: Sequence[HashedFile], scan: ModelScan) -> Manifest:
    """The manifest: a function of the content and of the upload event, so that every attempt writes the same."""
    upload = version.upload
    assert upload is not None
    kinds = {file.path: file for file in scan.files}
    files = tuple(
        ManifestFile(f.path, f.size, f.digest.md5, f.digest.sha256, kinds[f.path].kind, kinds[f.path].media)
        for f in hashed
    )
    told = upload.extra
    return Manifest(
        team=ref.team,
        model=ref.model,
        version=version.number,
        version_digest=version.digest,
        files=files,
        created_at=upload.ts,
        uploader=Uploader(upload.actor),
        purpose=told["purpose"],
        description=told["description"],
        licenses=tuple(told["licenses"]),
        base_model=tuple(told["base_model"]),
        parent_digest=told["base_model"][0]["digest"] if told["base_model"] else "",
        source=told["source"],
        arch=_arch(scan),
        totals=Totals(
            files=len(files),
            bytes=sum(file.size for file in files),
            tensors=len(scan.tensors),
            parameters=sum(tensor.elements for tensor in scan.tensors),
        ),
    )


def _arch(scan: ModelScan) -> dict[str, Any]:
    """What the config says about the architecture, in the names of the manifest (models.md 4.3)."""
    config = scan.config
    dtypes = Counter(tensor.dtype for tensor in scan.tensors)
    arch: dict[str, Any] = {"format": scan.format, "dtype_hist": dict(sorted(dtypes.items()))}
    wanted = {"model_type": "model_type", "architectures": "architectures", "vocab_size": "vocab_size"}
    wanted |= {"context_len": "max_position_embeddings", "tied": "tie_word_embeddings"}
    for name, key in wanted.items():
        if config.get(key) is not None and not isinstance(config[key], float):
            arch[name] = config[key]
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict):
        arch["quantization"] = str(quantization.get("quant_method", "yes"))
    return arch


def _report(
    ledger: Ledger,
    at: Ref,
    version: VersionState,
    hashed: Sequence[HashedFile],
    scan: ModelScan,
    *,
    bytes_new: int,
    seconds: float,
    known: bool,
) -> PushReport:
    total = sum(file.size for file in hashed)
    return PushReport(
        team=at.team,
        model=at.model,
        version=version.number,
        ref=str(at),
        path=ledger.place(at),
        state=version.state,
        digest=version.digest,
        files=len(hashed),
        tensors=len(scan.tensors),
        bytes_total=total,
        bytes_new=bytes_new,
        bytes_shared=total - bytes_new,
        deduplicated=known,
        seconds=round(seconds, 3),
    )
