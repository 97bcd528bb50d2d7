"""Which files of a source make the model. Pure.

Rule 1  patterns first: excluded beats included (fscore.domain.match).
Rule 2  a pickle is left out when its directory has safetensors that carry the same weights.
Rule 3  a pickle that nothing replaces stays, so that validation reports and refuses it by name.
Rule 4  with `allow_pickle` rules 2 and 3 do not apply: what the patterns keep is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from fscore.domain.match import Matcher

REPLACEABLE = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".msgpack", ".h5", ".ot"})
"""Weights that safetensors beside them replace: most of these execute code when loaded."""

_INDEXES = (".bin.index.json",)


@dataclass(frozen=True)
class Selection:
    """What is taken and what is left out, each with its size."""

    kept: list[tuple[str, int]] = field(default_factory=list)
    dropped: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def bytes_kept(self) -> int:
        """Sum of the sizes of what is taken."""
        return sum(size for _, size in self.kept)

    @property
    def bytes_dropped(self) -> int:
        """Sum of the sizes of what is left out."""
        return sum(size for _, size, _ in self.dropped)


def select_files(
    files: Iterable[tuple[str, int]],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    allow_pickle: bool = False,
) -> Selection:
    """Apply the rules to a listing of (relative path, size)."""
    wanted = Matcher(include, exclude)
    listing = sorted(files)
    matched = [(path, size) for path, size in listing if wanted(path)]
    safe_directories = {str(PurePosixPath(path).parent) for path, _ in matched if path.endswith(".safetensors")}
    kept: list[tuple[str, int]] = []
    dropped = [(path, size, "pattern") for path, size in listing if not wanted(path)]
    for path, size in matched:
        if not allow_pickle and _is_repeated(path, safe_directories):
            dropped.append((path, size, "safetensors preferred"))
        else:
            kept.append((path, size))
    return Selection(kept, sorted(dropped))


def _is_repeated(path: str, safe_directories: set[str]) -> bool:
    pure = PurePosixPath(path)
    weights = pure.suffix in REPLACEABLE or path.endswith(_INDEXES)
    return weights and str(pure.parent) in safe_directories
