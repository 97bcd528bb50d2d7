"""The records inside a version (`.fscore/`): reading them back, and what they say about byte ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
import xxhash

from fscore.domain.digest import FileDigest
from fscore.domain.errors import HubError, NotFound
from fscore.files.filesystem import Filesystem
from fscore.hub import manifest as manifests
from fscore.hub import names
from fscore.hub.formats.api import Source, TensorEntry
from fscore.hub.manifest import Manifest
from fscore.hub.scan import STEP, HashedFile, Segment, changed, cut_points

_LARGEST_GAP: Final = 128 << 20


def audit_path(where: str, name: str) -> str:
    """The path of a record of the version at `where`."""
    return f"{where}/{names.AUDIT}/{name}"


def read_manifest(files: Filesystem, where: str) -> Manifest:
    """The checked manifest of the version at `where`. Raises HubError(kind="not_found") when there is none."""
    path = audit_path(where, manifests.MANIFEST)
    try:
        data = files.read_bytes(path)
    except NotFound:
        raise HubError(f"no version lies at {where}", kind="not_found") from None
    return manifests.parse(data, path)


def read_tensors(files: Filesystem, manifest: Manifest, where: str) -> list[TensorEntry]:
    """The tensor table of the version at `where`, checked against its manifest."""
    if not manifest.tensors_ref:
        return []
    path = audit_path(where, manifests.TENSORS)
    data = files.read_bytes(path)
    if manifests.document_digest(data) != manifest.tensors_ref:
        raise HubError(f"{path} was altered: it is not what the manifest refers to", kind="unsafe")
    return manifests.parse_tensors(data, path)


def hashed_files(source: Source, manifest: Manifest, tensors: Sequence[TensorEntry]) -> list[HashedFile]:
    """Files and segments as the records state them; only what lies between tensors is read and hashed."""
    sizes = [(file.path, file.size) for file in manifest.files]
    cuts = cut_points(sizes, tensors)
    stated = {(tensor.file, tensor.offset, tensor.nbytes): tensor for tensor in tensors}
    found: list[HashedFile] = []
    for file in manifest.files:
        segments: list[Segment] = []
        for segment in cuts[file.path]:
            tensor = stated.get((file.path, segment.offset, segment.length))
            if tensor is not None and tensor.sha256:
                segments.append(msgspec.structs.replace(segment, sha256=tensor.sha256, xxh3=tensor.xxh3))
            elif len(cuts[file.path]) == 1:
                segments.append(msgspec.structs.replace(segment, sha256=file.sha256))
            else:
                segments.append(_read_gap(source, file.path, segment))
        found.append(HashedFile(file.path, FileDigest(file.size, file.md5, file.sha256), tuple(segments)))
    return found


def _read_gap(source: Source, path: str, segment: Segment) -> Segment:
    if segment.length > _LARGEST_GAP:
        raise HubError(f"{path}: {segment.length} bytes between tensors are too many", kind="invalid")
    proof, fast = hashlib.sha256(), xxhash.xxh3_128()
    reader = source.open(path)
    try:
        for offset in range(segment.offset, segment.end, STEP):
            chunk = reader.pread(offset, min(STEP, segment.end - offset))
            if not chunk:
                raise changed(path)
            proof.update(chunk)
            fast.update(chunk)
    finally:
        reader.close()
    return msgspec.structs.replace(segment, sha256=proof.hexdigest(), xxh3=fast.hexdigest())
