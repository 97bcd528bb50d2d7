"""What `status` shows: the setting without secrets, the connected clients, and the totals."""

from __future__ import annotations

import json
from typing import Any, Final

from fscore.domain.ids import TRASH, in_trash
from fscore.domain.setting import SECRETS, Setting
from fscore.volume import Volume

_HIDDEN: Final = "removed"


def status(volume: Volume) -> dict[str, Any]:
    """`Setting`, `Sessions` and `Statistic`, with the names that the official client's `status` uses."""
    engine = volume.meta.engine
    usage = volume.files.statfs()
    sessions = []
    for session in engine.sessions():
        info = _info(session.info)
        sessions.append({"Sid": session.sid, "Expire": session.expires, **info})
    return {
        "Setting": shown_setting(volume.setting),
        "Sessions": sorted(sessions, key=lambda found: int(found["Sid"])),
        "Statistic": {
            "UsedSpace": usage.used,
            "AvailableSpace": usage.avail,
            "UsedInodes": usage.inodes_used,
            "AvailableInodes": usage.inodes_free,
            "TrashFileCount": _trash_files(volume),
            "PendingDeletedFileCount": sum(1 for _ in engine.scan_delfiles()),
            "PendingDeletedSliceCount": sum(1 for _ in engine.scan_delayed()),
        },
    }


def shown_setting(setting: Setting) -> dict[str, Any]:
    """The setting's document with its secrets replaced."""
    document: dict[str, Any] = json.loads(setting.render())
    for name in SECRETS:
        key = "".join(part.capitalize() for part in name.split("_"))
        if document.get(key):
            document[key] = _HIDDEN
    return document


def _info(data: bytes) -> dict[str, Any]:
    try:
        info = json.loads(data)
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def _trash_files(volume: Volume) -> int:
    """Entries in the hour directories of the trash, as their statistics count them."""
    engine = volume.meta.engine
    return sum(stat.inodes for ino, stat in engine.scan_dir_stats() if in_trash(ino) and ino != TRASH)
