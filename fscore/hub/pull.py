"""Bring a version, or one rank of a layout, out of a volume: in parallel, resumed, every byte verified.

A file grows as `<name>.part` in order and gets its name when its SHA-256 is that of the manifest; the manifest itself
comes last, so a directory that has one is complete.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import msgspec

from fscore.domain.errors import CorruptError, HubError
from fscore.files.file import VolumeFile
from fscore.files.filesystem import Filesystem
from fscore.hub import manifest as manifests
from fscore.hub import names, records
from fscore.hub.access import Actor, as_actor
from fscore.hub.ledger import Ledger
from fscore.hub.lifecycle import State
from fscore.hub.manifest import Manifest, ManifestFile
from fscore.hub.names import Ref, parse_ref
from fscore.hub.registry import Registry
from fscore.hub.reports import PullReport
from fscore.runtime.clock import Clock, SystemClock
from fscore.runtime.progress import NoProgress, Progress
from fscore.runtime.threads import Pool

if TYPE_CHECKING:
    from fscore.volume import Volume

_STEP: Final = 4 << 20
_FILES_AT_ONCE: Final = 2
_RANGES_AT_ONCE: Final = 4


class Part(msgspec.Struct, frozen=True):
    """What of a version is wanted: the directory, its manifest, and below it one rank or all."""

    ref: Ref
    path: str
    manifest: Manifest
    rank: str
    files: tuple[ManifestFile, ...]
    warnings: tuple[str, ...] = ()


def select(ledger: Ledger, registry: Registry, ref: str | Ref, *, rank: str = "", layout: str = "") -> Part:
    """Find a version, a layout of it or one rank of a layout. Raises HubError that lists what there is."""
    number, path = registry.resolve(ref)
    at = parse_ref(ref).at(number)
    warnings: tuple[str, ...] = ()
    if ledger.version(at).state == State.DEPRECATED:
        warnings = (f"{at} is deprecated",)
    if not rank and not layout:
        manifest = records.read_manifest(ledger.files, path)
        return Part(at, path, manifest, "", manifest.files, warnings)
    layouts = ledger.layouts(at)
    if layout:
        names.parse_layout(layout)
        layouts = {name: where for name, where in layouts.items() if name == layout}
    read = {name: records.read_manifest(ledger.files, where) for name, where in layouts.items()}
    if rank:
        names.check_rank(rank)
        read = {name: manifest for name, manifest in read.items() if rank in manifest.parallel.ranks}
    if len(read) != 1:
        there = ", ".join(read or ledger.layouts(at)) or "none"
        what = f"rank {rank}" if rank else f"layout {layout}"
        problem = f"{what} of {at} is in several layouts" if read else f"{at} has no {what}"
        hint = f"layouts: {there}" + ("; name one" if read else "; see `fscore split`")
        raise HubError(problem, kind="not_found", hint=hint)
    ((name, manifest),) = read.items()
    files = tuple(file for file in manifest.files if not rank or file.path.startswith(f"{rank}/"))
    return Part(at, layouts[name], manifest, rank, files, warnings)


def pull(
    volume: Volume,
    ref: str | Ref,
    target_dir: str | os.PathLike[str],
    *,
    rank: str = "",
    layout: str = "",
    resume: bool = True,
    verify: bool = True,
    user: str | Actor = "",
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> PullReport:
    """Copy a version (or one rank) into a directory of this machine; what is complete there already is kept."""
    clock = clock or SystemClock()
    progress = progress or NoProgress()
    began = clock.monotonic()
    registry = Registry(volume, clock)
    if user:
        registry.ledger.policy.check_member(as_actor(user), parse_ref(ref).team)
    part = select(registry.ledger, registry, ref, rank=rank, layout=layout)
    target = Path(target_dir)
    prefix = f"{rank}/" if rank else ""
    task = progress.start("pull", sum(file.size for file in part.files), "B")
    fetch = _Fetch(volume.files, part.path, target, resume=resume, verify=verify)

    def one(file: ManifestFile) -> int:
        return fetch.file(file, file.path.removeprefix(prefix), lambda count: progress.advance(task, count))

    try:
        with fetch, Pool("hub-pull", _FILES_AT_ONCE) as pool:
            fetched = sum(pool.map_bounded(one, part.files))
    finally:
        progress.finish(task)
    total = sum(file.size for file in part.files)
    _write_manifest(target, part.manifest)
    return PullReport(
        ref=str(part.ref),
        version=part.manifest.version,
        digest=part.manifest.version_digest,
        rank=rank,
        files=len(part.files),
        bytes_total=total,
        bytes_fetched=fetched,
        bytes_kept=total - fetched,
        seconds=round(clock.monotonic() - began, 3),
        path=str(target),
        warnings=part.warnings,
    )


class _Fetch:
    """Copies single files; ranges of all of them share one pool."""

    def __init__(self, files: Filesystem, path: str, target: Path, *, resume: bool, verify: bool) -> None:
        self._fs = files
        self._from = path
        self._target = target
        self._resume = resume
        self._verify = verify
        self._ranges = Pool("hub-range", _RANGES_AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ranges.close()

    def file(self, wanted: ManifestFile, relative: str, advance: Callable[[int], None]) -> int:
        """Bring one file; returns the bytes that were fetched."""
        place = self._target / names.safe_relative(relative)
        place.parent.mkdir(parents=True, exist_ok=True)
        if self._resume and self._is_done(place, wanted):
            advance(wanted.size)
            return 0
        part = place.with_name(f"{place.name}.part")
        for fresh in (not self._resume, True):
            fetched = self._grow(part, wanted, advance, fresh=fresh)
            if fetched is not None:
                part.replace(place)
                return fetched
            if fresh:
                break
        part.unlink(missing_ok=True)
        raise CorruptError(f"{wanted.path}: the bytes read are not those of the manifest ({wanted.sha256[:12]})")

    def _grow(self, part: Path, wanted: ManifestFile, advance: Callable[[int], None], *, fresh: bool) -> int | None:
        """Fetch what a part file lacks; None when the whole is not what the manifest says."""
        proof = hashlib.sha256()
        have = 0
        if not fresh and part.is_file() and 0 < part.stat().st_size <= wanted.size:
            proof = self._sum(part)
            have = part.stat().st_size
            advance(have)
        with part.open("ab" if have else "wb") as local, self._fs.open(f"{self._from}/{wanted.path}", "rb") as remote:
            fetched = self._copy(remote, local, have, wanted.size, proof, advance)
        if have + fetched != wanted.size or (self._verify and proof.hexdigest() != wanted.sha256):
            advance(-have - fetched)
            return None
        return fetched

    def _copy(
        self,
        remote: VolumeFile,
        local: BinaryIO,
        have: int,
        size: int,
        proof: hashlib._Hash,
        advance: Callable[[int], None],
    ) -> int:
        fetched = 0
        spare: SimpleQueue[memoryview] = SimpleQueue()  # fresh pages would cost more than the bytes that fill them
        for _ in range(min(_RANGES_AT_ONCE + 1, -(-(size - have) // _STEP))):
            spare.put(memoryview(bytearray(min(_STEP, size))))

        def bring(at: int) -> tuple[memoryview, int]:
            buffer = spare.get()
            return buffer, remote.pread_into(at, buffer[: size - at])

        for buffer, count in self._ranges.map_bounded(bring, range(have, size, _STEP), _RANGES_AT_ONCE):
            chunk = buffer[:count]
            local.write(chunk)
            if self._verify:
                proof.update(chunk)
            fetched += count
            advance(count)
            spare.put(buffer)
        return fetched

    def _is_done(self, place: Path, wanted: ManifestFile) -> bool:
        return place.is_file() and place.stat().st_size == wanted.size and self._sum(place).hexdigest() == wanted.sha256

    def _sum(self, path: Path) -> hashlib._Hash:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256")


def _write_manifest(target: Path, manifest: Manifest) -> None:
    place = target / names.AUDIT / manifests.MANIFEST
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    part.write_bytes(manifests.render(manifest))
    part.replace(place)
