"""Which contents a team has, and where: files by MD5, byte ranges by SHA-256.

The index only ever says "perhaps there": a hit counts when its file is still the one that was indexed (inode, size,
mtime), and a file found by MD5 only when size and SHA-256 agree. It lies in `/.fscore/index/<team>/*.idx`, one file
a version, merged when they become many; it can be thrown away and rebuilt from the manifests. Lookups never leave
the team: to know a hash is not to own the bytes.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from fscore.domain.digest import FileDigest
from fscore.domain.errors import CorruptError, HubError, NotADir, NotFound
from fscore.files.filesystem import Filesystem
from fscore.files.stat import Stat
from fscore.hub import manifest as manifests
from fscore.hub import names
from fscore.hub.manifest import Manifest
from fscore.hub.plan import Known, Location, PartKey, key_of
from fscore.hub.scan import HashedFile
from fscore.hub.segments import Directory, IndexBase, IndexFile, IndexSegment, Row, pack, unpack
from fscore.runtime import log
from fscore.runtime.threads import Pool

logger = log.get(__name__)

_MERGE_AT: Final = 24
"""Index files of a team before they are merged into one."""
_READERS: Final = 8
_MOST_PLACES: Final = 3


class IndexReport(msgspec.Struct, frozen=True):
    """What a rebuild found."""

    teams: int = 0
    versions: int = 0
    files: int = 0
    ranges: int = 0


class ContentIndex:
    """The index of one team's contents in one volume."""

    def __init__(self, files: Filesystem, team: str) -> None:
        self._fs = files
        self._team = team
        self._dir = names.index_dir(team)
        self._cache: dict[str, IndexSegment] = {}

    def lookup(self, files: Sequence[HashedFile]) -> Known:
        """What is known of these files and their segments: one pass over the index, one check a source file."""
        wanted: list[tuple[bytes, int]] = []
        places: dict[PartKey, int] = {}
        for file in files:
            for segment in file.segments:
                if key_of(segment) not in places:
                    places[key_of(segment)] = len(wanted)
                    wanted.append((bytes.fromhex(segment.sha256), segment.length))
        by_md5 = {file.digest.md5: file.digest for file in files}
        whole: list[tuple[FileDigest, tuple[str, ...], IndexFile]] = []
        parts: list[tuple[int, tuple[str, ...], IndexFile, int]] = []
        for loaded in self._load():
            bases = [self._homes(base) for base in loaded.directory.bases]
            table = loaded.directory.files
            for entry in table:
                digest = by_md5.get(entry.md5)
                if digest is not None and (entry.size, entry.sha256) == (digest.size, digest.sha256):
                    whole.append((digest, bases[entry.base], entry))
            for position, number, offset in loaded.find(wanted):
                parts.append((position, bases[table[number].base], table[number], offset))
        return self._verified(whole, parts, wanted)

    def add(self, manifest: Manifest, hashed: Sequence[HashedFile], where: str) -> None:
        """Index a version (or layout) that lies complete at `where`."""
        base = IndexBase(manifest.model, manifest.version, manifest.layout, manifest.version_digest)
        entries: list[IndexFile] = []
        rows: list[Row] = []
        for file in hashed:
            found = self._fs.stat(f"{where}/{file.path}")
            number = len(entries)
            digest = file.digest
            entries.append(IndexFile(0, file.path, digest.size, found.ino, found.mtime_ns, digest.md5, digest.sha256))
            rows += [Row(bytes.fromhex(s.sha256), s.length, number, s.offset) for s in file.segments if s.sha256]
        name = f"{manifest.model}-{names.entry(manifest.version, manifest.layout)}-{manifest.version_digest[-12:]}"
        self._write(name, Directory((base,), tuple(entries)), rows)
        self._merge()

    def clear(self) -> None:
        """Forget everything."""
        for name in self._names():
            self._fs.unlink(f"{self._dir}/{name}", skip_trash=True)
        self._cache.clear()

    def _verified(
        self,
        whole: list[tuple[FileDigest, tuple[str, ...], IndexFile]],
        parts: list[tuple[int, tuple[str, ...], IndexFile, int]],
        wanted: list[tuple[bytes, int]],
    ) -> Known:
        """Keep hits whose file is still there; of a range's places those in the files that hold most of the push."""
        checked: dict[tuple[str, ...], str | None] = {}

        def path_of(homes: tuple[str, ...], entry: IndexFile) -> str | None:
            key = (*homes, entry.path, str(entry.ino))
            if key not in checked:
                checked[key] = self._still_there(homes, entry)
            return checked[key]

        files: dict[FileDigest, list[Location]] = {}
        for digest, homes, entry in whole:
            path = None if digest in files else path_of(homes, entry)
            if path is not None:
                files[digest] = [Location(path, 0)]
        weight = Counter((homes, entry.path) for _, homes, entry, _ in parts)
        found: dict[PartKey, list[Location]] = {}
        for position, homes, entry, offset in sorted(parts, key=lambda hit: -weight[(hit[1], hit[2].path)]):
            sha256, length = wanted[position]
            known = found.setdefault((sha256.hex(), length), [])
            if len(known) < _MOST_PLACES and offset + length <= entry.size:
                path = path_of(homes, entry)
                if path is not None:
                    known.append(Location(path, offset))
        return Known(files, {key: places for key, places in found.items() if places})

    def _homes(self, base: IndexBase) -> tuple[str, ...]:
        where = (self._team, base.model, base.version, base.layout)
        return (
            f"{names.model_dir(self._team, base.model)}/{names.entry(base.version, base.layout)}",
            names.draft_dir(*where),
        )

    def _still_there(self, homes: Iterable[str], entry: IndexFile) -> str | None:
        for home in homes:
            path = f"{home}/{entry.path}"
            try:
                found: Stat = self._fs.stat(path, follow=False)
            except (NotFound, NotADir):
                continue
            if (found.ino, found.size, found.mtime_ns) == (entry.ino, entry.size, entry.mtime_ns) and found.is_file:
                return path
        return None

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in self._fs.listdir(self._dir) if name.endswith(".idx"))
        except NotFound:
            return []

    def _load(self) -> list[IndexSegment]:
        """Every index file; one that a merge took away meanwhile is read again in its new place."""
        present: list[str] = []
        for _ in range(3):
            present = self._names()
            missing = [name for name in present if name not in self._cache]
            with Pool("hub-index", _READERS) as pool:
                read = dict(zip(missing, pool.map_bounded(self._read, missing), strict=True))
            self._cache.update({name: found for name, found in read.items() if found is not None})
            if None not in read.values():
                break
        return [self._cache[name] for name in present if name in self._cache]

    def _read(self, name: str) -> IndexSegment | None:
        path = f"{self._dir}/{name}"
        try:
            return unpack(self._fs.read_bytes(path))
        except NotFound:
            return None
        except CorruptError as error:
            logger.warning("%s: %s; ignored, rebuild the index", path, error)
            return unpack(pack(Directory(), ()))

    def _write(self, name: str, directory: Directory, rows: Iterable[Row]) -> None:
        self._fs.mkdir(self._dir, parents=True, exist_ok=True)
        self._fs.write_atomic(f"{self._dir}/{name}.idx", pack(directory, rows), replace=True)

    def _merge(self) -> None:
        """Many small index files become one; what refers to versions that are gone is left out."""
        old = self._names()
        if len(old) < _MERGE_AT:
            return
        bases: list[IndexBase] = []
        entries: list[IndexFile] = []
        rows: list[Row] = []
        for loaded in self._load():
            table = loaded.directory
            alive = {number: len(bases) + count for count, number in enumerate(self._alive(table.bases))}
            bases += [table.bases[number] for number in alive]
            moved: dict[int, int] = {}
            for number, entry in enumerate(table.files):
                if entry.base in alive:
                    moved[number] = len(entries)
                    entries.append(msgspec.structs.replace(entry, base=alive[entry.base]))
            rows += [msgspec.structs.replace(r, file=moved[r.file]) for r in loaded.rows() if r.file in moved]
        self._write(f"merged-{secrets.token_hex(8)}", Directory(tuple(bases), tuple(entries)), rows)
        for name in old:
            try:
                self._fs.unlink(f"{self._dir}/{name}", skip_trash=True)
            except NotFound:
                continue
            self._cache.pop(name, None)

    def _alive(self, bases: Sequence[IndexBase]) -> list[int]:
        return [n for n, base in enumerate(bases) if any(self._fs.exists(home) for home in self._homes(base))]


