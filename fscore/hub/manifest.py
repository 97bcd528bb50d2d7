"""The manifest of a version or layout: what it is made of, where it came from. Canonical JSON, immutable.

Schema of models.md 4.3: sorted keys, no floats (metrics are decimal strings), so equal manifests are equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fscore.domain.digest import content_digest, version_digest
from fscore.domain.errors import HubError
from fscore.hub import names
from fscore.hub.formats.api import TensorEntry

SCHEMA: Final = "modelrepo/manifest/v1"
MANIFEST: Final = "manifest.json"
TENSORS: Final = "tensors.json"
VALIDATION: Final = "validation.json"


class ManifestFile(msgspec.Struct, frozen=True):
    """One file: `kind` is a ModelPack layer class (weight, weight.config, tokenizer, doc, code, dataset)."""

    path: str
    size: int
    md5: str
    sha256: str
    kind: str = "weight.config"
    media_type: str = "application/octet-stream"
    mode: int = 0o644


class Uploader(msgspec.Struct, frozen=True):
    """Who brought it, with which client."""

    user: str
    client: str = "fscore"


class Parallel(msgspec.Struct, frozen=True):
    """How the weights are cut; `derived_from` is the digest of the version that a layout was cut from."""

    kind: str = "none"
    tp: int = 1
    pp: int = 1
    ep: int = 1
    layout: str = "hf"
    derived_from: str = ""
    ranks: tuple[str, ...] = ()


class Totals(msgspec.Struct, frozen=True):
    """Sums over the files."""

    files: int = 0
    bytes: int = 0
    tensors: int = 0
    parameters: int = 0


class Validation(msgspec.Struct, frozen=True):
    """What the release checks said when the version came in; the whole result lies in validation.json."""

    suite: str = ""
    success: bool = False
    counts: dict[str, int] = {}
    result_digest: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """A version (`layout` empty) or a layout of one."""

    team: str
    model: str
    version: int
    version_digest: str
    files: tuple[ManifestFile, ...]
    created_at: str
    uploader: Uploader
    schema: str = SCHEMA
    layout: str = ""
    parent_digest: str = ""
    purpose: str = ""
    description: str = ""
    licenses: tuple[str, ...] = ()
    base_model: tuple[dict[str, str], ...] = ()
    datasets: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    source: dict[str, str] = {}
    arch: dict[str, Any] = {}
    parallel: Parallel = Parallel()
    tensors_ref: str = ""
    totals: Totals = Totals()
    validation: Validation | None = None
    eval_metrics: tuple[dict[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def digest_of(files: Iterable[ManifestFile]) -> str:
    """The version digest of these files (the OMS root)."""
    return version_digest((file.path, file.sha256) for file in files)


def render(manifest: Manifest) -> bytes:
    """The canonical bytes. Raises HubError when a float would get in."""
    plain = msgspec.to_builtins(manifest)
    _refuse_floats(plain, "manifest")
    return canonical(plain)


def parse(data: bytes, where: str = "manifest") -> Manifest:
    """Read and check a manifest: schema, safe unique paths, and that its digest is that of its files."""
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise HubError(f"{where} is no manifest: {error}", kind="invalid") from error
    if found.schema != SCHEMA:
        raise HubError(f"{where} has schema {found.schema!r}; this client reads {SCHEMA}", hint="update fscore")
    paths = [names.safe_relative(file.path) for file in found.files]
    if len(set(paths)) != len(paths):
        raise HubError(f"{where} names a file twice", kind="invalid")
    if digest_of(found.files) != found.version_digest:
        raise HubError(f"{where} was altered: its digest is not that of its files", kind="unsafe")
    return found


def render_tensors(rows: Iterable[TensorEntry]) -> bytes:
    """The canonical bytes of a tensor table, ordered by file and offset."""
    ordered = sorted(rows, key=lambda row: (row.file, row.offset, row.name))
    return canonical(msgspec.to_builtins(ordered))


def parse_tensors(data: bytes, where: str = "tensor table") -> list[TensorEntry]:
    """Read a tensor table."""
    try:
        return msgspec.json.decode(data, type=list[TensorEntry])
    except msgspec.MsgspecError as error:
        raise HubError(f"{where} is no tensor table: {error}", kind="invalid") from error


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values are equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def document_digest(data: bytes) -> str:
    """The digest by which one document refers to another."""
    return content_digest(data)


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(now_ns // 1_000_000_000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{now_ns // 1_000_000 % 1000:03d}Z"


def _refuse_floats(value: object, where: str) -> None:
    if isinstance(value, float):
        raise HubError(f"{where} holds the float {value}; write metrics as decimal text", kind="invalid")
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_floats(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _refuse_floats(inner, f"{where}[{number}]")
