"""The rules of a watched checkpoint directory: which child is complete, quiet and new. No Airflow in here.

Rule 1  complete is what `fscore.hub.checkpoint` proves from commit markers and sizes.
Rule 2  quiet: names, sizes and times were the same at two looks at least `quiesce` seconds apart.
Rule 3  new: no upload event of the model carries the checkpoint's fingerprint.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from fscore.hub.checkpoint import Checkpoint, probe

from fscore.domain.errors import HubError
from fscore.hub.formats.source import LocalSource
from fscore.hub.names import Ref, parse_ref
from fscore.hub.registry import Registry
from fscore.runtime.clock import Clock, SystemClock
from fscore_airflow.acquire.source import Located
from fscore_airflow.hooks.volume import VolumeHook

KIND = "checkpoint"


class Watch:
    """One watched directory between looks."""

    def __init__(self, directory: str, volume: str, ref: str, quiesce: float, *, clock: Clock | None = None) -> None:
        self._directory = Path(directory)
        self._volume = volume
        self._ref = parse_ref(ref)
        self._quiesce = quiesce
        self._clock = clock or SystemClock()
        self._quiet_since: dict[tuple[str, str], float] = {}
        self._told: dict[str, str] = {}
        self._news: list[str] = []

    def look(self) -> dict[str, Any] | None:
        """The report of the oldest checkpoint that may be ingested now, or None."""
        ready: list[tuple[int, str, dict[str, Any]]] = []
        seen: dict[tuple[str, str], float] = {}
        for path in self._candidates():
            mark = fingerprint(path)
            since = self._quiet_since.get((str(path), mark), self._clock.monotonic())
            seen[str(path), mark] = since
            found = _probe(path)
            if not found.complete:
                self._tell(path, f"{path.name} is not complete: {'; '.join(found.problems) or 'no commit marker'}")
            elif self._clock.monotonic() - since < self._quiesce:
                self._tell(path, f"{path.name} is complete ({found.format}); waiting {self._quiesce:.0f} s for quiet")
            elif mark in self._ingested():
                self._tell(path, f"{path.name} was ingested before")
            else:
                ready.append((found.step or 0, path.name, _report(path, mark, found)))
        self._quiet_since = seen
        return min(ready, key=lambda item: item[:2])[2] if ready else None

    def news(self) -> list[str]:
        """What changed since the last call, for the log."""
        told, self._news = self._news, []
        return told

    def _candidates(self) -> list[Path]:
        if not self._directory.is_dir():
            self._tell(self._directory, f"{self._directory} does not exist yet")
            return []
        children = sorted(child for child in self._directory.iterdir() if child.is_dir())
        visible = [child for child in children if not child.name.startswith(".")]
        files = any(child.is_file() for child in self._directory.iterdir())
        return [self._directory, *visible] if files else visible

    def _ingested(self) -> set[str]:
        with VolumeHook(self._volume).open(read_only=True, session=False) as volume:
            return ingested(Registry(volume), self._ref)

    def _tell(self, path: Path, line: str) -> None:
        if self._told.get(str(path)) != line:
            self._told[str(path)] = line
            self._news.append(line)


def ingested(registry: Registry, ref: Ref) -> set[str]:
    """Fingerprints of every checkpoint that the model's log says was uploaded."""
    sources = (event.extra.get("source") for event in registry.log(ref) if event.action == "upload")
    return {
        str(source.get("revision")) for source in sources if isinstance(source, dict) and source.get("kind") == KIND
    }


def fingerprint(path: Path) -> str:
    """Digest over names, sizes and times of a directory's files."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        try:
            if not file.is_file():
                continue
            stat = file.stat()
        except FileNotFoundError:
            continue
        digest.update(f"{file.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _probe(path: Path) -> Checkpoint:
    try:
        return probe(path)
    except HubError as error:
        return Checkpoint(format="unknown", complete=False, problems=[str(error)])


def _report(path: Path, mark: str, found: Checkpoint) -> dict[str, Any]:
    files = LocalSource(path).files()
    located = Located(uri=str(path), kind=KIND, path=str(path), revision=mark)
    return {
        "source": msgspec.to_builtins(located),
        "format": found.format,
        "step": found.step,
        "files": len(files),
        "bytes_total": sum(size for _, size in files),
    }
