"""One version or layout to another volume: missing content moves, the rest is composed there, then one rename."""

from __future__ import annotations

from fscore.domain.errors import CorruptError, HubError, NotFound
from fscore.files.filesystem import Filesystem
from fscore.hub import manifest as manifests
from fscore.hub import names, records, staging
from fscore.hub.formats.detect import scan_model
from fscore.hub.formats.source import VolumeSource
from fscore.hub.index import ContentIndex
from fscore.hub.ledger import Ledger
from fscore.hub.manifest import Manifest
from fscore.hub.names import Ref
from fscore.hub.plan import plan_push
from fscore.hub.registry import move_frozen
from fscore.hub.split.plan import plan_split
from fscore.hub.split.write import write_split
from fscore.hub.staging import Staging
from fscore.runtime import log
from fscore.runtime.progress import Progress
from fscore.sync.plan import Step, SyncItem
from fscore.sync.verify import differences, verify

logger = log.get(__name__)


class Copier:
    """Carries steps of a plan out, from one volume's published models into another's."""

    def __init__(self, source: Ledger, target: Ledger, progress: Progress | None = None) -> None:
        self._source = source
        self._target = target
        self._progress = progress

    def do(self, step: Step) -> SyncItem:
        """Carry one step out. What an interrupted attempt staged is used."""
        manifest = records.read_manifest(self._source.files, self._home(step))
        if manifest.version_digest != step.digest:
            raise HubError(f"{step.ref} changed while it was synced", kind="conflict", hint="run the sync again")
        if step.action == "keep":
            return _item(step, "kept", manifest, 0)
        if step.what == "version":
            moved = self._copy(step, manifest)
            return _item(step, "copied", manifest, moved)
        composed = self._compose(step, manifest)
        if composed is not None:
            return _item(step, "composed", manifest, composed)
        return _item(step, "copied", manifest, self._copy(step, manifest))

    def _home(self, step: Step) -> str:
        return f"{names.model_dir(step.ref.team, step.ref.model)}/{names.entry(step.ref.version or 0, step.layout)}"

    def _staging(self, step: Step) -> Staging:
        upload_id = staging.staging_id(step.ref.team, step.ref.model, step.digest, f"sync {step.layout}")
        return Staging(self._target.files, step.ref.team, step.ref.model, upload_id)

    def _copy(self, step: Step, manifest: Manifest) -> int:
        """Move what the target's team does not have, refer to what it has; returns the bytes that moved."""
        home = self._home(step)
        source = VolumeSource(self._source.files, home)
        hashed = records.hashed_files(source, manifest, records.read_tensors(self._source.files, manifest, home))
        upload = self._staging(step)
        upload.begin()
        index = ContentIndex(self._target.files, step.ref.team)
        moved = upload.write(plan_push(hashed, index.lookup(hashed), upload.pool), source, self._progress)
        self._finish(step, manifest, upload)
        index.add(manifest, hashed, home)
        upload.remove()
        return moved

    def _compose(self, step: Step, manifest: Manifest) -> int | None:
        """Cut the target's version as the source's was cut; None when the bytes come out otherwise."""
        number = step.ref.version or 0
        version = names.version_dir(step.ref.team, step.ref.model, number)
        cut = manifest.parallel
        upload = self._staging(step)
        upload.begin()
        try:
            plan = plan_split(scan_model(VolumeSource(self._target.files, version)), cut.tp, cut.pp, cut.ep)
        except HubError as error:
            logger.info("layout %s of %s is copied: %s", step.layout, step.ref, error)
            return None
        known = self._target.earlier_layouts(step.ref, step.layout)
        done = write_split(self._target.files, version, upload.files, plan, self._progress, earlier=known)
        upload.prune({file.path for file in manifest.files})
        if differences(self._target.files, upload.files, manifest, self._progress):
            logger.info("layout %s of %s comes out otherwise here: it is copied", step.layout, step.ref)
            upload.remove()
            return None
        self._finish(step, manifest, upload, verified=True)
        upload.remove()
        return done.bytes_new

    def _finish(self, step: Step, manifest: Manifest, upload: Staging, *, verified: bool = False) -> None:
        """Records beside the files, every byte verified, frozen, visible."""
        home = self._home(step)
        kept = [file.path for file in manifest.files]
        if not verified:
            upload.prune(set(kept))
            try:
                verify(self._target.files, upload.files, manifest, self._progress)
            except CorruptError:
                upload.remove()
                raise
        for name in (manifests.TENSORS, manifests.VALIDATION, manifests.MANIFEST):
            data = _read(self._source.files, records.audit_path(home, name))
            if data is not None:
                upload.put(f"{names.AUDIT}/{name}", data)
        self._target.files.mkdir(names.model_dir(step.ref.team, step.ref.model), parents=True, exist_ok=True)
        move_frozen(self._target, upload.files, home)


def holdings(ledger: Ledger, ref: Ref) -> tuple[str, dict[str, str]] | None:
    """(digest, layouts) of a version that a volume shows, as its manifests prove them; None when it shows none."""
    home = names.version_dir(ref.team, ref.model, ref.version or 0)
    manifest = _manifest(ledger.files, home)
    if manifest is None:
        return None
    layouts: dict[str, str] = {}
    for layout, path in ledger.layouts(ref).items():
        found = _manifest(ledger.files, path) if path.startswith(names.MODELS) else None
        if found is not None:
            layouts[layout] = found.version_digest
    return manifest.version_digest, layouts


def links(ledger: Ledger, model: Ref) -> set[str]:
    """The aliases that lie in a model's directory as links."""
    try:
        found = ledger.files.scandir(names.model_dir(model.team, model.model))
        return {stat.name for stat in found if stat.is_symlink and not stat.name.startswith(".")}
    except NotFound:
        return set()


def _manifest(files: Filesystem, where: str) -> Manifest | None:
    try:
        return records.read_manifest(files, where)
    except HubError as error:
        if error.kind == "not_found":
            return None
        raise


def _read(files: Filesystem, path: str) -> bytes | None:
    try:
        return files.read_bytes(path)
    except NotFound:
        return None


def _item(step: Step, action: str, manifest: Manifest, moved: int) -> SyncItem:
    name = f"{step.ref}+{step.layout}" if step.layout else str(step.ref)
    return SyncItem(name, step.what, action, step.digest, moved, manifest.size - moved)
