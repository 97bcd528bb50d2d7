"""Cut a version for tensor, pipeline and expert parallel loading: a layout beside it, mostly by reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fscore.domain.errors import Exists, HubError, NotFound, NotPermitted
from fscore.hub import lifecycle, names, records, staging
from fscore.hub import manifest as manifests
from fscore.hub.access import Actor, as_actor
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import VolumeSource
from fscore.hub.history import VersionState
from fscore.hub.ledger import Ledger
from fscore.hub.manifest import Manifest, ManifestFile, Parallel, Totals, Uploader
from fscore.hub.names import Ref, parse_ref
from fscore.hub.registry import move_frozen
from fscore.hub.reports import LayoutReport
from fscore.hub.scan import sha256_files
from fscore.hub.split.plan import SplitPlan, plan_split
from fscore.hub.split.write import write_split
from fscore.hub.staging import Staging
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import Progress

if TYPE_CHECKING:
    from fscore.volume import Volume


def split_version(
    volume: Volume,
    ref: str | Ref,
    *,
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    actor: str | Actor,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> LayoutReport:
    """Make a layout of a version, or find the one that is there; drafts get drafts, published versions published ones.

    An interrupted split continues when called again. Refused while a decision on the version is pending or taken.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    ledger, who = Ledger(volume.files, clock), as_actor(actor)
    at = ledger.numbered(parse_ref(ref))
    ledger.policy.check_member(who, at.team)
    version = ledger.version(at)
    _check_state(at, version)
    layout = names.layout_name(tp, pp, ep)
    home = ledger.place(at)
    there = ledger.layouts(at).get(layout)
    if there is not None:
        manifest = records.read_manifest(volume.files, settle_layout(ledger, at, layout))
        return _report(ledger, at, manifest, bytes_new=0, seconds=clock.monotonic() - began, known=True)

    source = VolumeSource(volume.files, home)
    scan = scan_model(source)
    plan = plan_split(scan, tp, pp, ep)
    kinds = {file.path: (file.kind, file.media) for file in scan.files}
    upload_id = staging.staging_id(at.team, at.model, version.digest, layout)
    upload = Staging(volume.files, at.team, at.model, upload_id)
    try:
        upload.begin()
        known = ledger.earlier_layouts(at, layout)
        split = write_split(volume.files, home, upload.files, plan, progress, earlier=known, clock=clock)
        manifest = _describe(ledger, at, version, plan, upload, who, kinds, progress)
        place_layout(ledger, upload, manifest)
    except (NotFound, Exists, NotPermitted):
        # somebody else split the same version, or published it, meanwhile
        if layout not in ledger.layouts(at):
            raise
        split = msgspec.structs.replace(plan.report, bytes_new=0)
        manifest = records.read_manifest(volume.files, ledger.place(at, layout))
    if ledger.version(at).layouts.get(layout) != manifest.version_digest:
        ledger.note(at, "split", who, digest=manifest.version_digest, extra={"layout": layout})
    upload.remove()
    return _report(ledger, at, manifest, bytes_new=split.bytes_new, seconds=clock.monotonic() - began)


def place_layout(ledger: Ledger, upload: Staging, manifest: Manifest) -> str:
    """Freeze a complete layout and put it beside its version, draft or published; returns where it lies."""
    at = Ref(manifest.team, manifest.model, manifest.version)
    frozen = [file.path for file in manifest.files] + [f"{names.AUDIT}/{manifests.MANIFEST}"]
    upload.prune(set(frozen))
    upload.finish(names.draft_dir(at.team, at.model, manifest.version, manifest.layout), frozen)
    return settle_layout(ledger, at, manifest.layout)


def settle_layout(ledger: Ledger, at: Ref, layout: str) -> str:
    """Bring a layout to where its version is; returns the path."""
    number = at.version or 0
    draft = names.draft_dir(at.team, at.model, number, layout)
    if not ledger.files.is_dir(names.version_dir(at.team, at.model, number)):
        return draft
    published = names.layout_dir(at.team, at.model, number, layout)
    move_frozen(ledger, draft, published)
    return published


def describe_layout(
    at: Ref, version_digest: str, plan: SplitPlan, files: tuple[ManifestFile, ...], who: str, created_at: str
) -> Manifest:
    """The manifest of a layout of these files."""
    grid = plan.grid
    return Manifest(
        team=at.team,
        model=at.model,
        version=at.version or 0,
        version_digest=manifests.digest_of(files),
        files=files,
        created_at=created_at,
        uploader=Uploader(who),
        layout=plan.name,
        parent_digest=version_digest,
        source={"kind": "split", "uri": str(at)},
        parallel=Parallel(
            kind="tp-pp-ep",
            tp=grid.tp,
            pp=grid.pp,
            ep=grid.ep,
            derived_from=version_digest,
            ranks=tuple(rank.name for rank in plan.ranks),
        ),
        totals=Totals(files=len(files), bytes=sum(file.size for file in files)),
    )


def _describe(
    ledger: Ledger,
    at: Ref,
    version: VersionState,
    plan: SplitPlan,
    upload: Staging,
    who: Actor,
    kinds: dict[str, tuple[str, str]],
    progress: Progress | None,
) -> Manifest:
    """Hash what was written and put the manifest beside it; one that an earlier attempt put there stands."""
    try:
        return records.read_manifest(ledger.files, upload.files)
    except HubError as error:
        if error.kind != "not_found":
            raise
    wanted = {f"{rank.name}/{file.path}" for rank in plan.ranks for file in rank.files}
    upload.prune(wanted)
    source = VolumeSource(ledger.files, upload.files)
    proofs = sha256_files(source, progress=progress)
    files = tuple(
        ManifestFile(path, size, "", proofs[path], *kinds.get(path.partition("/")[2], _kind(path)))
        for path, size in source.files()
    )
    created = manifests.timestamp(ledger.clock.now_ns())
    manifest = describe_layout(at, version.digest, plan, files, who.name, created)
    upload.put(f"{names.AUDIT}/{manifests.MANIFEST}", manifests.render(manifest))
    return manifest


def _kind(path: str) -> tuple[str, str]:
    weight = path.endswith(".safetensors")
    return ("weight" if weight else "weight.config"), "application/octet-stream"


def _check_state(at: Ref, version: VersionState) -> None:
    if version.state in lifecycle.UNDECIDED or version.state in lifecycle.VISIBLE:
        return
    hint = "split before asking for a decision, or after publishing"
    raise HubError(f"cannot split {at}: it is {version.state}", kind="state", hint=hint)


def _report(
    ledger: Ledger, at: Ref, manifest: Manifest, *, bytes_new: int, seconds: float, known: bool = False
) -> LayoutReport:
    total = manifest.size
    return LayoutReport(
        ref=str(at),
        layout=manifest.layout,
        ranks=manifest.parallel.ranks,
        path=ledger.place(at, manifest.layout),
        digest=manifest.version_digest,
        files=len(manifest.files),
        bytes_total=total,
        bytes_new=bytes_new,
        bytes_shared=total - bytes_new,
        zero_copy=round((total - bytes_new) / total, 4) if total else 1.0,
        deduplicated=known,
        seconds=round(seconds, 3),
    )
