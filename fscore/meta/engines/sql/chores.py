"""What a volume needs around its tree, as functions over one link inside one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fscore.domain.attr import Attr
from fscore.domain.errors import SettingError
from fscore.meta.engines.sql.connections import Link
from fscore.meta.engines.sql.rows import row_of, unpack_pairs
from fscore.meta.engines.sql.statements import Statements
from fscore.meta.records import LEGACY_LIFE_S, Counter, DirStat, Session

SEEDS: Final = {
    "nextInode": 2,
    "nextChunk": 1,
    "nextSession": 0,
    "usedSpace": 0,
    "totalInodes": 0,
    "nextCleanupSlices": 0,
}
"""Counters of a new volume (volume-format.md 3.3)."""

SMALLEST: Final = {Counter.INODE: 2, Counter.SLICE: 1}
"""Counters whose row holds the next free number, with the smallest one; the rows of others hold the last one used."""


def reserve(link: Link, sql: Statements, counter: Counter, count: int) -> range:
    """Take numbers."""
    row = link.one(sql.get_counter, (counter.value,))
    stored: int = row[0] if row else 0
    first = max(stored, SMALLEST[counter]) if counter in SMALLEST else stored + 1
    link.run(sql.put_counter, (counter.value, first + count if counter in SMALLEST else stored + count))
    return range(first, first + count)


def load_setting(link: Link, sql: Statements) -> bytes | None:
    """The setting; None when the database has no such table."""
    if not sql.dialect.columns(link, sql.tables.setting.name):
        return None
    row = link.one(sql.get_setting)
    return None if row is None else row[0]


def init_volume(link: Link, sql: Statements, setting: bytes, nodes: Mapping[int, Attr], where: str) -> None:
    """Write what a new volume has; its tables are there."""
    if link.one(sql.get_setting) is not None:
        raise SettingError(f"{where} holds a volume already")
    link.run(sql.add_setting, (setting.decode(),))
    for ino, attr in nodes.items():
        link.run(sql.seed_node, row_of(ino, attr))
    for name, value in SEEDS.items():
        if link.one(sql.get_counter, (name,)) is None:
            link.run(sql.put_counter, (name, value))


def put_session(link: Link, sql: Statements, session: Session) -> bool:
    """Put off a session's expiry, or insert it when it is not there (any more). Whether it was."""
    if link.run(sql.keep_session, (session.expires, session.sid)):
        return True
    link.run(sql.add_session, (session.sid, session.expires, session.info))
    return False


def drop_session(link: Link, sql: Statements, sid: int) -> None:
    """A session's locks and its record, wherever it is."""
    for text in sql.drop_session:
        link.run(text, (sid,))
    if _has_legacy(link, sql):
        link.run(sql.drop_legacy, (sid,))


def legacy_sessions(link: Link, sql: Statements) -> list[Session]:
    """Clients before 1.0 by their last heartbeat; none without their table."""
    if not _has_legacy(link, sql):
        return []
    return [Session(sid, beat_s + LEGACY_LIFE_S, b"") for sid, beat_s in link.all(sql.legacy_sessions)]


def _has_legacy(link: Link, sql: Statements) -> bool:
    return bool(sql.dialect.columns(link, f"{sql.tables.prefix}session"))


def add_dir_stats(link: Link, sql: Statements, deltas: Mapping[int, DirStat]) -> list[int]:
    """Add to statistics; which directories have to be counted anew."""
    missing = []
    for ino, delta in sorted(deltas.items()):
        if not link.run(sql.add_dir_stat, (*delta, ino)):
            missing.append(ino)
        elif min(delta) < 0:
            row = link.one(sql.get_dir_stat, (ino,))
            if row is not None and min(row) < 0:
                missing.append(ino)
    return missing


def forget_delayed(link: Link, sql: Statements, new_id: int, at_s: int) -> None:
    """Remove a parked list and drop one reference of each of its slices."""
    row = link.one(sql.get_delayed, (new_id, at_s))
    if row is None:
        return
    for slice_id, size in unpack_pairs(row[0]):
        link.run(sql.add_refs, (-1, slice_id, size))
    link.run(sql.forget_delayed, (new_id, at_s))


def claim_job(link: Link, sql: Statements, gate: str, now_s: int, window_s: int) -> bool:
    """Take the turn when the last one is longer ago than the window."""
    row = link.one(sql.get_counter, (gate,))
    if row is not None and row[0] > now_s - window_s:
        return False
    link.run(sql.put_counter, (gate, now_s))
    return True


def used_features(link: Link, sql: Statements) -> frozenset[str]:
    """Features with a row in one of their tables."""
    found = {name for name, query in sql.features.items() if link.one(query) is not None}
    if legacy_sessions(link, sql):
        found.add("legacy_sessions")
    return frozenset(found)