def rebuild_index(files: Filesystem, team: str = "") -> IndexReport:
    """Throw the index away and make it anew from the manifests on the volume; of one team, or of all."""
    report = IndexReport()
    for name in [team] if team else teams_of(files):
        index = ContentIndex(files, name)
        index.clear()
        report = msgspec.structs.replace(report, teams=report.teams + 1)
        for where in _complete(files, name):
            try:
                manifest = manifests.parse(files.read_bytes(f"{where}/{names.AUDIT}/{manifests.MANIFEST}"), where)
                hashed = hashed_from(files, manifest, where)
            except (NotFound, HubError) as error:
                logger.warning("not indexed: %s", error)
                continue
            index.add(manifest, hashed, where)
            report = msgspec.structs.replace(
                report,
                versions=report.versions + 1,
                files=report.files + len(hashed),
                ranges=report.ranges + sum(len(file.segments) for file in hashed),
            )
    return report


def teams_of(files: Filesystem) -> list[str]:
    """Teams that have models, published or not."""
    found: set[str] = set()
    for top in (names.MODELS, f"{names.HOME}/drafts", f"{names.HOME}/log"):
        found.update(_subdirs(files, top))
    return sorted(found)


def models_of(files: Filesystem, team: str) -> list[str]:
    """A team's models, published or not."""
    found: set[str] = set()
    for top in (names.MODELS, f"{names.HOME}/drafts", f"{names.HOME}/log"):
        found.update(_subdirs(files, f"{top}/{team}"))
    return sorted(found)


def hashed_from(files: Filesystem, manifest: Manifest, where: str) -> list[HashedFile]:
    """A version's files and segments as its own records state them, without reading the weights.

    What lies between tensors (headers) is read and hashed, for no record keeps it.
    """
    from fscore.hub.formats.source import VolumeSource
    from fscore.hub.records import hashed_files, read_tensors

    return hashed_files(VolumeSource(files, where), manifest, read_tensors(files, manifest, where))


def _complete(files: Filesystem, team: str) -> list[str]:
    found: list[str] = []
    for top in (f"{names.MODELS}/{team}", f"{names.HOME}/drafts/{team}"):
        for model in _subdirs(files, top):
            found += [f"{top}/{model}/{name}" for name in _subdirs(files, f"{top}/{model}") if names.split_entry(name)]
    return found


def _subdirs(files: Filesystem, path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in files.scandir(path) if entry.is_dir)
    except NotFound:
        return []
