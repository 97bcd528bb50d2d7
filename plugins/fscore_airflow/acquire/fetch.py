"""Brings a model within reach of the next tasks: `/dir`, `hf://org/name@rev`, `s3://bucket/prefix`, `fscore://volume/path`.

What is here already is not copied. What is remote goes into the workspace, file by file, and a second try goes on
where the first was cut.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from fscore.domain.errors import HubError
from fscore.runtime.buffer import Buffer
from fscore.runtime.clock import SystemClock
from fscore.runtime.progress import Progress
from fscore.runtime.retry import Retry
from fscore.runtime.threads import Pool
from fscore_airflow.acquire.select import Selection, select_files
from fscore_airflow.acquire.source import Located, opened

if TYPE_CHECKING:
    from fscore.objects.api import ObjectStore

_PIECE = 8 << 20
_FILES_AT_ONCE = 4
_ATTEMPTS = 6


class AcquireReport(msgspec.Struct, frozen=True):
    """What was brought: the location for the next tasks, and the figures."""

    source: Located
    files: int
    bytes_total: int
    bytes_fetched: int
    bytes_dropped: int
    dropped: list[str]


class Request(msgspec.Struct, frozen=True):
    """What is asked for, and where remote files may be put."""

    uri: str
    workspace: str
    include: list[str] = []
    exclude: list[str] = []
    allow_pickle: bool = False


def acquire(request: Request, log: logging.Logger, progress: Progress) -> AcquireReport:
    """Make `request.uri` readable. Raises HubError for what cannot be a source."""
    scheme = urlsplit(request.uri).scheme if "://" in request.uri else ""
    handler = _HANDLERS.get(scheme)
    if handler is None:
        raise HubError(
            f"source {request.uri!r} is of no known kind",
            hint="use a directory, hf://org/name@revision, s3://bucket/prefix or fscore://volume/path",
        )
    return handler(request, log, progress)


def _local(request: Request, log: logging.Logger, _progress: Progress) -> AcquireReport:
    path = Path(unquote(urlsplit(request.uri).path) if request.uri.startswith("file://") else request.uri).expanduser()
    if not path.is_absolute():
        raise HubError(f"source {request.uri!r} is a relative path", hint="give an absolute one")
    _check_allowed(path)
    return _in_place(request, _located(request, "local", str(path)), log)


def _check_allowed(path: Path) -> None:
    """Whoever may trigger a release may read what a worker reads; FSCORE_SOURCE_ROOTS narrows that."""
    roots = [Path(root) for root in os.environ.get("FSCORE_SOURCE_ROOTS", "").split(os.pathsep) if root]
    if roots and not any(path.resolve().is_relative_to(root.resolve()) for root in roots):
        raise HubError(f"source {path} is not below {', '.join(map(str, roots))}", kind="denied")


def _volume(request: Request, log: logging.Logger, _progress: Progress) -> AcquireReport:
    parts = urlsplit(request.uri)
    volume = unquote(parts.netloc)
    return _in_place(request, _located(request, "fscore", unquote(parts.path) or "/", volume=volume), log)


def _in_place(request: Request, located: Located, log: logging.Logger) -> AcquireReport:
    with opened(msgspec.structs.replace(located, include=[], exclude=[], allow_pickle=True)) as everything:
        listing = everything.files()
    selection = _selected(request, listing)
    _preview(located.uri, selection, log)
    return _report(located, selection, fetched=0)


def _huggingface(request: Request, log: logging.Logger, _progress: Progress) -> AcquireReport:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    repository, _, revision = request.uri.removeprefix("hf://").partition("@")
    endpoint = os.environ.get("HF_ENDPOINT") or None
    token = os.environ.get("HF_TOKEN") or False
    try:
        api = HfApi(endpoint=endpoint, token=token)
        info = api.model_info(repository, revision=revision or None, files_metadata=True)
        listing = [(str(item.rfilename), int(item.size or 0)) for item in info.siblings or []]
        selection = _selected(request, listing)
        _preview(f"{request.uri} at {info.sha}", selection, log)
        target = Path(request.workspace) / "hf"
        before = _have(target, selection)
        # Pinned to the commit: a branch that moves between two tries must not mix two models.
        snapshot_download(
            repository,
            revision=info.sha,
            local_dir=target,
            allow_patterns=[_literal(path) for path, _ in selection.kept],
            endpoint=endpoint,
            token=token,
            max_workers=_FILES_AT_ONCE,
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise HubError(f"{request.uri}: {_first_line(error)}", kind="not_found") from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"{request.uri}: {_first_line(error)}") from error
    located = _located(request, "hf", str(target), revision=str(info.sha))
    return _report(located, selection, fetched=selection.bytes_kept - before)


def _s3(request: Request, log: logging.Logger, progress: Progress) -> AcquireReport:
    parts = urlsplit(request.uri)
    prefix = unquote(parts.path).strip("/")
    lead = f"{prefix}/" if prefix else ""
    target = Path(request.workspace) / "s3"
    store = _s3_store(parts.netloc)
    try:
        listing = [(item.key[len(lead) :], item.size) for item in store.scan(lead) if not item.key.endswith("/")]
        selection = _selected(request, listing)
        _preview(request.uri, selection, log)
        task = progress.start(f"download {request.uri}", selection.bytes_kept, "B")

        def bring(file: tuple[str, int]) -> int:
            path, size = file
            got = fetch_file(lambda offset, length: store.get(lead + path, offset, length), target, path, size)
            progress.advance(task, size)
            return got

        with Pool("acquire", _FILES_AT_ONCE) as pool:
            fetched = sum(pool.map_bounded(bring, selection.kept))
        progress.finish(task)
    finally:
        store.close()
    return _report(_located(request, "s3", str(target)), selection, fetched=fetched)


def _s3_store(bucket: str) -> ObjectStore:
    """Endpoint and credentials come from the AWS_* variables, a profile or the machine's role."""
    from fscore.objects.registry import open_store
    from fscore.objects.wrap.retry import Retrying

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    location = f"{endpoint.rstrip('/')}/{bucket}" if endpoint else f"s3://{bucket}"
    store = open_store(
        "s3",
        location,
        access_key=os.environ.get("AWS_ACCESS_KEY_ID", ""),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
        session_token=os.environ.get("AWS_SESSION_TOKEN", ""),
    )
    return Retrying(store, Retry(attempts=_ATTEMPTS, clock=SystemClock()))


