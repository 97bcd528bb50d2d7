"""A small description of where the model now lies, and how to open it: what travels between tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from fscore.domain.errors import HubError
from fscore.hub.formats.source import LocalSource, VolumeSource
from fscore_airflow.acquire.select import Selection, select_files
from fscore_airflow.hooks.volume import VolumeHook

if TYPE_CHECKING:
    from fscore.hub.formats.api import RandomReader, Source


class Located(msgspec.Struct, frozen=True):
    """Where the files are: a directory of this machine, or (`volume`) a directory of a volume."""

    uri: str
    kind: str
    path: str
    volume: str = ""
    revision: str = ""
    include: list[str] = []
    exclude: list[str] = []
    allow_pickle: bool = False


class SelectedSource:
    """Those files of a source that the selection keeps; opening any other one is refused."""

    def __init__(self, inner: Source, selection: Selection) -> None:
        self._inner = inner
        self._kept = list(selection.kept)
        self._names = {path for path, _ in selection.kept}

    @property
    def location(self) -> str:
        """Where the whole source lies."""
        return self._inner.location

    def files(self) -> list[tuple[str, int]]:
        """What is kept, with sizes, sorted by path."""
        return list(self._kept)

    def open(self, rel: str) -> RandomReader:
        """Open one of `files()`."""
        if rel not in self._names:
            raise HubError(f"{rel} is not among the selected files of {self.location}", kind="not_found")
        return self._inner.open(rel)

    def stats(self) -> list[tuple[str, int, int]]:
        """What is kept, with size and modification time; empty times where the source has none."""
        inner = getattr(self._inner, "stats", None)
        if inner is None:
            return [(path, size, 0) for path, size in self._kept]
        return [entry for entry in inner() if entry[0] in self._names]


@contextmanager
def opened(located: Located | dict[str, Any]) -> Iterator[SelectedSource]:
    """The selected files, readable; a volume that must be opened for it is closed at the end."""
    where = msgspec.convert(located, Located) if isinstance(located, dict) else located
    if where.volume:
        with VolumeHook(where.volume).open(read_only=True, session=False) as volume:
            yield _selected(VolumeSource(volume.files, where.path), where)
    else:
        yield _selected(LocalSource(where.path), where)


def _selected(source: Source, where: Located) -> SelectedSource:
    selection = select_files(source.files(), where.include, where.exclude, allow_pickle=where.allow_pickle)
    if not selection.kept:
        raise HubError(f"{where.uri}: no file is left after include and exclude", hint="loosen the patterns")
    return SelectedSource(source, selection)
