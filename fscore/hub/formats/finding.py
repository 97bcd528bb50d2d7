"""What a look at a checkpoint found, before it becomes a verdict; and the view of one of many checkpoints."""

from __future__ import annotations

import re

import msgspec

from fscore.hub.formats.api import CutShort, FormatError, RandomReader, Source, read_whole
from fscore.hub.formats.torch_zip import TorchFile, read_torch, suspicious

_STEP = re.compile(r"(?:iter|global_step|checkpoint|step|epoch)[_\-=]?(\d+)(?!.*\d)", re.IGNORECASE)


class Finding(msgspec.Struct):
    """Collected facts. `incomplete`: wait for the writer; `corrupt`: no waiting helps; `warnings`: worth knowing."""

    format: str
    step: int | None = None
    grid: dict[str, int] = {}
    incomplete: list[str] = []
    corrupt: list[str] = []
    warnings: list[str] = []
    tensors: int = 0
    parameters: int = 0
    optimizer: bool = False
    writer: dict[str, str] = {}


class Folder:
    """One directory of a source as a source of its own; what lies beside it can still be asked for."""

    def __init__(self, source: Source, path: str = "") -> None:
        self._source = source
        self._path = path.strip("/")
        self._all = dict(source.files())

    @property
    def name(self) -> str:
        """The directory's last name, of the source itself for the whole."""
        return (self._path or self._source.location).rstrip("/").rpartition("/")[2]

    @property
    def location(self) -> str:
        """Where it lies."""
        return f"{self._source.location}/{self._path}" if self._path else self._source.location

    def files(self) -> list[tuple[str, int]]:
        """The files below it, by paths relative to it."""
        skip = len(self._path) + 1 if self._path else 0
        inside = f"{self._path}/" if self._path else ""
        return [(path[skip:], size) for path, size in self._all.items() if path.startswith(inside)]

    def sizes(self) -> dict[str, int]:
        """As `files()`, by path."""
        return dict(self.files())

    def open(self, rel: str) -> RandomReader:
        """Open one of its files."""
        return self._source.open(f"{self._path}/{rel}" if self._path else rel)

    def beside(self, name: str) -> str | None:
        """The text of a small file next to the directory, None without one; for the whole source, inside it."""
        above = self._path.rpartition("/")[0] if self._path else ""
        path = f"{above}/{name}" if above else name
        if path not in self._all:
            return None
        return read_whole(self._source, path, limit=1 << 16).decode("utf-8", "replace").strip()

    def siblings(self) -> set[str]:
        """Names next to the directory."""
        above = self._path.rpartition("/")[0]
        skip = len(above) + 1 if above else 0
        return {path[skip:].partition("/")[0] for path in self._all if not above or path.startswith(f"{above}/")}


def read_archive(folder: Folder, rel: str, finding: Finding) -> TorchFile | None:
    """Read a torch archive; what is wrong with it goes into the finding."""
    reader = folder.open(rel)
    try:
        archive = read_torch(reader, rel)
    except CutShort as error:
        finding.incomplete.append(str(error))
        return None
    except FormatError as error:
        finding.corrupt.append(str(error))
        return None
    finally:
        reader.close()
    strange = suspicious(archive.names)
    if strange:
        finding.warnings.append(f"{rel} mentions {', '.join(strange[:3])}: it must not be loaded or published")
    return archive


def step_of(name: str) -> int | None:
    """The step that a directory name says."""
    found = _STEP.search(name)
    return int(found[1]) if found else None


def compare_steps(finding: Finding, said: dict[str, int | None]) -> None:
    """Several places name the step: take the first, and complain where they differ."""
    known = {place: step for place, step in said.items() if step is not None}
    if known:
        finding.step = next(iter(known.values()))
    if len(set(known.values())) > 1:
        finding.corrupt.append("the step is " + ", ".join(f"{step} in {place}" for place, step in known.items()))
