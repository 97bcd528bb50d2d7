"""The rules of a watched checkpoint directory: which checkpoint is complete, quiet and new. No Airflow in here.

Rule 1  complete is what `fscore.hub.checkpoint` proves from commit markers and sizes.
Rule 2  quiet: two looks at least `quiesce` seconds apart saw the same files.
Rule 3  new: no upload event of the model carries the checkpoint's fingerprint.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.checkpoint import CheckpointReport, Observation, discover, observe, probe, settled
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
        self._quiet_ns = int(quiesce * 1e9)
        self._clock = clock or SystemClock()
        self._first: dict[str, Observation] = {}
        self._told: dict[str, str] = {}
        self._news: list[str] = []

    def look(self) -> dict[str, Any] | None:
        """The report of the oldest checkpoint that may be ingested now, or None."""
        if not self._directory.is_dir():
            self._tell("", f"{self._directory} does not exist yet")
            return None
        source = LocalSource(self._directory, skip_links=True)
        try:
            folders = discover(source)
        except HubError as error:
            self._tell("", f"{self._directory} cannot be read yet: {error}")
            return None
        if not folders:
            self._tell("", f"{self._directory} holds no checkpoint yet")
        known: set[str] | None = None
        for folder in folders:
            seen = observe(source, self._clock.now_ns(), folder)
            first = self._first.setdefault(folder, seen)
            reason = settled(first, seen, quiet_ns=self._quiet_ns)
            if reason:
                if first.files != seen.files:
                    self._first[folder] = seen
                self._tell(folder, f"{folder or '.'}: {reason}")
                continue
            known = self._ingested() if known is None else known
            if fingerprint(seen) in known:
                self._tell(folder, f"{folder or '.'} was ingested before")
                continue
            found = probe(source, folder)
            if found.complete:
                return self._report(folder, seen, found)
            self._tell(folder, f"{folder or '.'} is {found.verdict} ({found.format}): {'; '.join(found.reasons[:3])}")
        return None

    def news(self) -> list[str]:
        """What changed since the last call, for the log."""
        told, self._news = self._news, []
        return told

    def _ingested(self) -> set[str]:
        with VolumeHook(self._volume).open(read_only=True, session=False) as volume:
            return ingested(Registry(volume), self._ref)

    def _tell(self, folder: str, line: str) -> None:
        if self._told.get(folder) != line:
            self._told[folder] = line
            self._news.append(line)

    def _report(self, folder: str, seen: Observation, found: CheckpointReport) -> dict[str, Any]:
        path = str(self._directory / folder)
        located = Located(uri=path, kind=KIND, path=path, revision=fingerprint(seen))
        return {
            "source": msgspec.to_builtins(located),
            "format": found.format,
            "step": found.step,
            "grid": found.grid,
            "optimizer": found.optimizer,
            "warnings": found.warnings,
            "files": found.files,
            "bytes_total": found.bytes_total,
        }


def ingested(registry: Registry, ref: Ref) -> set[str]:
    """Fingerprints of every checkpoint that the model's log says was uploaded."""
    sources = (event.extra.get("source") for event in registry.log(ref) if event.action == "upload")
    return {
        str(source.get("revision")) for source in sources if isinstance(source, dict) and source.get("kind") == KIND
    }


def fingerprint(seen: Observation) -> str:
    """Digest over names, sizes and times of a checkpoint's files."""
    lines = (f"{path}\0{size}\0{mtime}\n" for path, (size, mtime) in sorted(seen.files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]
