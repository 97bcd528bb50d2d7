"""The trash: what lies in it by hours, put back where it was, or deleted for good (volume-format.md 2.8)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from fscore.admin.metadata import ROOT_USER, path_of
from fscore.domain.attr import Entry, Kind, space_of
from fscore.domain.errors import Exists, FsError, NotFound, SettingError
from fscore.domain.ids import TRASH, in_trash
from fscore.meta.service import MetaService
from fscore.volume import Volume

KEPT: Final = dt.timedelta(hours=2)


class TrashHour(msgspec.Struct, frozen=True):
    """One hour of the trash, in UTC: entries, and the bytes that they are charged."""

    hour: str
    entries: int
    space: int


class Restored(msgspec.Struct, frozen=True):
    """What was put back, or would be: paths; conflicts, where something is in the place; and what has none any more."""

    restored: list[str]
    conflicts: list[str]
    lost: list[str]
    failed: list[str]


class _Item(NamedTuple):
    """An entry of the trash, where it was, and when it was removed."""

    hour: int
    name: bytes
    parent: int
    ino: int
    was: bytes
    kind: Kind
    ctime_ns: int


class _Known(NamedTuple):
    """What one restore has found out: paths of what came back, paths of directories outside, names that are taken."""

    back: dict[int, str]
    outside: dict[int, str | None]
    taken: set[tuple[int, bytes]]


def list_trash(volume: Volume) -> list[TrashHour]:
    """Every hour that has a directory, the oldest first."""
    found = []
    for hour in _hours(volume.meta):
        entries = list(volume.meta.readdir(ROOT_USER, hour.ino))
        space = sum(space_of(one.kind, one.attr.length if one.attr is not None else 0) for one in entries)
        found.append(TrashHour(hour.name.decode(), len(entries), space))
    return found


def restore(volume: Volume, hours: Sequence[str], *, put_back: bool) -> Restored:
    """Put everything of these hours back where it was; without `put_back` only say what would happen.

    Directories come before what was in them. What is in the place of something is never replaced: of things that were
    removed from one place the youngest comes back.
    """
    meta = volume.meta
    waiting = [item for hour in _chosen(meta, hours) for item in _items(meta, hour)]
    waiting.sort(key=lambda item: (-item.ctime_ns, item.kind != Kind.DIRECTORY, -item.ino))
    report = Restored([], [], [], [])
    known = _Known({}, {}, set())
    while waiting:
        left = [item for item in waiting if not _tried(meta, item, report, known, put_back=put_back)]
        if len(left) == len(waiting):
            report.lost.extend(_shown(item) for item in left)
            break
        waiting = left
    return report


def empty(volume: Volume, hours: Sequence[str] = ()) -> int:
    """Delete these hours of the trash for good, or all of it; returns the entries that went.

    The directories of the last hours stay, empty: running clients put things into the one that they know.
    """
    meta = volume.meta
    gone = 0
    young = f"{dt.datetime.fromtimestamp(meta.engine.server_time(), dt.UTC) - KEPT:%Y-%m-%d-%H}".encode()
    for hour in _chosen(meta, hours) if hours else _hours(meta):
        gone += sum(1 for _ in meta.readdir(ROOT_USER, hour.ino, attrs=False))
        if hour.name < young:
            meta.remove_tree(TRASH, hour.name, hour.ino)
        else:
            meta.empty_tree(hour.ino)
    volume.collect()
    return gone


def _hours(meta: MetaService) -> list[Entry]:
    try:
        return sorted(meta.readdir(ROOT_USER, TRASH, attrs=False), key=lambda entry: entry.name)
    except NotFound:
        return []


def _chosen(meta: MetaService, hours: Sequence[str]) -> list[Entry]:
    known = {entry.name.decode(): entry for entry in _hours(meta)}
    unknown = [hour for hour in hours if hour not in known]
    if unknown:
        raise SettingError(f"the trash has no hour {', '.join(unknown)}: it has {', '.join(known) or 'none'}")
    return [known[hour] for hour in hours]


def _items(meta: MetaService, hour: Entry) -> list[_Item]:
    found = []
    for entry in meta.readdir(ROOT_USER, hour.ino):
        parent, _, rest = entry.name.partition(b"-")
        ino, _, was = rest.partition(b"-")
        if parent.isdigit() and ino.isdigit() and was:
            removed_ns = entry.attr.ctime_ns if entry.attr is not None else 0
            found.append(_Item(hour.ino, entry.name, int(parent), entry.ino, was, entry.kind, removed_ns))
    return found


def _tried(meta: MetaService, item: _Item, report: Restored, known: _Known, *, put_back: bool) -> bool:
    """Put one item back, if its directory is there by now; whether it is settled."""
    above = known.back.get(item.parent)
    if above is None:
        if item.parent not in known.outside:
            known.outside[item.parent] = _outside(meta, item.parent)
        above = known.outside[item.parent]
    if above is None:
        return False
    path = f"{above.rstrip('/')}/{_text(item.was)}"
    try:
        if put_back:
            meta.restore(ROOT_USER, item.hour, item.name)
        else:
            _check_free(meta, item, known)
    except Exists:
        report.conflicts.append(path)
    except FsError as error:
        report.failed.append(f"{path}: {error.detail or error.says}")
    else:
        report.restored.append(path)
        known.back[item.ino] = path
        known.taken.add((item.parent, item.was))
    return True


def _check_free(meta: MetaService, item: _Item, known: _Known) -> None:
    if (item.parent, item.was) in known.taken:
        raise Exists(path=item.was)
    if item.parent in known.back:
        return
    try:
        meta.lookup(ROOT_USER, item.parent, item.was)
    except NotFound:
        return
    raise Exists(path=item.was)


def _outside(meta: MetaService, ino: int) -> str | None:
    """The path of a directory that is there, and not in the trash itself."""
    try:
        attr = meta.getattr(ino, fresh=True)
    except NotFound:
        return None
    if attr.kind != Kind.DIRECTORY or in_trash(attr.parent):
        return None
    return path_of(meta, ino)


def _shown(item: _Item) -> str:
    return f"{_text(item.was)} of directory {item.parent}, which is gone"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