def fetch_file(piece: Callable[[int, int], Buffer], target: Path, path: str, size: int) -> int:
    """Write one file below `target` by ranges; goes on after the last whole write; returns the bytes fetched now."""
    whole = _below(target, path)
    if whole.exists() and whole.stat().st_size == size:
        return 0
    whole.parent.mkdir(parents=True, exist_ok=True)
    partial = whole.with_name(f"{whole.name}.part")
    done = min(partial.stat().st_size, size) if partial.exists() else 0
    with partial.open("r+b" if done else "wb") as stream:
        stream.truncate(done)
        stream.seek(done)
        offset = done
        while offset < size:
            data = piece(offset, min(_PIECE, size - offset))
            if not data:
                raise ConnectionError(f"{path}: the source ended at {offset} of {size} bytes")
            stream.write(data)
            offset += len(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(whole)
    return size - done


def _below(target: Path, path: str) -> Path:
    whole = target / path
    if path.startswith("/") or ".." in path.split("/"):
        raise HubError(f"path {path!r} leaves the model directory", kind="unsafe")
    return whole


def _selected(request: Request, listing: Sequence[tuple[str, int]]) -> Selection:
    if not listing:
        raise HubError(f"{request.uri} has no files", kind="not_found")
    selection = select_files(listing, request.include, request.exclude, allow_pickle=request.allow_pickle)
    if not selection.kept:
        raise HubError(f"{request.uri}: no file is left after include and exclude", hint="loosen the patterns")
    for path, _ in selection.kept:
        _below(Path(), path)
    return selection


def _located(request: Request, kind: str, path: str, *, volume: str = "", revision: str = "") -> Located:
    return Located(
        uri=request.uri,
        kind=kind,
        path=path,
        volume=volume,
        revision=revision,
        include=request.include,
        exclude=request.exclude,
        allow_pickle=request.allow_pickle,
    )


def _report(located: Located, selection: Selection, *, fetched: int) -> AcquireReport:
    return AcquireReport(
        source=located,
        files=len(selection.kept),
        bytes_total=selection.bytes_kept,
        bytes_fetched=fetched,
        bytes_dropped=selection.bytes_dropped,
        dropped=[f"{path}: {why}" for path, _, why in selection.dropped],
    )


def _preview(what: str, selection: Selection, log: logging.Logger) -> None:
    log.info("%s: %d files, %.1f MB", what, len(selection.kept), selection.bytes_kept / 1e6)
    for path, size in sorted(selection.kept, key=lambda item: -item[1])[:10]:
        log.info("  %s  %.1f MB", path, size / 1e6)
    for path, size, why in selection.dropped[:10]:
        log.info("  left out: %s  %.1f MB (%s)", path, size / 1e6, why)


def _have(target: Path, selection: Selection) -> int:
    here = ((target / path, size) for path, size in selection.kept)
    return sum(size for path, size in here if path.exists() and path.stat().st_size == size)


def _literal(path: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


_HANDLERS: dict[str, Callable[[Request, logging.Logger, Progress], AcquireReport]] = {
    "": _local,
    "file": _local,
    "hf": _huggingface,
    "s3": _s3,
    "fscore": _volume,
}
